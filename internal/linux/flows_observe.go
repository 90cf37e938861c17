//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/ct"
)

// maxMisled bounds how much of conntrack one look tells of; the next tells the rest.
const maxMisled = 4096

// readFlows adds the connections that the wanted state would not make: those to
// published ports that lead elsewhere; and the first time, when nobody knows
// what was before, those that lead into our networks though no port is
// published there, and those of addresses of our networks that are nobody's.
func (o *observer) readFlows(ctx context.Context) error {
	if n, ok := o.k.number("net/netfilter/nf_conntrack_count"); ok && n == 0 {
		o.k.judged = true
		return nil
	}
	j, err := o.judge(ctx)
	if err != nil {
		return err
	}
	c, err := ct.Dial(int(o.k.self.Fd()))
	if err == nil {
		err = errors.Join(c.Each(ctx, j.see), c.Close())
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for stale connections: %w", err)
	}
	for _, obj := range j.found {
		o.add(obj)
	}
	o.k.judged = true
	return nil
}

// judge knows what connections may be there.
type judge struct {
	maps  portMaps
	local func(netip.Addr) bool
	ours  func(netip.Addr) bool
	known map[netip.Addr]bool // addresses in our networks that are somebody's
	first bool
	found map[kernel.Key]kernel.Object
}

// judge is made of the wanted state, and of the addresses of the host.
func (o *observer) judge(ctx context.Context) (*judge, error) {
	j := &judge{first: !o.k.judged, known: map[netip.Addr]bool{}, found: map[kernel.Key]kernel.Object{}}
	var all []mapping
	var prefixes []netip.Prefix
	for _, obj := range o.in[kernel.Host] {
		switch w := obj.(type) {
		case kernel.Element:
			if !strings.HasPrefix(w.Set, "publish") {
				continue
			}
			m, err := parseMapping(w)
			if err != nil {
				return nil, err
			}
			all = append(all, m)
		case kernel.Flows:
			j.known[w.Addr] = true
		case kernel.Address:
			prefixes = append(prefixes, w.Prefix.Masked())
			j.known[w.Prefix.Addr()] = true
		}
	}
	j.maps = byPort(all)
	var err error
	if j.local, err = o.k.Locals(ctx); err != nil {
		return nil, err
	}
	there, err := o.k.networks(ctx)
	j.ours = func(a netip.Addr) bool {
		return there(a) || slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	return j, err
}

// see judges one connection.
func (j *judge) see(e ct.Entry) {
	if len(j.found) >= maxMisled || misledBy(e).Proto == "" {
		return
	}
	dst, source := e.Reply.Src.Addr(), e.Orig.Src.Addr()
	m, covered := j.maps.of(e, j.local)
	switch {
	case covered && stale(e, m, j.ours):
		j.add(misledBy(e))
	case covered || !j.first:
	case e.Status&ct.DNAT != 0 && e.Reply.Src != e.Orig.Dst && j.ours(dst):
		j.add(misledBy(e))
	case e.Status&ct.SNAT != 0 && j.ours(source) && !j.known[source] && !j.local(source):
		j.add(kernel.Flows{NS: kernel.Host, Addr: source})
	}
}

func (j *judge) add(o kernel.Object) { j.found[o.Key()] = o }
