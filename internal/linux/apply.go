//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
)

// Apply carries out ops in order. Ops of the Rules phase are one nftables
// transaction; links to be removed go together. After a failure it goes on with
// what does not depend on what failed. To make what is there, or to remove what
// is not, is no failure.
func (k *Kernel) Apply(ctx context.Context, ops []kernel.Op) []kernel.Failure {
	if k.foreseen == nil {
		defer k.Foresee(ops)()
	}
	a := &applier{k: k, spaces: k.foreseen.spaces, ops: ops, broken: map[kernel.Key]error{}, made: map[kernel.Key]kernel.Object{}}
	for _, op := range ops {
		if op.Verb != kernel.Delete {
			a.made[op.Object.Key()] = op.Object
		}
	}
	defer a.hangUp()
	for len(ops) > 0 {
		n := batch(ops)
		a.run(ctx, ops[:n])
		ops = ops[n:]
	}
	a.settle(ctx)
	return a.failures
}

// batch is how many of the first ops go to the kernel together.
func batch(ops []kernel.Op) int {
	together := func(op kernel.Op) bool { return false }
	switch {
	case ops[0].Object.Key().Kind.IsNFT():
		together = func(op kernel.Op) bool {
			return op.Object.Key().Kind.IsNFT() && op.Object.Key().NS == ops[0].Object.Key().NS
		}
	case hostLinkRemoval(ops[0]):
		together = hostLinkRemoval
	case flowsRemoval(ops[0]):
		together = flowsRemoval
	case reservation(ops[0]):
		together = reservation
	case opening(ops[0]):
		together = opening
	case isEntry(ops[0]):
		together = isEntry
	case namespaceRemoval(ops[0]):
		together = namespaceRemoval
	}
	if n := slices.IndexFunc(ops[1:], func(op kernel.Op) bool { return !together(op) }); n >= 0 {
		return n + 1
	}
	return len(ops)
}

func hostLinkRemoval(op kernel.Op) bool {
	k := op.Object.Key()
	return op.Verb == kernel.Delete && k.Kind == kernel.KindLink && k.NS == kernel.Host
}

func namespaceRemoval(op kernel.Op) bool {
	return op.Verb == kernel.Delete && op.Object.Key().Kind == kernel.KindNamespace
}

// reservation is of a port: Reserve is also the phase of an op that Diff did not make.
func reservation(op kernel.Op) bool {
	_, isSocket := op.Object.(kernel.Socket)
	return isSocket && op.Phase == kernel.Reserve && op.Verb == kernel.Create
}

func flowsRemoval(op kernel.Op) bool {
	return op.Verb == kernel.Delete && op.Object.Key().Kind == kernel.KindFlows
}

// applier is one Apply under way.
type applier struct {
	k        *Kernel
	spaces   *spaces
	ops      []kernel.Op
	made     map[kernel.Key]kernel.Object // what the ops make: a pair is made whole
	broken   map[kernel.Key]error
	failures []kernel.Failure
	arrivals map[string]*arrivals // by namespace
	raised   []kernel.Up          // links
}

// run carries out a batch, between its fault points.
func (a *applier) run(ctx context.Context, ops []kernel.Op) {
	for _, op := range ops {
		a.k.Pass("before " + op.String())
	}
	switch {
	case ops[0].Object.Key().Kind.IsNFT():
		missing := slices.DeleteFunc(slices.Clone(ops), a.has) // the rest came with the namespace
		if len(missing) == 0 {
			break
		}
		err := a.rules(ctx, missing)
		if err == nil {
			err = a.flows(ctx, ops)
		}
		if err != nil {
			a.fail(err, ops...)
		}
	case flowsRemoval(ops[0]):
		if err := a.k.forget(ctx, ops); err != nil {
			a.fail(err, ops...)
		}
	case reservation(ops[0]):
		a.reserve(ops)
	case opening(ops[0]):
		a.openings(ctx, ops)
	case isEntry(ops[0]):
		if err := a.k.changeEntries(ctx, ops); err != nil {
			a.fail(err, ops...)
		}
	case namespaceRemoval(ops[0]):
		a.removeNamespaces(ctx, ops)
	case len(ops) > 1:
		if err := a.removeLinks(ctx, ops); err != nil {
			a.fail(err, ops...)
		}
	default:
		if err := a.one(ctx, ops[0]); err != nil {
			a.fail(inOp(ops[0], err), ops[0])
		}
	}
	for _, op := range ops {
		a.k.Pass("after " + op.String())
	}
}

// inOp names the op that err is of, unless err says all that matters by itself.
func inOp(op kernel.Op, err error) error {
	var taken *kernel.TakenError
	var missing *kernel.MissingError
	var parameter *kernel.ParameterError
	if errors.As(err, &taken) || errors.As(err, &missing) || errors.As(err, &parameter) {
		return err
	}
	return fmt.Errorf("%s: %w", op, err)
}

func (a *applier) fail(err error, ops ...kernel.Op) {
	for _, op := range ops {
		a.broken[op.Object.Key()] = err
		a.failures = append(a.failures, kernel.Failure{Op: op, Err: err})
	}
}

// one carries out an op that stands alone.
func (a *applier) one(ctx context.Context, op kernel.Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if op.Verb != kernel.Delete {
		for _, need := range append(op.Object.Parents(), op.Object.Needs()...) {
			if err := a.broken[need]; err != nil {
				return fmt.Errorf("needs %s: %w", need, err)
			}
		}
	}
	switch o := op.Object.(type) {
	case kernel.Namespace:
		return a.namespace(o)
	case kernel.Socket:
		return a.socket(op.Verb, o)
	case kernel.Flows: // they come by themselves
		return nil
	case kernel.Zone:
		return a.k.changeZone(ctx, op.Verb, o)
	}
	if a.has(op) {
		return nil
	}
	a.expect(op)
	sp, err := a.spaces.at(op.Object.Key().NS)
	if err != nil {
		if op.Verb == kernel.Delete && errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	switch o := op.Object.(type) {
	case kernel.Link:
		return a.link(ctx, sp, op, o)
	case kernel.Sysctl:
		if value, known := parameter(o, sp.conf6[o.Dev]); known && value == o.Value {
			return nil
		}
		err := sysctl.Write(sp.file, o.Name, o.Value)
		if o.NS == kernel.Host && errors.Is(err, fs.ErrNotExist) {
			// The link went meanwhile, as those of other engines come and go. If it is
			// one of ours, its end is an event of its own.
			return nil
		}
		return ofParameter(o, err)
	case kernel.Rule:
		return a.rule(ctx, sp, op.Verb, o)
	}
	err = a.onLink(ctx, sp, op)
	if op.Verb == kernel.Delete && gone(err) {
		return nil
	}
	return err
}

// ofParameter names the parameter of a sandbox's link that the kernel refuses.
// Whoever connected it chose it.
func ofParameter(o kernel.Sysctl, err error) error {
	for _, refusal := range []error{errors.ErrUnsupported, unix.EINVAL, unix.ERANGE} {
		if o.NS != kernel.Host && o.Dev != "" && errors.Is(err, refusal) {
			return &kernel.ParameterError{Sysctl: o, Err: refusal}
		}
	}
	return err
}

// gone reports whether the kernel says that there is nothing to remove.
func gone(err error) bool {
	for _, e := range []error{unix.ENODEV, unix.ENOENT, unix.ESRCH, unix.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// onLink carries out an op on something that a link has.
func (a *applier) onLink(ctx context.Context, sp *space, op kernel.Op) error {
	dev := deviceOf(op.Object)
	index, err := sp.indexOf(ctx, dev)
	if dev == loopback && op.Verb != kernel.Delete && errors.Is(err, unix.ENODEV) {
		index, err = nameLoopback(ctx, sp)
	}
	if err != nil {
		return err
	}
	switch o := op.Object.(type) {
	case kernel.Up:
		up := op.Verb != kernel.Delete
		return sp.rt.SetLink(ctx, index, rt.LinkChange{Up: &up})
	case kernel.Address:
		addr := rt.Address{Index: index, Prefix: o.Prefix, Proto: protocol, NoDAD: true}
		if op.Verb == kernel.Delete {
			return sp.rt.DelAddress(ctx, addr)
		}
		return sp.rt.ReplaceAddress(ctx, addr)
	case kernel.Route:
		return changeRoute(ctx, sp, op, o, index)
	case kernel.Neighbour:
		n, err := neighbour(o, index)
		switch {
		case err != nil:
			return err
		case op.Verb == kernel.Delete:
			return sp.rt.DelNeighbour(ctx, n)
		}
		return sp.rt.ReplaceNeighbour(ctx, n)
	}
	return fmt.Errorf("no way to apply %T", op.Object)
}

// nameLoopback gives a loopback that somebody renamed its name again. It cannot
// be deleted, and always has the same index.
func nameLoopback(ctx context.Context, sp *space) (int, error) {
	const index = 1 // LOOPBACK_IFINDEX of linux/net_namespace.h
	name, down := loopback, false
	return index, sp.rt.SetLink(ctx, index, rt.LinkChange{Name: &name, Up: &down}) // a name is for a link that is down
}

func deviceOf(o kernel.Object) string {
	switch o := o.(type) {
	case kernel.Up:
		return o.Dev
	case kernel.Address:
		return o.Dev
	case kernel.Route:
		return o.Dev
	case kernel.Neighbour:
		return o.Dev
	}
	return ""
}

func neighbour(o kernel.Neighbour, index int) (rt.Neighbour, error) {
	mac, err := rt.ParseMAC(o.MAC)
	if err != nil {
		return rt.Neighbour{}, err
	}
	n := rt.Neighbour{Index: index, IP: o.IP, MAC: mac, Protocol: protocol}
	if !o.IP.IsValid() {
		n.Family, n.State, n.Flags, n.Protocol = unix.AF_BRIDGE, unix.NUD_NOARP, unix.NTF_MASTER, 0
	}
	return n, nil
}

// unmounts is how many namespaces are let go of at a time. Each unmount waits for
// a grace period of RCU (namespace_unlock), and those that wait together share it.
const unmounts = 16

// afterlife is how long a namespace is still held that has no name any more: what
// the kernel has to do when the last one lets go of it (cleanup_net) takes the
// processors and the lock of links, and somebody waits for the rest of the pass.
const afterlife = 200 * time.Millisecond

// removeNamespaces lets go of namespaces.
func (a *applier) removeNamespaces(ctx context.Context, ops []kernel.Op) {
	errs := make([]error, len(ops))
	held := make([]*os.File, len(ops))
	var wg sync.WaitGroup
	slots := make(chan struct{}, unmounts)
	for i, op := range ops {
		o := op.Object.(kernel.Namespace)
		if o.Cookie != 0 {
			a.leave(ctx, o.Name)
		}
		a.spaces.forget(o.Name)
		a.k.unhear(o.Name)
		slots <- struct{}{}
		wg.Go(func() {
			held[i], _ = netns.Open(a.k.Path(o.Name)) // it may be gone
			errs[i] = netns.Remove(a.k.Path(o.Name))
			<-slots
		})
	}
	wg.Wait()
	time.AfterFunc(afterlife, func() {
		for _, f := range held {
			_ = f.Close() // of nil too
		}
	})
	for i, op := range ops {
		if errs[i] != nil {
			a.fail(inOp(op, errs[i]), op)
		}
	}
}

// namespace makes or binds a namespace.
func (a *applier) namespace(o kernel.Namespace) error {
	a.spaces.forget(o.Name)
	if o.Cookie == 0 {
		return a.newNamespace(o.Name)
	}
	a.k.mu.Lock()
	f := a.k.offered[o.Cookie]
	a.k.mu.Unlock()
	if f == nil {
		return errors.New("the adopted namespace is not bound any more and nobody has passed it again; remove the sandbox and create it anew")
	}
	if err := netns.Bind(int(f.Fd()), a.k.Path(o.Name)); err != nil {
		return err
	}
	a.k.mu.Lock()
	delete(a.k.offered, o.Cookie)
	a.k.mu.Unlock()
	return f.Close()
}

// reserve takes ports of the host: all at once, and if that fails one by one, to
// learn which one it was.
func (a *applier) reserve(ops []kernel.Op) {
	var all []kernel.Socket
	for _, op := range ops {
		all = append(all, op.Object.(kernel.Socket))
	}
	if a.k.Ports != nil && a.k.Ports.Hold(all) == nil {
		return
	}
	for i, op := range ops {
		if err := a.socket(op.Verb, all[i]); err != nil {
			a.fail(err, op)
		}
	}
}
