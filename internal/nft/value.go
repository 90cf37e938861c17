package nft

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// littleHost reports whether the host's byte order is little-endian.
func littleHost() bool { return binary.NativeEndian.Uint16([]byte{1, 0}) == 1 }

// bigEndian gives the value in network order.
func (t dataType) bigEndian(b []byte) []byte {
	out := bytes.Clone(b)
	if t.host && t.style != styleIfname && littleHost() {
		reverse(out)
	}
	return out
}

func reverse(b []byte) {
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
}

// number reads a value of at most 8 bytes.
func (t dataType) number(b []byte) uint64 {
	var full [8]byte
	copy(full[8-len(b):], t.bigEndian(b))
	return binary.BigEndian.Uint64(full[:])
}

// bytes writes a number in the type's size and byte order; false if it does
// not fit.
func (t dataType) bytes(v uint64) ([]byte, bool) {
	if t.size > 8 || t.size <= 0 || t.size < 8 && v>>(8*t.size) != 0 {
		return nil, false
	}
	var full [8]byte
	binary.BigEndian.PutUint64(full[:], v)
	return t.bigEndian(full[8-t.size:]), true
}

// format writes one value as nft does.
func (t dataType) format(b []byte) string {
	switch {
	case len(b) == 0:
		return "[]"
	case t.style == styleIfname:
		return quote(string(bytes.TrimRight(b, "\x00")))
	case t.style == styleIPv4 && len(b) == 4, t.style == styleIPv6 && len(b) == 16:
		return formatAddr(b)
	case t.style == styleEther:
		return net.HardwareAddr(b).String()
	case len(b) > 8:
		return "0x" + trimHex(hex.EncodeToString(t.bigEndian(b)))
	}
	v := t.number(b)
	switch t.style {
	case styleMark:
		return fmt.Sprintf("0x%08x", v)
	case styleFlags:
		return formatFlags(t.symbols, v)
	case styleHex:
		return fmt.Sprintf("0x%x", v)
	case styleIfindex:
		// The loopback interface is created first and has index 1 in every
		// network namespace (net/core/dev.c).
		if v == 1 {
			return `"lo"`
		}
	}
	if name, ok := symbolName(t.symbols, v); ok {
		return name
	}
	return strconv.FormatUint(v, 10)
}

// trimHex drops leading zeros but one digit.
func trimHex(s string) string {
	if s = strings.TrimLeft(s, "0"); s == "" {
		return "0"
	}
	return s
}

// formatAddr writes an address as inet_ntop does, which is netip's form but
// for IPv4-compatible addresses.
func formatAddr(b []byte) string {
	a, _ := netip.AddrFromSlice(b)
	if len(b) == 16 && bytes.Equal(b[:12], make([]byte, 12)) && (b[12] != 0 || b[13] != 0) {
		v4, _ := netip.AddrFromSlice(b[12:])
		return "::" + v4.String()
	}
	return a.String()
}

// formatFlags joins the names of the bits set, low bits first.
func formatFlags(table []symbol, v uint64) string {
	if v == 0 {
		return "0x0"
	}
	var names []string
	for v != 0 {
		bit := uint64(1) << bits.TrailingZeros64(v)
		name, ok := symbolName(table, bit)
		if !ok {
			name = fmt.Sprintf("0x%x", bit)
		}
		names = append(names, name)
		v &^= bit
	}
	return strings.Join(names, ",")
}

// quote writes a string as nft does, which has no escapes.
func quote(s string) string { return `"` + s + `"` }

// parse reads one value.
func (t dataType) parse(tok token) ([]byte, error) {
	s := tok.text
	switch t.style {
	case styleIPv4, styleIPv6:
		return t.parseAddr(s)
	case styleEther:
		hw, err := net.ParseMAC(s)
		if err != nil || len(hw) != 6 {
			return nil, fmt.Errorf("parse address %q: not 6 bytes in hex", s)
		}
		return hw, nil
	case styleIfname:
		if s == "" || len(s) >= t.size || strings.ContainsAny(s, "\x00\n") {
			return nil, fmt.Errorf("parse name %q: not 1 to %d bytes", s, t.size-1)
		}
		return append([]byte(s), make([]byte, t.size-len(s))...), nil
	case styleIfindex:
		if s == "lo" {
			s = "1"
		}
	}
	return t.parseNumber(s)
}

// parseAddr reads an address without a prefix.
func (t dataType) parseAddr(s string) ([]byte, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return nil, fmt.Errorf("parse address: %w", err)
	}
	if a.Zone() != "" || a.BitLen() != 8*t.size {
		return nil, fmt.Errorf("parse address %q: not of type %s", s, t.name)
	}
	return a.AsSlice(), nil
}

// parseNumber reads a symbol or a number, decimal or hex.
func (t dataType) parseNumber(s string) ([]byte, error) {
	v, ok := symbolValue(t.symbols, s)
	if !ok && t.size > 8 {
		return t.parseLongHex(s)
	}
	if !ok {
		var err error
		if v, err = strconv.ParseUint(s, 0, 64); err != nil {
			return nil, fmt.Errorf("parse %s %q: no such value", t.name, s)
		}
	}
	b, ok := t.bytes(v)
	if !ok {
		return nil, fmt.Errorf("parse %s %q: does not fit %d bytes", t.name, s, t.size)
	}
	return b, nil
}

// parseLongHex reads a raw value that is longer than a machine word.
func (t dataType) parseLongHex(s string) ([]byte, error) {
	digits := strings.TrimPrefix(s, "0x")
	if len(digits) > 2*t.size || (digits == s && s != "0") {
		return nil, fmt.Errorf("parse %s %q: not 0x and at most %d digits", t.name, s, 2*t.size)
	}
	b, err := hex.DecodeString(strings.Repeat("0", 2*t.size-len(digits)) + digits)
	if err != nil {
		return nil, fmt.Errorf("parse %s %q: %w", t.name, s, err)
	}
	return b, nil
}

// parseSpan reads a value, an inclusive range a-b, or a prefix. last is nil
// for a single value.
func (t dataType) parseSpan(tok token) (first, last []byte, err error) {
	if !tok.quoted && (t.style == styleIPv4 || t.style == styleIPv6) && strings.Contains(tok.text, "/") {
		p, err := netip.ParsePrefix(tok.text)
		if err != nil || p.Addr().BitLen() != 8*t.size || p.Masked() != p {
			return nil, nil, fmt.Errorf("parse prefix %q: not a network of type %s", tok.text, t.name)
		}
		first = p.Addr().AsSlice()
		return first, orNot(first, prefixMask(p.Bits(), t.size)), nil
	}
	b, err := t.parse(tok)
	from, to, isRange := strings.Cut(tok.text, "-")
	if err == nil || tok.quoted || !isRange || t.style == styleFlags {
		return b, nil, err
	}
	if first, err = t.parse(token{text: from}); err != nil {
		return nil, nil, err
	}
	if last, err = t.parse(token{text: to}); err != nil {
		return nil, nil, err
	}
	if bytes.Compare(t.bigEndian(first), t.bigEndian(last)) > 0 {
		return nil, nil, fmt.Errorf("parse range %q: ends before it begins", tok.text)
	}
	return first, last, nil
}

// formatSpan is the inverse of parseSpan; last may be nil.
func (t dataType) formatSpan(first, last []byte) string {
	if len(last) == 0 || bytes.Equal(first, last) {
		return t.format(first)
	}
	if t.style == styleIPv4 || t.style == styleIPv6 {
		if n, ok := spanPrefix(first, last); ok {
			return fmt.Sprintf("%s/%d", t.format(first), n)
		}
	}
	return t.format(first) + "-" + t.format(last)
}

// spanPrefix gives the length of the prefix that covers exactly the range.
func spanPrefix(first, last []byte) (int, bool) {
	mask := make([]byte, len(first))
	for i := range mask {
		mask[i] = ^(first[i] ^ last[i])
	}
	n, ok := maskPrefix(mask)
	if !ok || !bytes.Equal(orNot(first, mask), last) {
		return 0, false
	}
	for i := range first {
		if first[i]&^mask[i] != 0 {
			return 0, false
		}
	}
	return n, true
}

// prefixMask gives size bytes with n leading ones.
func prefixMask(n, size int) []byte { return net.CIDRMask(n, 8*size) }

// maskPrefix is the inverse of prefixMask; false if the ones are not leading.
func maskPrefix(mask []byte) (int, bool) {
	n := 0
	for n < 8*len(mask) && mask[n/8]&(0x80>>(n%8)) != 0 {
		n++
	}
	return n, bytes.Equal(mask, prefixMask(n, len(mask)))
}

// orNot gives b | ^mask.
func orNot(b, mask []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[i] = b[i] | ^mask[i]
	}
	return out
}
