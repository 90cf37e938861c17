package dns

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// Type is a type of record, of a question or an answer.
type Type uint16

// Types of records that are looked at; others are passed on.
const (
	TypeA     Type = 1
	TypeNS    Type = 2
	TypeCNAME Type = 5
	TypeSOA   Type = 6
	TypePTR   Type = 12
	TypeMX    Type = 15
	TypeTXT   Type = 16
	TypeAAAA  Type = 28
	TypeSRV   Type = 33
	TypeOPT   Type = 41
	TypeSVCB  Type = 64
	TypeHTTPS Type = 65
	TypeIXFR  Type = 251
	TypeAXFR  Type = 252
	TypeANY   Type = 255
)

// typeNames are the names of the types, as in zone files.
func typeNames() map[Type]string {
	return map[Type]string{
		TypeA: "A", TypeNS: "NS", TypeCNAME: "CNAME", TypeSOA: "SOA", TypePTR: "PTR", TypeMX: "MX",
		TypeTXT: "TXT", TypeAAAA: "AAAA", TypeSRV: "SRV", TypeOPT: "OPT", TypeSVCB: "SVCB", TypeHTTPS: "HTTPS",
		TypeIXFR: "IXFR", TypeAXFR: "AXFR", TypeANY: "ANY",
	}
}

// String is the name of a type, or TYPE and its number (RFC 3597).
func (t Type) String() string {
	if name, known := typeNames()[t]; known {
		return name
	}
	return "TYPE" + strconv.Itoa(int(t))
}

// ParseType reads what String writes, in any case.
func ParseType(text string) (Type, error) {
	upper := strings.ToUpper(text)
	for t, name := range typeNames() {
		if name == upper {
			return t, nil
		}
	}
	if digits, numbered := strings.CutPrefix(upper, "TYPE"); numbered {
		if n, err := strconv.ParseUint(digits, 10, 16); err == nil {
			return Type(n), nil
		}
	}
	return 0, fmt.Errorf("parse record type %q: it is none of A, AAAA, CNAME, HTTPS, MX, NS, PTR, SOA, SRV, SVCB, TXT, ANY, TYPE<number>", text)
}

// RCode is what became of a query.
type RCode uint16

// Codes of RFC 1035 and, from BadVersion on, of RFC 6891.
const (
	NoError        RCode = 0
	FormatError    RCode = 1
	ServerFailure  RCode = 2
	NameError      RCode = 3
	NotImplemented RCode = 4
	Refused        RCode = 5
	BadVersion     RCode = 16
)

// String is the code as dig writes it.
func (r RCode) String() string {
	switch r {
	case NoError:
		return "NOERROR"
	case FormatError:
		return "FORMERR"
	case ServerFailure:
		return "SERVFAIL"
	case NameError:
		return "NXDOMAIN"
	case NotImplemented:
		return "NOTIMP"
	case Refused:
		return "REFUSED"
	case BadVersion:
		return "BADVERS"
	}
	return "RCODE" + strconv.Itoa(int(r))
}

// Sizes of RFC 1035 and RFC 6891.
const (
	headerLen  = 12
	maxLabel   = 63
	maxName    = 255 // with the lengths of the labels and the root
	plainUDP   = 512 // an answer to a query without EDNS
	optLen     = 11  // an OPT record without options
	classIN    = 1
	pointer    = 0xc0 // marks a compressed name
	maxMessage = 0xffff
)

// Flags in the header's second word.
const (
	flagQR      = 1 << 15
	maskOpcode  = 0xf << 11
	flagAA      = 1 << 10
	flagTC      = 1 << 9
	flagRD      = 1 << 8
	flagRA      = 1 << 7
	flagAD      = 1 << 5
	flagCD      = 1 << 4
	maskRCode   = 0xf
	ednsDO      = 1 << 15 // in the flags of OPT
	optionNSID  = 3
	optionCook  = 10
	optionAlive = 11
	optionPad   = 12
	optionEDE   = 15
)

// key is a name as it is compared: in wire form, lower case, without the root.
// A key followed by a key is the key of the longer name.
type key = string

// CheckName says why a name cannot be asked for in DNS; nil when it can.
func CheckName(name string) error {
	name = strings.TrimSuffix(name, ".")
	if len(name) > maxName-2 {
		return fmt.Errorf("name has %d bytes, and DNS knows at most %d", len(name), maxName-2)
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return fmt.Errorf("name %q has an empty label", name)
		case len(label) > maxLabel:
			return fmt.Errorf("label %q has %d bytes, and DNS knows at most %d", label, len(label), maxLabel)
		}
	}
	return nil
}

// keyOf gives the key of a name as people write it, "" when it is no DNS name.
func keyOf(name string) key {
	if name == "" || CheckName(name) != nil {
		return ""
	}
	return string(appendLower(nil, appendName(nil, name)))
}

// appendName writes a checked name in wire form without the root.
func appendName(dst []byte, name string) []byte {
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		dst = append(dst, byte(len(label)))
		dst = append(dst, label...)
	}
	return dst
}

// appendLower appends b with ASCII letters in lower case. The lengths of labels
// are below the letters.
func appendLower(dst, b []byte) []byte {
	for _, c := range b {
		dst = append(dst, lower(c))
	}
	return dst
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// skipName returns where the name at offset at ends, -1 when it does not.
func skipName(b []byte, at int) int {
	for at < len(b) {
		n := int(b[at])
		switch {
		case n == 0:
			return at + 1
		case n&pointer == pointer:
			if at+2 > len(b) {
				return -1
			}
			return at + 2
		case n > maxLabel:
			return -1
		}
		at += n + 1
	}
	return -1
}

// record is one record of a message, where it is.
type record struct {
	name  int // where its name begins
	typ   Type
	class uint16
	ttl   uint32
	ttlAt int
	data  int
	end   int
}

// recordAt reads the record at an offset.
func recordAt(b []byte, at int) (r record, ok bool) {
	fixed := skipName(b, at)
	if fixed < 0 || fixed+10 > len(b) {
		return r, false
	}
	r = record{
		name:  at,
		typ:   Type(binary.BigEndian.Uint16(b[fixed:])),
		class: binary.BigEndian.Uint16(b[fixed+2:]),
		ttl:   binary.BigEndian.Uint32(b[fixed+4:]),
		ttlAt: fixed + 4,
		data:  fixed + 10,
	}
	r.end = r.data + int(binary.BigEndian.Uint16(b[fixed+8:]))
	return r, r.end <= len(b)
}
