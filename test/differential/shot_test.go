package differential

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/walk"
)

// shot is a packet to send. Its source port, of ICMP its identifier, is no
// other shot's of the world, and so names it wherever it is seen.
type shot struct {
	id    uint16
	from  string
	proto string
	dst   netip.AddrPort
	// src is a source that is not the sender's; not valid: the kernel chooses.
	src netip.Addr
}

func (s shot) String() string {
	if s.src.IsValid() {
		return fmt.Sprintf("%s as %s > %s/%s (port %d)", s.from, s.src, s.dst, s.proto, s.id)
	}
	if s.proto == "icmp" {
		return fmt.Sprintf("%s > %s icmp (id %d)", s.from, s.dst.Addr(), s.id)
	}
	return fmt.Sprintf("%s > %s/%s (port %d)", s.from, s.dst, s.proto, s.id)
}

// unsent is what the source ports of shots that are only walked are above those
// that were sent.
const unsent = 20000

// firstID is the first source port: below are those that are listened on.
const firstID = 20000

// shots are a choice of n of all packets: from everybody, to every address
// there is and some that nobody has, by every protocol, to every kind of port.
func (w *world) shots(n int) []shot {
	ports := []uint16{openPort, closedPort}
	for _, p := range w.spec.Published {
		ports = append(ports, p.Port)
	}
	var all []shot
	for from := range w.spaces {
		for _, a := range w.destinations() {
			all = append(all, shot{from: from, proto: "icmp", dst: netip.AddrPortFrom(a, 0)})
			for _, port := range ports {
				for _, proto := range []string{"tcp", "udp"} {
					all = append(all, shot{from: from, proto: proto, dst: netip.AddrPortFrom(a, port)})
				}
			}
		}
	}
	all = append(all, w.forged()...)
	slices.SortFunc(all, func(a, b shot) int { return strings.Compare(a.String(), b.String()) })
	r := rand.New(rand.NewPCG(w.spec.Seed, 0))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	all = all[:min(n, len(all))]
	for i := range all {
		all[i].id = firstID + uint16(i)
	}
	return all
}

// forged are datagrams with all kinds of IPv4 sources, to where they leave by a
// gateway: there the next machine takes them in.
func (w *world) forged() []shot {
	sources := w.destinations()
	var out []shot
	for from := range w.spaces {
		for _, dst := range sources {
			if !dst.Is4() || from == "host" || !w.overGateway(from, dst) {
				continue
			}
			for _, src := range sources {
				if src.Is4() && !w.owns(from, src) {
					out = append(out, shot{from: from, proto: "udp", dst: netip.AddrPortFrom(dst, openPort), src: src})
				}
			}
		}
	}
	return out
}

// overGateway reports whether a packet goes to another machine first.
func (w *world) overGateway(from string, dst netip.Addr) bool {
	path, err := w.walker.Walk(walk.Question{From: from, Dst: netip.AddrPortFrom(dst, closedPort), Proto: "udp"})
	return err == nil && len(path.Hops) > 1 && strings.Contains(path.Hops[0].Detail, " via ") && path.Hops[1].NS == "host"
}

// owns reports whether an address is one of the namespace's.
func (w *world) owns(ns string, a netip.Addr) bool {
	return a.IsLoopback() || slices.ContainsFunc(w.space(ns).Addresses, func(b machine.Address) bool { return b.Prefix.Addr() == a })
}

// destinations are addresses of all kinds.
func (w *world) destinations() []netip.Addr {
	seen := map[netip.Addr]bool{}
	for _, s := range []string{
		"127.0.0.1", "::1", "127.3.2.1", "192.0.2.77", "2001:db8::77", "198.51.100.7", "2001:db8:5::7", "192.0.2.255", "255.255.255.255",
	} {
		seen[netip.MustParseAddr(s)] = true
	}
	for i, n := range w.spec.Networks {
		if n.V4 {
			seen[netip.AddrFrom4([4]byte{172, 20, byte(i), 250})], seen[netip.AddrFrom4([4]byte{172, 20, byte(i), 255})] = true, true
		}
		if n.V6 {
			seen[netip.MustParseAddr(fmt.Sprintf("fd00:0:0:%d::250", i))] = true
		}
	}
	for _, s := range w.host.Spaces {
		for _, a := range s.Addresses {
			if !a.Prefix.Addr().IsLinkLocalUnicast() {
				seen[a.Prefix.Addr()] = true
			}
		}
	}
	var out []netip.Addr
	for a := range seen {
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// sight is a packet as somebody saw it arrive.
type sight struct {
	at       string
	src, dst netip.Addr
}

// back is what a sender gets back.
type back string

const (
	nothing back = "nothing"
	answer  back = "an answer"
	refusal back = "a refusal"
	failure back = "another error"
	// someError: the sender's own kernel refuses to send, and may say more.
	someError back = "some error"
	// silenceOrError: an error comes when neighbour discovery gives up, after seconds.
	silenceOrError back = "nothing, or later an error"
)

// outcome is what becomes of a shot: as the walk says, or as it was seen.
type outcome struct {
	arrived *sight
	back    back
}

func (o outcome) String() string {
	if o.arrived == nil {
		return "arrives nowhere; its sender gets " + string(o.back)
	}
	return fmt.Sprintf("arrives at %s as %s > %s; its sender gets %s", o.arrived.at, o.arrived.src, o.arrived.dst, o.back)
}

// expect walks the shot.
func expect(w *walk.Walker, s shot) (outcome, api.Path, error) {
	q := walk.Question{From: s.from, Src: netip.AddrPortFrom(s.src, s.id), Dst: s.dst, Proto: s.proto}
	path, err := w.Walk(q)
	if err != nil {
		return outcome{}, path, err
	}
	o := outcome{back: nothing}
	local := len(path.Hops) == 0 || path.Hops[len(path.Hops)-1].NS == s.from
	comes := path.Reason == ""
	switch path.Verdict {
	case api.Delivered:
		last := lastRequest(path)
		o.arrived = &sight{path.To.NS, last.Src, last.Dst}
		if comes {
			o.back = answer
		} else if s.proto == "tcp" { // a connection half open is nobody's
			o.arrived = nil
		}
	case api.Refused:
		if !strings.Contains(path.Reason, "does not come back") {
			o.back = refusal
		}
	case api.Rejected:
		o.back = errorOf(s, path)
	}
	if s.src.IsValid() { // whoever gets an answer has not asked
		o.back = nothing
	}
	discovery := strings.Contains(path.Reason, "answers for") || strings.Contains(path.Reason, "neighbour discovery")
	if discovery || path.Verdict == api.Dropped && local {
		o.back = silenceOrError
	}
	if path.Verdict == api.Undecided || path.Verdict == api.Lost {
		err = fmt.Errorf("the walk is %s: %s", path.Verdict, path.Reason)
	}
	return o, path, err
}

// errorOf is what a sender makes of the error that the walk says it gets. Those
// of IPv4 routing are limited to five in a row for a sender, by a sysctl of the
// machine (net.ipv4.route.error_burst).
func errorOf(s shot, p api.Path) back {
	last := p.Hops[len(p.Hops)-1].Before
	port := icmpPort(last)
	i := slices.IndexFunc(p.Hops, func(h api.Hop) bool { return h.Action == "reject" })
	switch {
	case last.Src.Is4() && p.Hops[i].Layer == api.LayerRoute:
		return silenceOrError
	case p.Hops[i].Layer == api.LayerOutput && p.Hops[i].NS == s.from:
		return someError
	case s.proto != "icmp" && (last.Proto == "tcp" || port):
		return refusal
	}
	return failure
}

// icmpPort reports whether a message says "port unreachable".
func icmpPort(f *api.Flow) bool {
	return f.Proto == "icmp" && f.ICMPType == 3 && f.ICMPCode == 3 || f.Proto == "icmpv6" && f.ICMPType == 1 && f.ICMPCode == 4
}

// lastRequest is the packet in the last hop before the answer.
func lastRequest(p api.Path) api.Flow {
	var f api.Flow
	for _, h := range p.Hops {
		if h.Direction == api.Request && h.Before != nil {
			f = *h.Before
		}
	}
	return f
}

// agrees reports whether what was seen is what was expected.
func (want outcome) agrees(got outcome) bool {
	isError := got.back == refusal || got.back == failure
	same := want.back == got.back || want.back == silenceOrError && got.back != answer || want.back == someError && isError
	if want.arrived == nil || got.arrived == nil {
		return same && want.arrived == got.arrived
	}
	return same && *want.arrived == *got.arrived
}

// settled reports whether all that is expected to be seen has been.
func (want outcome) settled(got outcome) bool {
	return (want.arrived == nil || got.arrived != nil) && (want.back == nothing || want.back == silenceOrError || got.back != nothing)
}
