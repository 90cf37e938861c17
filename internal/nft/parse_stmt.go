package nft

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// logFlagSymbols are the NF_LOG_* bits in the order nft prints them.
var logFlagSymbols = []symbol{{"tcp sequence", 1}, {"tcp options", 2}, {"ip options", 4}, {"skuid", 8}, {"ether", 0x20}, {"all", 0x2f}}

// logLevelDefault is LOGLEVEL_WARNING, which the kernel fills in and nft does
// not print.
const logLevelDefault = 4

func (c *compiler) log() error {
	e := Log{Level: logLevelDefault}
	for {
		var err error
		var v uint64
		switch {
		case c.accept("prefix"):
			e.Prefix, err = c.str()
		case c.accept("group"):
			v, err = c.number(16)
			e.Group, e.HasGroup, e.Level = uint16(v), true, 0
		case c.accept("snaplen"):
			v, err = c.number(32)
			e.SnapLen = uint32(v)
		case c.accept("queue-threshold"):
			v, err = c.number(16)
			e.QThreshold = uint16(v)
		case c.accept("level"):
			level, ok := symbolValue(logLevelSymbols, c.next().text)
			if !ok {
				return errors.New("no such log level")
			}
			e.Level = uint32(level)
		case c.accept("flags"):
			v, err = c.logFlags()
			e.Flags |= uint32(v)
		default:
			c.emit(e)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// logFlags reads "tcp sequence,options", "ip options", "skuid", "ether" or
// "all".
func (c *compiler) logFlags() (uint64, error) {
	word := c.next().text
	if word != "tcp" && word != "ip" {
		v, ok := symbolValue(logFlagSymbols, word)
		if !ok {
			return 0, fmt.Errorf("no log flag %q", word)
		}
		return v, nil
	}
	var sum uint64
	for {
		v, ok := symbolValue(logFlagSymbols, word+" "+c.next().text)
		if !ok {
			return 0, fmt.Errorf("no such log flag of %s", word)
		}
		sum |= v
		if !c.accept(",") {
			return sum, nil
		}
	}
}

// The units of limits.
var (
	timeUnits = []symbol{{"second", 1}, {"minute", 60}, {"hour", 3600}, {"day", 86400}, {"week", 604800}}
	dataUnits = []symbol{{"mbytes", 1 << 20}, {"kbytes", 1 << 10}, {"bytes", 1}}
)

// burstDefault is what nft takes for packets and does not print.
const burstDefault = 5

func (c *compiler) limit() error {
	if err := c.expect("rate"); err != nil {
		return err
	}
	var e Limit
	if c.accept("over") {
		e.Flags = 1
	}
	amount, unit, slash := strings.Cut(c.next().text, "/")
	rate, err := strconv.ParseUint(amount, 10, 32)
	if err != nil {
		return fmt.Errorf("parse rate: %w", err)
	}
	factor := uint64(1)
	if !slash {
		var data string
		data, unit, _ = strings.Cut(c.next().text, "/")
		var ok bool
		if factor, ok = symbolValue(dataUnits, data); !ok {
			return fmt.Errorf("no unit %q", data)
		}
		e.Type = 1
	}
	seconds, ok := symbolValue(timeUnits, unit)
	if !ok {
		return fmt.Errorf("no unit of time %q", unit)
	}
	e.Rate, e.Unit = rate*factor, seconds
	if e.Burst, err = c.burst(e.Type); err != nil {
		return err
	}
	c.emit(e)
	return nil
}

// burst reads "burst N packets" or "burst N kbytes", if it is there.
func (c *compiler) burst(kind uint32) (uint32, error) {
	if !c.accept("burst") {
		if kind == 0 {
			return burstDefault, nil
		}
		return 0, nil
	}
	n, err := c.number(32)
	if err != nil {
		return 0, err
	}
	if kind == 0 {
		return uint32(n), c.expect("packets")
	}
	factor, ok := symbolValue(dataUnits, c.next().text)
	if !ok || n*factor > 1<<32-1 {
		return 0, errors.New("burst is not a number of bytes below 2^32")
	}
	return uint32(n * factor), nil
}

func (c *compiler) reject() error {
	if !c.accept("with") {
		c.emit(defaultReject(c.known))
		return nil
	}
	e := Reject{}
	codes := mustType("icmpx_code")
	proto := ""
	switch {
	case c.accept("tcp"):
		if err := c.require("tcp"); err != nil {
			return err
		}
		c.emit(Reject{Type: RejectTCP})
		return c.expect("reset")
	case c.accept("icmp"):
		codes, proto = mustType("icmp_code"), "ip"
	case c.accept("icmpv6"):
		codes, proto = mustType("icmpv6_code"), "ip6"
	case c.accept("icmpx"):
		e.Type = RejectICMPX
	default:
		return c.unexpected("tcp, icmp, icmpv6 or icmpx")
	}
	c.accept("type")
	code, err := codes.parse(c.next())
	if err != nil {
		return err
	}
	if err := c.require(proto); err != nil {
		return err
	}
	e.Code = code[0]
	c.emit(e)
	return nil
}

// defaultReject is what a bare "reject" means: port unreachable, in the words
// of the protocol that is known.
func defaultReject(known headers) Reject {
	switch known.l3 {
	case "ip":
		return Reject{Type: RejectICMP, Code: 3}
	case "ip6":
		return Reject{Type: RejectICMP, Code: 4}
	}
	return Reject{Type: RejectICMPX, Code: 1}
}

// write reads what a term is set to.
func (c *compiler) write(t term) error {
	if c.atTerm() {
		if err := c.writeTerm(t); err != nil {
			return err
		}
	} else {
		v, err := c.writeValue(t)
		if err != nil {
			return err
		}
		if err := c.require(t.proto); err != nil {
			return err
		}
		c.emit(Immediate{DReg: 1, Data: v})
	}
	e, err := t.store(1)
	if err != nil {
		return err
	}
	c.emit(e)
	return nil
}

func (c *compiler) writeValue(t term) ([]byte, error) {
	if t.typ.style == styleFlags {
		return c.flags(t.typ)
	}
	return t.typ.parse(c.next())
}

// writeTerm reads "term & mask | bits" or "key map {...}" and emits its loads.
func (c *compiler) writeTerm(t term) error {
	key, err := c.key()
	if err != nil {
		return err
	}
	if c.accept("map") {
		return c.mapLookup(key, 1, t.typ.name)
	}
	if len(key) > 1 || key[0].typ.size != t.typ.size || t.proto != "" {
		return errors.New("only metadata can be set from a term, of the same size")
	}
	mask, xor, err := c.binary(key[0].typ)
	if err != nil {
		return err
	}
	if err := c.loadKey(key, 1, false); err != nil {
		return err
	}
	if b := (Bitwise{SReg: 1, DReg: 1, Len: uint32(t.typ.size), Mask: mask, Xor: xor}); !b.identity() {
		c.emit(b)
	}
	return nil
}

// identity reports whether the operation changes nothing.
func (b Bitwise) identity() bool {
	for i := range b.Mask {
		if b.Mask[i] != 0xff || b.Xor[i] != 0 {
			return false
		}
	}
	return true
}

// atTerm reports whether a term is next, not a value.
func (c *compiler) atTerm() bool {
	t := c.peek()
	switch t.text {
	case "meta", "ct", "fib", "ether", "ip", "ip6", "arp", "tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", protoTH:
		// "ip" and "arp" are ethertypes too, then nothing of theirs follows.
		return !t.quoted && c.pos+1 < len(c.toks)
	}
	for _, k := range metaKeys {
		if k.bare && t.is(k.name) {
			return true
		}
	}
	return false
}

// checksums tells where the checksum that covers a header is, in bytes from
// the start of that header.
var checksums = []symbol{{"ip", 10}, {"tcp", 16}, {"udp", 6}, {"icmp", 2}, {"icmpv6", 2}}

// store gives the expression that sets the term from a register.
func (t term) store(r Reg) (Expr, error) {
	switch e := t.load.(type) {
	case Meta:
		e.SReg = r
		return e, nil
	case CT:
		e.SReg = r
		return e, nil
	case Payload:
		// The kernel repairs checksums in 16-bit words; nft reads and writes
		// the neighbour of a lone byte, which is left out here.
		if e.Offset%2 != 0 || e.Len%2 != 0 {
			return nil, fmt.Errorf("set %s: not whole 16-bit words", t.text)
		}
		e.SReg = r
		offset, ok := symbolValue(checksums, t.proto)
		if !ok && t.proto != "ip6" && t.proto != "ether" && t.proto != "arp" {
			return nil, fmt.Errorf("set %s: no checksum to repair is known", t.text)
		}
		if ok {
			e.CsumType, e.CsumOffset = 1, uint32(offset)
		}
		if (t.proto == "ip" || t.proto == "ip6") && t.typ.style != styleInt {
			e.CsumFlags = 1
		}
		return e, nil
	}
	return nil, fmt.Errorf("set %s: cannot be set", t.text)
}
