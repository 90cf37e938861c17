//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
)

// liveLimit bounds what is read of a sandbox for a person to read.
const liveLimit = 256

// Live is what the kernel shows of a sandbox, both sides, one line an object.
type Live struct {
	Links, Addresses, Routes, Neighbours, Chains []string
}

// Live reads a sandbox and the host's ends of its links, with a limit and a
// deadline, since what is in a sandbox is its tenant's.
func (k *Kernel) Live(ctx context.Context, sandbox string, hostLinks []string) (*Live, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s := k.spaces()
	defer s.close()
	l := &Live{Links: []string{}, Addresses: []string{}, Routes: []string{}, Neighbours: []string{}, Chains: []string{}}
	sp, err := s.at(sandbox)
	if err != nil {
		return nil, fmt.Errorf("read sandbox %s: %w", sandbox, err)
	}
	names, err := l.addLinks(ctx, sandbox, sp, nil)
	if err != nil {
		return nil, err
	}
	if err := l.addInside(ctx, sandbox, sp, names); err != nil {
		return nil, err
	}
	if _, err := l.addLinks(ctx, kernel.Host, s.host, hostLinks); err != nil {
		return nil, err
	}
	if l.Chains, err = chainLines(ctx, s.host, kernel.Host, hostLinks); err != nil {
		return nil, err
	}
	inside, err := chainLines(ctx, sp, sandbox, nil)
	if err != nil && !errors.Is(err, nft.ErrTooMuch) {
		return nil, err
	}
	l.Chains = append(l.Chains, inside[:min(len(inside), liveLimit)]...)
	return l, nil
}

// addLinks adds the links named, or all, and gives the names by index.
func (l *Live) addLinks(ctx context.Context, ns string, sp *space, only []string) (map[int]string, error) {
	var links []rt.Link
	var err error
	if only == nil {
		links, err = sp.rt.Links(ctx, rt.LinkFilter{})
	}
	for _, name := range only {
		if link, lerr := sp.rt.LinkByName(ctx, name); lerr == nil {
			links = append(links, link)
		}
	}
	if err != nil && !errors.Is(err, rt.ErrTooMany) {
		return nil, err
	}
	names := map[int]string{}
	for _, link := range links[:min(len(links), liveLimit)] {
		names[link.Index] = link.Name
		l.Links = append(l.Links, linkLine(ns, link))
	}
	return names, nil
}

func linkLine(ns string, l rt.Link) string {
	state := "DOWN"
	switch {
	case l.Up && l.Running:
		state = "UP"
	case l.Up:
		state = "NO-CARRIER"
	}
	kind := l.Kind
	if kind == "" {
		kind = "physical"
	}
	return fmt.Sprintf("%s: %d: %s %s state %s mtu %d address %s", ns, l.Index, l.Name, kind, state, l.MTU, l.MAC)
}

// addInside adds addresses, routes and neighbours of the sandbox.
func (l *Live) addInside(ctx context.Context, ns string, sp *space, names map[int]string) error {
	addrs, err := sp.rt.Addresses(ctx, 0)
	if err != nil && !errors.Is(err, rt.ErrTooMany) {
		return err
	}
	for _, a := range addrs[:min(len(addrs), liveLimit)] {
		l.Addresses = append(l.Addresses, fmt.Sprintf("%s: %s dev %s", ns, a.Prefix, names[a.Index]))
	}
	routes, err := sp.rt.Routes(ctx, rt.RouteFilter{Table: 254, Type: 1}, liveLimit)
	if err != nil && !errors.Is(err, rt.ErrTooMany) {
		return err
	}
	for _, r := range routes {
		dst := r.Dst.String()
		if r.Dst.Bits() == 0 {
			dst = "default"
		}
		words := []string{ns + ":", dst}
		if r.Gateway.IsValid() {
			words = append(words, "via", r.Gateway.String())
		}
		l.Routes = append(l.Routes, strings.Join(append(words, "dev", names[r.OIF]), " "))
	}
	neighbours, err := sp.rt.Neighbours(ctx, rt.NeighbourFilter{}, liveLimit)
	if err != nil && !errors.Is(err, rt.ErrTooMany) {
		return err
	}
	for _, n := range neighbours {
		if n.MAC != (rt.MAC{}) {
			l.Neighbours = append(l.Neighbours, fmt.Sprintf("%s: %s lladdr %s dev %s", ns, n.IP, n.MAC, names[n.Index]))
		}
	}
	return nil
}
