// Package fake is a kernel made of data, for tests of what stands on the real
// one: it keeps a kernel.State, by the kernel's own rules, and refuses what a
// test tells it to.
package fake

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/towpath/towpath/internal/kernel"
)

// Kernel is a kernel made of data.
type Kernel struct {
	// Events are what Watch gives.
	Events chan kernel.Event
	// Hooks is what Facts says of them.
	Hooks kernel.HookSupport

	mu     sync.Mutex
	state  kernel.State
	refuse func(kernel.Op) error
	calls  []kernel.Op
	reads  int
}

// New is a host that does not forward, with an MTU of 1500.
func New() *Kernel {
	return &Kernel{
		Events: make(chan kernel.Event),
		Hooks:  kernel.HooksByName,
		state:  kernel.NewState(kernel.Sysctl{NS: kernel.Host, Name: "net/ipv4/ip_forward", Value: "0"}),
		refuse: func(kernel.Op) error { return nil },
	}
}

// State is what there is now.
func (f *Kernel) State() kernel.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state.Clone()
}

// Put puts an object there behind the daemon's back.
func (f *Kernel) Put(o kernel.Object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state[o.Key()] = o
}

// Take takes an object away behind the daemon's back, with what goes with it.
func (f *Kernel) Take(k kernel.Key) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	o, ok := f.state[k]
	if !ok {
		return fmt.Errorf("take %s: it is not there", k)
	}
	return f.state.Apply(kernel.Op{Verb: kernel.Delete, Object: o})
}

// Refuse makes Apply fail with what refuse returns for an op, if it is not nil.
func (f *Kernel) Refuse(refuse func(kernel.Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = refuse
}

// Calls are the ops that Apply was given since the last call of Calls, and
// how many objects Observe was asked for.
func (f *Kernel) Calls() (ops []kernel.Op, reads int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ops, reads = f.calls, f.reads
	f.calls, f.reads = nil, 0
	return ops, reads
}

// Facts is of a host with an MTU of 1500 and no IPv6.
func (f *Kernel) Facts(context.Context) (kernel.Facts, error) {
	return kernel.Facts{UplinkMTU: 1500, Hooks: f.Hooks}, nil
}

// Watch gives Events.
func (f *Kernel) Watch(context.Context) (<-chan kernel.Event, error) { return f.Events, nil }

// Observe gives what is there of want, with sweep everything.
func (f *Kernel) Observe(_ context.Context, want kernel.State, sweep bool) (kernel.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads += len(want)
	seen := kernel.State{}
	for k, o := range f.state {
		if _, asked := want[k]; asked || (sweep && k.Kind != kernel.KindSysctl) {
			seen[k] = o
		}
	}
	return seen, nil
}

// Apply carries out ops as the kernel would: those on nftables of a namespace all or
// nothing.
func (f *Kernel) Apply(_ context.Context, ops []kernel.Op) []kernel.Failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, ops...)
	var failures []kernel.Failure
	for len(ops) > 0 {
		op := ops[0]
		if op.Phase == kernel.Rules || op.Phase == kernel.Guard {
			n := slices.IndexFunc(ops, func(o kernel.Op) bool { return o.Object.Key().NS != op.Object.Key().NS || o.Phase != op.Phase })
			if n < 0 {
				n = len(ops)
			}
			failures = append(failures, f.transaction(ops[:n])...)
			ops = ops[n:]
			continue
		}
		ops = ops[1:]
		if err := f.apply(f.state, op); err != nil {
			failures = append(failures, kernel.Failure{Op: op, Err: err})
		}
	}
	return failures
}

func (f *Kernel) apply(s kernel.State, op kernel.Op) error {
	if err := f.refuse(op); err != nil {
		return err
	}
	if o, ok := op.Object.(kernel.Sysctl); ok { // is there whether we made it or not
		s[o.Key()] = o
		return nil
	}
	return s.Apply(op)
}

func (f *Kernel) transaction(ops []kernel.Op) []kernel.Failure {
	next := f.state.Clone()
	for _, op := range ops {
		if err := f.apply(next, op); err != nil {
			var failures []kernel.Failure
			for _, op := range ops {
				failures = append(failures, kernel.Failure{Op: op, Err: fmt.Errorf("transaction: %w", err)})
			}
			return failures
		}
	}
	f.state = next
	return nil
}
