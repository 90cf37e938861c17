package dns

import (
	"encoding/binary"
	"net/netip"
)

// maxAnswer is the largest datagram that is sent, whatever the client takes.
const maxAnswer = 4096

// reply writes an answer. Records that do not fit are left out, and then the
// answer says that it is truncated.
type reply struct {
	b     []byte
	q     *query
	limit int // of b, with room for OPT
	an    uint16
	ar    uint16
	flags uint16
}

// begin writes header and question. A refused packet may have no question that
// can be repeated: then there is none.
func (r *reply) begin(dst []byte, q *query, flags uint16, code RCode) {
	*r = reply{q: q, limit: q.limit()}
	if q.edns {
		r.limit -= optLen
	}
	r.flags = flagQR | q.flags&(maskOpcode|flagRD|flagCD) | flags | uint16(code&maskRCode)
	r.b = append(dst[:0], q.raw[:2]...)
	r.b = append(r.b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	if q.end > headerLen {
		r.b = append(r.b, q.raw[headerLen:q.end]...)
	}
}

// fits tells whether n more bytes fit, and notes it in the header if not.
func (r *reply) fits(n int) bool {
	if len(r.b)+n > r.limit {
		r.flags |= flagTC
		return false
	}
	return true
}

// head writes a record up to its data. The name is where it is in the packet.
func (r *reply) head(name int, t Type, ttl uint32, size int) {
	r.b = append(r.b, pointer|byte(name>>8), byte(name), byte(t>>8), byte(t), 0, classIN,
		byte(ttl>>24), byte(ttl>>16), byte(ttl>>8), byte(ttl), byte(size>>8), byte(size))
}

// addresses writes the addresses, beginning at the turn and going round, and
// returns how many.
func (r *reply) addresses(name int, list []netip.Addr, ttl, turn uint32) (n uint16) {
	if len(list) == 0 {
		return 0
	}
	at := int(turn % uint32(len(list)))
	for range list {
		a := list[at]
		if at++; at == len(list) {
			at = 0
		}
		if a.Is4() {
			if !r.fits(12 + 4) {
				return n
			}
			r.head(name, TypeA, ttl, 4)
			v := a.As4()
			r.b = append(r.b, v[:]...)
		} else {
			if !r.fits(12 + 16) {
				return n
			}
			r.head(name, TypeAAAA, ttl, 16)
			v := a.As16()
			r.b = append(r.b, v[:]...)
		}
		n++
	}
	return n
}

// named writes a record whose data ends with a name, which is not compressed:
// for SRV that is forbidden (RFC 2782).
func (r *reply) named(t Type, ttl uint32, before, target []byte) {
	size := len(before) + len(target) + 1
	if !r.fits(12 + size) {
		return
	}
	r.head(headerLen, t, ttl, size)
	r.b = append(append(append(r.b, before...), target...), 0)
	r.an++
}

// end writes OPT, with the reason if there is one, and the header.
func (r *reply) end(code RCode, why reason) []byte {
	if r.q.edns {
		r.limit += optLen
		size := 0
		if why.code != 0 && len(r.b)+optLen+6+len(why.text) <= r.limit {
			size = 6 + len(why.text)
		}
		var do byte
		if r.q.do {
			do = ednsDO >> 8
		}
		r.b = append(r.b, 0, 0, byte(TypeOPT), maxQuery>>8, maxQuery&0xff,
			byte(code>>4), 0, do, 0, 0, byte(size))
		if size > 0 {
			r.b = append(r.b, 0, optionEDE, 0, byte(2+len(why.text)), byte((why.code-1)>>8), byte(why.code-1))
			r.b = append(r.b, why.text...)
		}
		r.ar++
	}
	binary.BigEndian.PutUint16(r.b[2:], r.flags)
	if r.q.end > headerLen {
		r.b[5] = 1
	}
	binary.BigEndian.PutUint16(r.b[6:], r.an)
	binary.BigEndian.PutUint16(r.b[10:], r.ar)
	return r.b
}

// reason is an extended error (RFC 8914): its code and one, so that the zero
// reason is none, and a short text.
type reason struct {
	code uint16
	text string
}

// refusal is a whole answer that is nothing but a code.
func refusal(dst []byte, q *query, code RCode, why reason) []byte {
	var r reply
	r.begin(dst, q, flagRA, code)
	return r.end(code, why)
}
