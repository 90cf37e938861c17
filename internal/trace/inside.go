package trace

import (
	"cmp"
	"slices"
	"time"

	"github.com/towpath/towpath/api"
)

// Crossing is a packet at the beginning or at the end of a hook of the packet
// filter, as a program there saw it.
type Crossing struct {
	At    time.Duration // since the packet was sent
	Space string
	// Hook is "prerouting", "input", "forward", "output" or "postrouting".
	Hook string
	// Left: it has come through all that is in the hook.
	Left bool
	// In and Out are the links; "": none.
	In, Out string
	// ID is the packet's, as long as the kernel keeps it.
	ID uint64
	Packet
}

// crossing is a packet that came into a hook and, with Left, through it.
type crossing struct {
	Crossing
	left  *Crossing
	known bool // told
}

// crossed pairs what came into the hooks with what came out, by direction and
// namespace, in the order of time.
func (j *join) crossed() {
	j.hooks = map[api.Direction]map[string][]crossing{}
	slices.SortStableFunc(j.Crossings, func(a, b Crossing) int { return cmp.Compare(a.At, b.At) })
	for i, c := range j.Crossings {
		d, ok := j.Direction(c.Packet)
		if !ok || c.Left {
			continue
		}
		list := j.hooks[d][c.Space]
		if slices.ContainsFunc(list, func(x crossing) bool { return x.Hook == c.Hook && x.Flow == c.Flow && x.In == c.In }) {
			continue // it was sent again
		}
		x := crossing{Crossing: c}
		for _, y := range j.Crossings[i+1:] {
			if y.ID == c.ID && y.Space == c.Space && y.Hook == c.Hook {
				if y.Left {
					x.left = &y
				}
				break
			}
		}
		if j.hooks[d] == nil {
			j.hooks[d] = map[string][]crossing{}
		}
		j.hooks[d][c.Space] = append(list, x)
	}
}

// lastHook is the last of the request's hooks that it came through; nil: none.
func (j *join) lastHook() (last *Crossing) {
	for i := range j.Crossings {
		c := &j.Crossings[i]
		if d, _ := j.Direction(c.Packet); d == api.Request && c.Left {
			last = c
		}
	}
	return last
}

// crossing is how the packet came into a hook; nil: it was not seen.
func (j *join) crossing(d api.Direction, space, hook string) *crossing {
	list := j.hooks[d][space]
	i := slices.IndexFunc(list, func(c crossing) bool { return c.Hook == hook })
	if i < 0 {
		return nil
	}
	return &list[i]
}

// passed reports whether it was seen how the packet came through a hook.
func (j *join) passed(d api.Direction, space, hook string) bool {
	c := j.crossing(d, space, hook)
	return c != nil && c.left != nil
}

// changed tells what the hooks that are named made of the packet. Not ok: it was
// not watched.
func (j *join) changed(d api.Direction, space string, hooks ...string) (ok bool) {
	list := j.hooks[d][space]
	for i := range list {
		c := &list[i]
		ok = true
		if c.known || c.left == nil || !slices.Contains(hooks, c.Hook) {
			continue
		}
		c.known = true
		if from, to := c.Flow, c.left.Flow; from != to && from.Proto == to.Proto && from.ICMPType == to.ICMPType {
			j.path.Hops = append(j.path.Hops, j.translation(d, c))
		}
	}
	return ok
}

// translation is the hop of a packet that a hook changed.
func (j *join) translation(d api.Direction, c *crossing) api.Hop {
	from, to := c.Flow, c.left.Flow
	h := api.Hop{
		Direction: d, NS: c.Space, Device: cmp.Or(c.In, c.Out), Layer: api.Layer(c.Hook), Before: new(from), After: new(to),
		AtMicros: micros(c.left.At), Sources: []string{"bpf"}, Certain: true,
	}
	if c.Hook == "postrouting" {
		h.Device = c.Out
	}
	j.place(&h)
	h.Action, h.Detail = changeText(d, from, to, from.Src == to.Src && from.Sport == to.Sport)
	for _, r := range j.told[d][c.Space] {
		if r.nat && r.hook == c.Hook {
			h.Rule, h.Sources, h.Action = r.rule, []string{"bpf", "nftrace"}, r.translation(h.Action)
		}
	}
	return h
}

// place fills in the numbers of a hop's namespace and device.
func (j *join) place(h *api.Hop) {
	if s := j.Machine.Space(h.NS); s != nil {
		h.NSInode = s.Inode
	}
	if l := j.link(h.NS, h.Device); l != nil {
		h.Ifindex = l.Index
	}
}

// source is who saw a packet on a link.
func (j *join) source() string {
	if j.path.Level == api.LevelTaps {
		return "tap"
	}
	return "bpf"
}
