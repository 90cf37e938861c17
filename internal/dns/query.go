package dns

import "encoding/binary"

// maxQuery is the largest query that is read. A name has at most 255 bytes; the
// rest is for options, as padding.
const maxQuery = 1232

// query is a query as it was read: where its parts are in the packet, and its
// name as a key.
type query struct {
	raw    []byte
	flags  uint16
	qtype  Type
	end    int  // of the question
	stream bool // came by TCP: the answer may have any size

	nameLen int
	name    [maxName]byte

	edns    bool
	version uint8
	do      bool
	size    int  // of the largest datagram that the client takes
	sizeAt  int  // where it says so
	plain   bool // has no option that changes the answer
}

// key is the name in lower case. It is valid while the query is.
func (q *query) key() []byte { return q.name[:q.nameLen] }

// verdict is what is to be done with a packet.
type verdict uint8

const (
	silence verdict = iota // no answer: it might be answered in turn, for ever
	refuse                 // answer with the code
	accept
)

// parse reads a packet. The code is for refuse.
func (q *query) parse(b []byte, stream bool) (verdict, RCode) {
	*q = query{raw: b, stream: stream, size: plainUDP, plain: true}
	if len(b) < headerLen {
		return silence, 0
	}
	q.flags = binary.BigEndian.Uint16(b[2:])
	q.end = headerLen
	switch {
	case q.flags&flagQR != 0:
		return silence, 0
	case q.flags&maskOpcode != 0:
		return refuse, NotImplemented
	case binary.BigEndian.Uint16(b[4:]) != 1, binary.BigEndian.Uint32(b[6:]) != 0:
		return refuse, FormatError
	}
	class, ok := q.question()
	if !ok || !q.additional() {
		return refuse, FormatError
	}
	switch {
	case q.edns && q.version != 0:
		return refuse, BadVersion
	case class != classIN:
		return refuse, NotImplemented
	case q.qtype == TypeAXFR || q.qtype == TypeIXFR:
		return refuse, Refused
	case q.qtype == TypeOPT || q.qtype == 0:
		return refuse, FormatError
	}
	return accept, NoError
}

// question reads the only question. Its name is the first one of the packet: a
// pointer could only lead into the header or in a circle.
func (q *query) question() (class uint16, ok bool) {
	b, at, n := q.raw, headerLen, 0
	for {
		if at >= len(b) || b[at] > maxLabel {
			return 0, false
		}
		size := int(b[at])
		if size == 0 {
			break
		}
		if at+1+size >= len(b) || n+1+size+1 > maxName {
			return 0, false
		}
		for _, c := range b[at : at+1+size] {
			q.name[n] = lower(c)
			n++
		}
		at += 1 + size
	}
	if at+5 > len(b) {
		return 0, false
	}
	q.nameLen = n
	q.qtype = Type(binary.BigEndian.Uint16(b[at+1:]))
	q.end = at + 5
	return binary.BigEndian.Uint16(b[at+3:]), true
}

// additional reads what follows the question: at most one OPT record, and
// others that only an upstream may know.
func (q *query) additional() bool {
	b, at := q.raw, q.end
	for range int(binary.BigEndian.Uint16(b[10:])) {
		r, ok := recordAt(b, at)
		if !ok {
			return false
		}
		if r.typ != TypeOPT {
			q.plain = false
		} else if q.edns || b[r.name] != 0 || !q.opt(r) {
			return false
		}
		at = r.end
	}
	return at == len(b)
}

// opt reads the OPT record: its class is a size, its TTL flags (RFC 6891).
func (q *query) opt(r record) bool {
	q.edns = true
	q.size, q.sizeAt = max(int(r.class), plainUDP), r.ttlAt-2
	q.version = uint8(r.ttl >> 16)
	q.do = r.ttl&ednsDO != 0
	for at := r.data; at < r.end; {
		if at+4 > r.end {
			return false
		}
		switch binary.BigEndian.Uint16(q.raw[at:]) {
		case optionNSID, optionCook, optionAlive, optionPad:
			// About this hop only: an answer without them is as good.
		default:
			q.plain = false
		}
		at += 4 + int(binary.BigEndian.Uint16(q.raw[at+2:]))
		if at > r.end {
			return false
		}
	}
	return true
}

// limit is the largest answer that the client takes.
func (q *query) limit() int {
	if q.stream {
		return maxMessage
	}
	return min(q.size, maxAnswer)
}
