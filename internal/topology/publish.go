package topology

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/author"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// Published are ports of a namespace that its packet filter leads elsewhere, as
// far as the rules that do it can be read: by whom, and by which rule.
type Published struct {
	Proto       string // "" is any
	Addr        netip.Addr
	First, Last uint16 // 0: any port
	To          netip.AddrPort
	Author      string
	Table       string // with its family: "ip nat"
	Chain       string
	Handle      uint64
}

// PublishedIn lists what a namespace publishes, each once.
func PublishedIn(s *machine.Space) []Published {
	var out []Published
	tables := s.Filters()
	for i := range tables {
		t := &tables[i]
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				for _, p := range translations(t, r) {
					p.Author = author.Of(author.Rule{Table: t.Name, Chain: c.Name, Comment: r.AnyComment()})
					p.Table, p.Chain, p.Handle = t.Family.String()+" "+t.Name, c.Name, r.Handle
					out = append(out, p)
				}
			}
		}
	}
	slices.SortStableFunc(out, func(x, y Published) int {
		return cmp.Or(cmp.Compare(x.First, y.First), strings.Compare(x.Proto, y.Proto), x.Addr.Compare(y.Addr), x.To.Addr().Compare(y.To.Addr()))
	})
	return slices.CompactFunc(out, func(x, y Published) bool {
		x.Chain, x.Handle, x.Table = y.Chain, y.Handle, y.Table
		return x == y
	})
}

// publications adds what the host publishes.
func (b *builder) publications() {
	s := b.host.Space(machine.HostName)
	if s == nil {
		return
	}
	for _, p := range PublishedIn(s) {
		out := api.MapPublication{HostIP: p.Addr, HostPort: ports(p), Proto: cmp.Or(p.Proto, "any"), To: p.To, Author: p.Author}
		if at, ok := b.at[p.To.Addr()]; ok {
			out.Namespace = b.ids[at.space]
			if far := b.host.Space(at.space); far.Listeners != nil {
				yes := Listens(far, p.Proto, target(p))
				out.Listening = &yes
			}
		}
		b.m.Publications = append(b.m.Publications, out)
	}
}

// target is where the first packet of a publication goes.
func target(p Published) netip.AddrPort {
	if p.To.Port() != 0 {
		return p.To
	}
	return netip.AddrPortFrom(p.To.Addr(), p.First)
}

func ports(p Published) string {
	switch p.First {
	case 0:
		return "any"
	case p.Last:
		return fmt.Sprint(p.First)
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// Listens reports whether a socket of a namespace takes what comes for an
// address and port.
func Listens(s *machine.Space, proto string, at netip.AddrPort) bool {
	return slices.ContainsFunc(s.Listeners, func(l machine.Listener) bool {
		any := l.Addr.IsUnspecified() && (l.Addr.Is4() == at.Addr().Is4() || l.Addr.Is6() && !l.V6Only)
		return (proto == "" || l.Proto == proto) && l.Port == at.Port() && (any || l.Addr == at.Addr())
	})
}

// translations are what one rule leads elsewhere.
func translations(t *nft.TableDef, r nft.Rule) []Published {
	s := scan{table: t, ports: [][2]uint16{{}}, protos: []string{""}, addrs: []netip.Addr{{}}}
	for _, e := range r.Exprs {
		if done := s.step(e); done {
			break
		}
	}
	return s.found
}
