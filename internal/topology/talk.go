package topology

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// outside is who has an address that is in no namespace of the map.
const outside = "outside"

// talks adds up the tracked connections. One that several namespaces track is
// counted once, as the first of them has it.
func (b *builder) talks() {
	type entry struct {
		proto string
		first nft.Tuple
	}
	seen := map[entry]bool{}
	sums := map[api.MapTalk]*api.MapTalk{}
	far := map[api.MapTalk]map[netip.Addr]bool{} // addresses outside, by what is told of them
	for i := range b.host.Spaces {
		s := &b.host.Spaces[i]
		for _, c := range s.Connections {
			// What is sent to groups, as reports of membership, is no conversation.
			e := entry{c.Proto, c.Original}
			if seen[e] || c.Original.Src.Addr().IsLoopback() || c.Original.Dst.Addr().IsMulticast() {
				continue
			}
			seen[e] = true
			key, to := b.talk(s, c), c.Answer.Src.Addr()
			if sums[key] == nil {
				sums[key], far[key] = &api.MapTalk{}, map[netip.Addr]bool{}
				*sums[key] = key
			}
			sums[key].Connections++
			sums[key].Packets += c.Packets
			sums[key].Bytes += c.Bytes
			far[key][to] = true
		}
	}
	for key, t := range sums {
		for a := range far[key] {
			if len(far[key]) == 1 {
				t.Addr = a
			}
		}
		b.m.Talks = append(b.m.Talks, *t)
	}
	slices.SortFunc(b.m.Talks, func(x, y api.MapTalk) int {
		return cmp.Or(strings.Compare(x.From, y.From), strings.Compare(x.To, y.To), strings.Compare(x.Proto, y.Proto),
			cmp.Compare(x.Port, y.Port), x.Addr.Compare(y.Addr), x.Via.Addr().Compare(y.Via.Addr()), cmp.Compare(x.Via.Port(), y.Via.Port()))
	})
}

// talk is what two say to each other, without how much. Who is outside is told
// by one word, or a server would fill the map with its clients.
func (b *builder) talk(s *machine.Space, c machine.Connection) api.MapTalk {
	t := api.MapTalk{From: b.who(s, c.Original.Src.Addr()), To: b.who(s, c.Answer.Src.Addr()), Proto: c.Proto}
	if t.To != outside {
		t.Addr = c.Answer.Src.Addr()
	}
	if c.Proto != "icmp" && c.Proto != "icmpv6" {
		t.Port = c.Answer.Src.Port()
	}
	if c.Original.Dst != c.Answer.Src && t.Port != 0 {
		t.Via = c.Original.Dst
	}
	return t
}

// who has an address, as the namespace that tracks it sees it: its own first.
func (b *builder) who(s *machine.Space, a netip.Addr) string {
	for _, own := range s.Addresses {
		if own.Prefix.Addr() == a {
			return b.ids[s.Name]
		}
	}
	if at, ok := b.at[a]; ok {
		return b.ids[at.space]
	}
	return outside
}
