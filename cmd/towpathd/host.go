package main

import (
	"context"
	"fmt"
	"os"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/ipam"
	"github.com/towpath/towpath/internal/linux"
)

// namespaces gives the engine the kernel's view of namespaces.
type namespaces struct{ k *linux.Kernel }

// Adopt identifies the caller's namespace.
func (n namespaces) Adopt(f *os.File) (uint64, error) {
	cookie, err := n.k.Adopt(f)
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
