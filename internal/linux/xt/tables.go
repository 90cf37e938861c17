//go:build linux

package xt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/nft"
)

// Tables reads all tables of IPv4 or IPv6 that are there, as tables of nftables
// that do the same. A rule's handle is its number in its chain, as iptables counts.
func (r *Reader) Tables(ipv6 bool) ([]nft.TableDef, error) {
	l := layoutOf(ipv6)
	var out []nft.TableDef
	err := r.each(l, func(string) bool { return true }, func(fd int, name string) error {
		in, b, err := fetch(fd, l, name, nil)
		if err != nil {
			return err
		}
		t, err := l.table(name, in, b[entriesAt:])
		out = append(out, t)
		return err
	})
	return out, err
}

// each does something with each wanted table. To ask for a table that is not
// there would make the kernel make it, so that /proc is asked first.
func (r *Reader) each(l layout, want func(name string) bool, do func(fd int, name string) error) error {
	names, err := r.list(l)
	if err != nil || names == nil {
		return err
	}
	buf := make([]byte, 256)
	n, err := names.ReadAt(buf, 0)
	if err != nil && err != io.EOF { //nolint:errorlint // of ReadAt
		return fmt.Errorf("list tables: %w", err)
	}
	there := slices.DeleteFunc(strings.Fields(string(buf[:n])), func(name string) bool { return !want(name) })
	if len(there) == 0 {
		return nil
	}
	return netns.Do(r.ns, func() error {
		fd, err := unix.Socket(l.family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // nothing was written
		for _, name := range there {
			if err := do(fd, name); err != nil {
				return fmt.Errorf("read table %s of %s: %w", name, strings.TrimSuffix(l.names, "_names"), err)
			}
		}
		return nil
	})
}

// hookNames are those of the hooks by their numbers (NF_INET_PRE_ROUTING ...).
func hookNames() [5]string {
	return [...]string{"prerouting", "input", "forward", "output", "postrouting"}
}

// base is the chain that a table has at a hook, without its policy.
func base(table string, hook int) nft.Chain {
	c := nft.Chain{
		Name: strings.ToUpper(hookNames()[hook]), Type: "filter", Hook: hookNames()[hook],
		Priority: map[string]int{"raw": -300, "mangle": -150, "nat": -100, "security": 50}[table],
	}
	if table == "nat" {
		c.Type = "nat"
		if c.Hook == "input" || c.Hook == "postrouting" {
			c.Priority = 100
		}
	}
	return c
}

// entry is a rule, the head of a chain, or a policy.
type entry struct {
	at     uint32
	b      []byte
	target nft.XT
}

// table makes a table of what the kernel gave.
func (l layout) table(name string, in info, b []byte) (nft.TableDef, error) {
	family := nft.FamilyIP
	if l.family == unix.AF_INET6 {
		family = nft.FamilyIP6
	}
	def := nft.TableDef{Table: nft.Table{Family: family, Name: nft.LegacyTable + name}}
	entries, err := l.entries(b)
	if err != nil {
		return def, err
	}
	heads := map[uint32]string{} // chains by where their first rule is
	policy := map[uint32]bool{}
	bases := map[uint32]nft.Chain{}
	for hook, entry := range in.HookEntry {
		if in.ValidHooks&(1<<hook) != 0 {
			bases[entry], policy[in.Underflow[hook]] = base(name, hook), true
		}
	}
	for i, e := range entries {
		if i+1 < len(entries) && e.target.Name == errorTarget {
			heads[entries[i+1].at] = cString(e.target.Info)
		}
	}
	for _, e := range entries {
		c, isBase := bases[e.at]
		if !isBase && heads[e.at] != "" {
			c = nft.Chain{Name: heads[e.at]}
		}
		if c.Name != "" {
			c.Family, c.Table = def.Family, def.Name
			def.Chains = append(def.Chains, nft.ChainDef{Chain: c})
		}
		if e.target.Name == errorTarget || len(def.Chains) == 0 {
			continue
		}
		last := &def.Chains[len(def.Chains)-1]
		rule, err := l.rule(e, heads)
		if err != nil {
			return def, err
		}
		if policy[e.at] && last.Base() {
			last.Policy = policyOf(rule)
			continue
		}
		rule.Family, rule.Handle = def.Family, uint64(len(last.Rules)+1)
		last.Rules = append(last.Rules, rule)
	}
	return def, nil
}

func policyOf(r nft.Rule) string {
	if v, ok := r.Exprs[len(r.Exprs)-1].(nft.Verdict); ok && v.Code == nft.Drop {
		return "drop"
	}
	return "accept"
}

// errorTarget is what heads of chains have, and the end of the table.
const errorTarget = "ERROR"

// xtHeader is the length of struct xt_entry_match, and of xt_entry_target: size,
// name, revision.
const xtHeader = 32

// entries cuts the table up.
func (l layout) entries(b []byte) ([]entry, error) {
	var out []entry
	for at := uint32(0); int(at) < len(b); {
		target, next, ok := l.offsets(b, at)
		if !ok || int(target) < l.matchesAt() || target+xtHeader > next || uint64(at)+uint64(next) > uint64(len(b)) {
			return nil, ErrMalformed
		}
		e := entry{at: at, b: b[at : at+next]}
		if e.target, _, ok = extension(e.b[target:]); !ok {
			return nil, ErrMalformed
		}
		e.target.Target = true
		e.b = e.b[:target]
		out = append(out, e)
		at += next
	}
	return out, nil
}

// matchesAt is the length of struct ipt_entry or ip6t_entry, behind which the
// matches are: targetAt, the two offsets, a mark, padding, two counters.
func (l layout) matchesAt() int { return (l.targetAt+8+7)&^7 + 16 }

// extension reads a match or target, and what is behind it.
func extension(b []byte) (x nft.XT, rest []byte, ok bool) {
	if len(b) < xtHeader {
		return x, nil, false
	}
	n := int(binary.NativeEndian.Uint16(b))
	if n < xtHeader || n > len(b) {
		return x, nil, false
	}
	return nft.XT{Name: cString(b[2:31]), Rev: uint32(b[31]), Info: b[xtHeader:n]}, b[n:], true
}

func cString(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// Bits of invflags, the same in both families (XT_INV_PROTO, IPT_INV_*), and
// where addresses, links and the protocol stand in struct ipt_ip and ip6t_ip6.
const (
	notIn    = 0x01
	notOut   = 0x02
	notSrc   = 0x08
	notDst   = 0x10
	notProto = 0x40
	notOther = 0x04 | 0x20 // type of service, fragments
)

// rule makes the rule that does the same.
func (l layout) rule(e entry, heads map[uint32]string) (nft.Rule, error) {
	size, src, dst := 4, uint32(12), uint32(16)
	if l.family == unix.AF_INET6 {
		size, src, dst = 16, 8, 24
	}
	links := 4 * size
	proto := e.b[links+64:]
	flags, inverse := proto[2], proto[3] // of struct ipt_ip
	gotoBit := byte(0x02)
	if l.family == unix.AF_INET6 { // a byte for the type of service is between
		flags, inverse, gotoBit = proto[3], proto[4], 0x04
	}
	var r nft.Rule
	r.Exprs = append(r.Exprs, address(src, e.b[:size], e.b[2*size:3*size], inverse&notSrc != 0)...)
	r.Exprs = append(r.Exprs, address(dst, e.b[size:2*size], e.b[3*size:4*size], inverse&notDst != 0)...)
	name, mask := e.b[links:], e.b[links+32:]
	r.Exprs = append(r.Exprs, device(nft.MetaIIfName, name[:16], mask[:16], inverse&notIn != 0)...)
	r.Exprs = append(r.Exprs, device(nft.MetaOIfName, name[16:32], mask[16:32], inverse&notOut != 0)...)
	if n := binary.NativeEndian.Uint16(proto); n != 0 {
		r.Exprs = append(r.Exprs, nft.Meta{DReg: 1, Key: nft.MetaL4Proto}, compare([]byte{byte(n)}, inverse&notProto != 0))
	}
	if flags&0x01 != 0 && l.family == unix.AF_INET || inverse&notOther != 0 { // IPT_F_FRAG
		r.Exprs = append(r.Exprs, nft.XT{Name: "fragment or type of service"}.Expr())
	}
	for b := e.b[l.matchesAt():]; len(b) > 0; {
		x, rest, ok := extension(b)
		if !ok {
			return r, ErrMalformed
		}
		r.Exprs, b = append(r.Exprs, x.Expr()), rest
	}
	end, err := verdict(e.target, heads, flags&gotoBit != 0)
	r.Exprs = append(r.Exprs, end)
	return r, err
}

func compare(b []byte, not bool) nft.Cmp {
	op := nft.CmpEq
	if not {
		op = nft.CmpNeq
	}
	return nft.Cmp{SReg: 1, Op: op, Data: b}
}

// address compares one with a mask; a mask of zeros is any.
func address(at uint32, a, mask []byte, not bool) []nft.Expr {
	if bytes.Count(mask, []byte{0}) == len(mask) {
		return nil
	}
	out := []nft.Expr{nft.Payload{DReg: 1, Base: nft.BaseNetwork, Offset: at, Len: uint32(len(a))}}
	if bytes.Count(mask, []byte{0xff}) < len(mask) {
		out = append(out, nft.Bitwise{SReg: 1, DReg: 1, Len: uint32(len(a)), Mask: bytes.Clone(mask), Xor: make([]byte, len(a))})
	}
	return append(out, compare(bytes.Clone(a), not))
}

// device compares a name as far as its mask goes: with the zero behind it, or
// its beginning (eth+).
func device(key nft.MetaKey, name, mask []byte, not bool) []nft.Expr {
	n := bytes.Count(mask, []byte{0xff})
	if n == 0 {
		return nil
	}
	if bytes.IndexByte(name[:n], 0) >= 0 {
		n = len(name) // whole, filled up with zeros
	}
	return []nft.Expr{nft.Meta{DReg: 1, Key: key}, compare(bytes.Clone(name[:n]), not)}
}

// verdict reads a target. The standard one, which has no name, holds a verdict as
// -verdict-1 (XT_RETURN is -NF_REPEAT-1), or where to jump.
func verdict(x nft.XT, heads map[uint32]string, follow bool) (nft.Expr, error) {
	if x.Name != "" {
		return x.Expr(), nil
	}
	if len(x.Info) < 4 {
		return nil, ErrMalformed
	}
	switch v := int32(binary.NativeEndian.Uint32(x.Info)); {
	case v == -1:
		return nft.Verdict{Code: nft.Drop}, nil
	case v == -2:
		return nft.Verdict{Code: nft.Accept}, nil
	case v == -4:
		return nft.Verdict{Code: nft.Queue}, nil
	case v == -5:
		return nft.Verdict{Code: nft.Return}, nil
	case v >= 0 && heads[uint32(v)] != "" && follow:
		return nft.Verdict{Code: nft.Goto, Chain: heads[uint32(v)]}, nil
	case v >= 0 && heads[uint32(v)] != "":
		return nft.Verdict{Code: nft.Jump, Chain: heads[uint32(v)]}, nil
	}
	return nil, ErrMalformed
}
