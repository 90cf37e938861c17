//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/linux/ct"
	"github.com/towpath/towpath/internal/linux/xdp"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/trace"
	"github.com/towpath/towpath/internal/trace/taps"
	"github.com/towpath/towpath/internal/trace/watch"
)

// arrival is a packet that is put in at the uplink, as if somebody outside had
// sent it. Nothing of it, and no answer, leaves the machine.
type arrival struct {
	link machine.Link // of the host
	wire taps.Wire
	xdp  *xdp.Injector
	shot taps.Shot
}

// ethernet is how many bytes its header has.
const ethernet = 14

// comeIn makes ready for a packet from outside.
func (r *run) comeIn(first api.Path) error {
	host := r.Machine.Host.Space(machine.HostName)
	name, via := r.Machine.Uplink(first.Flow.Dst.Is6())
	link := host.Link(name)
	switch {
	case link == nil:
		return api.Errorf(api.Unavailable, "the host has no link %q", name)
	case !link.Up || link.NoCarrier:
		return api.Errorf(api.Unavailable, "nothing comes in by %s, the link to the outside: it is down", name).WithFix("ip link set %s up", name)
	case r.q.Size > link.MTU || r.q.Size > xdp.MostBytes-ethernet:
		most := min(link.MTU, xdp.MostBytes-ethernet)
		return api.Errorf(api.Invalid, "no packet of %d bytes can be put in at %s: %d at most", r.q.Size, name, most).WithFix("use --size %d", most)
	case first.Verdict == api.Delivered && first.To.NS == "":
		return api.Errorf(api.Unsupported, "the packet would leave the machine again, and a probe from outside sends nothing there").
			WithFix("towpath explain %s %s tells the path that is expected", r.q.From, r.q.To)
	}
	x, err := xdp.Open()
	if err != nil {
		return unsupported(err)
	}
	r.arrival = &arrival{link: *link, wire: taps.Wire{From: neighbour(host, name, via), To: station(link.MAC)}, xdp: x}
	return nil
}

// unsupported says what a probe from outside needs that is not here.
func unsupported(err error) error {
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, taps.ErrNoStop) {
		return api.Errorf(api.Unsupported, "unsupported: %w", err).WithFix("towpath explain tells the expected path; or probe from a sandbox or the host")
	}
	return err
}

// neighbour is the MAC address of the gateway or, where that is not known, one
// that is nobody's (administered locally, IEEE 802c).
func neighbour(host *machine.Space, link string, gateway netip.Addr) [6]byte {
	i := slices.IndexFunc(host.Neighbours, func(n machine.Neighbour) bool { return n.Dev == link && n.IP == gateway && n.MAC != "" })
	if i < 0 {
		return [6]byte{2}
	}
	return station(host.Neighbours[i].MAC)
}

// station is a MAC address; links that have none take frames to zero.
func station(text string) (out [6]byte) {
	if mac, err := net.ParseMAC(text); err == nil && len(mac) == len(out) {
		copy(out[:], mac)
	}
	return out
}

// stop keeps what is known by the mark on the machine.
func (r *run) stop(ctx context.Context, s *taps.Session, o taps.Shot, watched []taps.Space) error {
	exits := map[string][]string{}
	for _, w := range watched {
		exits[w.Name] = r.exits(r.Machine.Host.Space(w.Name))
	}
	return unsupported(s.Stop(ctx, taps.Stop{Proto: watch.Protocol(wireProto(o)), Mark: o.Mark, Source: o.Source, Exits: exits}))
}

// wireProto is the protocol of a shot by its own name.
func wireProto(o taps.Shot) string {
	if o.Proto == "icmp" && o.Source.Is6() {
		return "icmpv6"
	}
	return o.Proto
}

// exits are the links of a namespace that may lead off the machine: all but those
// of which it is known that another namespace is behind them.
func (r *run) exits(s *machine.Space) []string {
	leads := func(l machine.Link) bool {
		switch {
		case s.Name == machine.HostName && l.Name == r.arrival.link.Name:
			return true
		case l.Type == "veth":
			return l.PeerNS == ""
		}
		return l.Type != "loopback" && l.Type != "bridge" && l.Type != "vrf"
	}
	var out []string
	for _, l := range s.Links {
		port := func(p machine.Link) bool { return p.Master == l.Name && leads(p) }
		if leads(l) || l.Type == "bridge" && slices.ContainsFunc(s.Links, port) {
			out = append(out, l.Name)
		}
	}
	return out
}

// put puts the packet in.
func (r *run) put(o taps.Shot) (*taps.Sent, error) {
	r.arrival.shot = o
	if err := r.inject(o.Frame(r.arrival.wire)); err != nil {
		return nil, err
	}
	return taps.Put(o), nil
}

func (r *run) inject(frame []byte) error {
	return unsupported(r.arrival.xdp.Inject(r.files[machine.HostName], r.arrival.link.Index, frame))
}

// entry is where it came in.
func (r *run) entry() *trace.Sighting {
	return &trace.Sighting{Space: machine.HostName, Link: r.arrival.link.Name}
}

// cleanUp ends what the packet began, while its answers are still stopped: half a
// connection, by a reset, and what connection tracking knows of it. Where nobody
// took the packet there is nothing to reset: a second packet would wait for a
// neighbour that does not answer, and the error about it come late.
func (r *run) cleanUp(ctx context.Context, w trace.Watch) error {
	o := r.arrival.shot
	var errs []error
	if slices.ContainsFunc(w.Sightings, func(s trace.Sighting) bool { return s.Accepts() }) {
		errs = append(errs, r.inject(o.Reset(r.arrival.wire)))
	}
	known := map[string]bool{}
	for _, s := range w.Sightings {
		d, ok := w.Direction(s.Packet)
		if !ok || d != api.Request || s.Out || known[s.Space] || r.files[s.Space] == nil {
			continue
		}
		known[s.Space] = true
		errs = append(errs, r.forget(ctx, s))
	}
	return errors.Join(errs...)
}

// forget deletes what a namespace keeps of the packet as it came in there.
func (r *run) forget(ctx context.Context, s trace.Sighting) error {
	c, err := ct.Dial(int(r.files[s.Space].Fd()))
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("forget connection in %s: %w", s.Space, err)
	}
	defer c.Close() //nolint:errcheck // nothing of it is kept
	first := ct.Tuple{Src: netip.AddrPortFrom(s.Flow.Src, s.Flow.Sport), Dst: netip.AddrPortFrom(s.Flow.Dst, s.Flow.Dport)}
	if s.Flow.Proto == "icmp" || s.Flow.Proto == "icmpv6" {
		first.Src = netip.AddrPortFrom(s.Flow.Src, s.Echo)
	}
	if err := c.Forget(ctx, watch.Protocol(s.Flow.Proto), first); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("forget connection in %s: %w", s.Space, err)
	}
	return nil
}
