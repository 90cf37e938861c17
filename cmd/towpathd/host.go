package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/ipam"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux"
	"github.com/towpath/towpath/internal/ports"
)

// namespaces gives the engine the kernel's view of namespaces.
type namespaces struct{ k *linux.Kernel }

// Adopt identifies the caller's namespace.
func (n namespaces) Adopt(f *os.File) (uint64, error) {
	cookie, err := n.k.Adopt(f)
	var bound *linux.BoundError
	if errors.As(err, &bound) {
		return 0, api.Errorf(api.AlreadyExists, "%w", err).WithFix("use that one, or remove it: towpath sandbox rm %s", bound.Sandbox)
	}
	if err != nil {
		return 0, api.Errorf(api.Invalid, "adopt namespace: %w", err).WithFix("pass the network namespace of a container")
	}
	return cookie, nil
}

// Path is where the namespace of a sandbox is bound.
func (n namespaces) Path(sandbox string) string { return n.k.Path(sandbox) }

// processes follows the processes of `run`.
type processes struct{}

// Identify gives the process of a number now.
func (processes) Identify(pid int) (api.Process, error) {
	start, err := linux.StartTime(pid)
	return api.Process{PID: pid, Start: start}, err
}

// Exited closes the channel when the process is gone.
func (processes) Exited(ctx context.Context, p api.Process) <-chan struct{} {
	return linux.Exited(ctx, p.PID, p.Start)
}

// Kill kills the process unless it is gone.
func (processes) Kill(p api.Process) error { return linux.Kill(p.PID, p.Start) }

// KillIn kills the processes in a namespace.
func (processes) KillIn(path string, still func() bool) error { return linux.KillIn(path, still) }

// holder holds ports of the host as the kernel's sockets ask, and gives what
// goes wrong its code.
type holder struct{ ports *ports.Holder }

// Hold takes all of the ports or none.
func (h holder) Hold(sockets []kernel.Socket) error {
	var all []ports.Port
	for _, s := range sockets {
		all = append(all, ports.Of(s))
	}
	err := h.ports.Hold(all...)
	var taken *ports.TakenError
	var limit *ports.LimitError
	switch {
	case errors.As(err, &taken):
		return api.Errorf(api.PortTaken, "%w", err).WithFix("stop that program, or choose another host port")
	case errors.As(err, &limit):
		return api.Errorf(api.Exhausted, "%w", err).WithFix("raise the limit: LimitNOFILE in the unit, or ulimit -n")
	}
	return err
}

// Release lets go of a port.
func (h holder) Release(s kernel.Socket) error { return h.ports.Release(ports.Of(s)) }

// Holds reports whether a port is held.
func (h holder) Holds(s kernel.Socket) bool { return h.ports.Holds(ports.Of(s)) }

// portFree reports whether a run of ports can be had; no address is any.
func portFree(proto string, at netip.Addr, first, count uint16) bool {
	if !at.IsValid() {
		at = netip.IPv6Unspecified()
	}
	try := ports.New()
	defer try.Close() //nolint:errcheck // nothing of it is kept
	return proto == "sctp" || try.Hold(ports.Port{Proto: proto, Addr: netip.AddrPortFrom(at, first), Count: count}) == nil
}

func hostPrefixes(ctx context.Context, k *linux.Kernel) ([]ipam.Taken, error) {
	prefixes, err := k.Prefixes(ctx)
	var taken []ipam.Taken
	for _, p := range prefixes {
		taken = append(taken, ipam.Taken{Prefix: p.Prefix, Owner: fmt.Sprintf("the host's route over %s", p.Dev)})
	}
	return taken, err
}

func live(ctx context.Context, k *linux.Kernel, s *api.Sandbox, eps []*api.Endpoint) (*api.Live, error) {
	hostLinks := []string{}
	for _, ep := range eps {
		hostLinks = append(hostLinks, ep.HostIfname)
	}
	l, err := k.Live(ctx, s.Name, hostLinks)
	if err != nil {
		return nil, err
	}
	return &api.Live{Links: l.Links, Addresses: l.Addresses, Routes: l.Routes, Neighbours: l.Neighbours, Chains: l.Chains}, nil
}
