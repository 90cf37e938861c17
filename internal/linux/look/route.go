//go:build linux

package look

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/machine"
)

func (r *reading) addresses(ctx context.Context, c *rt.Conn) error {
	list, err := c.Addresses(ctx, 0)
	for _, a := range list {
		r.space.Addresses = append(r.space.Addresses, machine.Address{
			Dev: r.names[a.Index], Prefix: a.Prefix, Peer: a.Peer,
			Tentative: a.Flags&unix.IFA_F_TENTATIVE != 0 && a.Flags&unix.IFA_F_OPTIMISTIC == 0,
			DADFailed: a.Flags&unix.IFA_F_DADFAILED != 0, Deprecated: a.Flags&unix.IFA_F_DEPRECATED != 0,
		})
	}
	return err
}

// routes reads the routes of all tables. Those for packets with a TOS are not
// for any that is followed here.
func (r *reading) routes(ctx context.Context, c *rt.Conn, limit int) error {
	list, err := c.Routes(ctx, rt.RouteFilter{}, limit)
	special := 0
	for _, x := range list {
		if x.From.IsValid() && x.From.Bits() > 0 || x.Encap != 0 {
			special++
			continue
		}
		if x.TOS == 0 {
			r.space.Routes = append(r.space.Routes, r.route(x))
		}
	}
	if special > 0 {
		err = errors.Join(err, fmt.Errorf("%d are for some sources only or wrap packets, and are left out", special))
	}
	return err
}

func (r *reading) route(x rt.Route) machine.Route {
	out := machine.Route{
		Table: x.Table, Type: machine.RouteType(x.Type), Dst: x.Dst, Dev: r.names[x.OIF], Via: x.Gateway, Src: x.Src,
		Metric: x.Metric, Protocol: x.Protocol, MTU: x.MTU, Dead: x.Flags&unix.RTNH_F_DEAD != 0,
	}
	for _, h := range x.Hops {
		out.Hops = append(out.Hops, machine.NextHop{Dev: r.names[h.OIF], Via: h.Gateway, Weight: h.Weight})
	}
	if len(out.Hops) > 0 {
		out.Dev, out.Via = out.Hops[0].Dev, out.Hops[0].Via
	}
	return out
}

func (r *reading) rules(ctx context.Context, c *rt.Conn) error {
	list, err := c.Rules(ctx, unix.AF_UNSPEC)
	for _, x := range list {
		r.space.Rules = append(r.space.Rules, rule(x))
	}
	return err
}

// rule takes a rule over. The kernel's actions are to look a table up, to jump,
// to do nothing, and three kinds of answer (linux/fib_rules.h).
func rule(x rt.Rule) machine.Rule {
	out := machine.Rule{
		Priority: x.Priority, IPv6: x.Family == unix.AF_INET6, From: x.Src, To: x.Dst, IIf: x.IIF, OIf: x.OIF,
		Mark: x.Mark, Mask: x.Mask, IPProto: x.IPProto, SrcPorts: x.SrcPorts, DstPorts: x.DstPorts, Not: x.Invert,
		Table: x.Table, SuppressPrefix: x.MinPrefixLen - 1,
	}
	var unknown []string
	switch x.Action {
	case unix.FR_ACT_TO_TBL:
		out.Action = machine.Unicast
	case unix.FR_ACT_BLACKHOLE:
		out.Action = machine.Blackhole
	case unix.FR_ACT_UNREACHABLE:
		out.Action = machine.Unreachable
	case unix.FR_ACT_PROHIBIT:
		out.Action = machine.Prohibit
	default:
		unknown = append(unknown, fmt.Sprintf("action %d", x.Action))
	}
	for what, there := range map[string]bool{"a TOS": x.TOS != 0, "a VRF": x.L3MDev, "what is not understood": x.Opaque} {
		if there {
			unknown = append(unknown, what)
		}
	}
	out.Unknown = strings.Join(unknown, ", ")
	return out
}

func (r *reading) neighbours(ctx context.Context, c *rt.Conn, limit int) error {
	list, err := c.Neighbours(ctx, rt.NeighbourFilter{}, limit)
	for _, n := range list {
		out := machine.Neighbour{Dev: r.names[n.Index], IP: n.IP, State: machine.NeighbourState(n.State), Proxy: n.Flags&unix.NTF_PROXY != 0}
		if !n.MAC.IsZero() {
			out.MAC = n.MAC.String()
		}
		r.space.Neighbours = append(r.space.Neighbours, out)
	}
	return err
}

// forwarding reads the databases of bridges and VXLANs. In them NUD_PERMANENT is
// an address of one's own, NUD_NOARP one that was set (fdb_to_nud).
func (r *reading) forwarding(ctx context.Context, c *rt.Conn, limit int) error {
	list, err := c.Neighbours(ctx, rt.NeighbourFilter{Family: unix.AF_BRIDGE}, limit)
	for _, n := range list {
		dev := r.space.Link(r.names[n.Index])
		if dev == nil || n.Master == 0 && dev.VXLAN == nil {
			continue // addresses that a device filters by
		}
		r.space.Forwarding = append(r.space.Forwarding, machine.ForwardingEntry{
			Dev: dev.Name, MAC: n.MAC.String(), Bridge: r.names[n.Master], VLAN: n.VLAN,
			Local: n.Master != 0 && n.State&unix.NUD_PERMANENT != 0, Static: n.State&(unix.NUD_NOARP|unix.NUD_PERMANENT) != 0,
			ExternLearned: n.Flags&unix.NTF_EXT_LEARNED != 0, Far: n.IP, VNI: n.VNI, Port: n.Port,
		})
	}
	return err
}
