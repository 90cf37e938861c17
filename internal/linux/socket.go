//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/netns"
)

// socket opens or closes what the daemon holds in a namespace.
func (a *applier) socket(verb kernel.Verb, o kernel.Socket) error {
	switch {
	case o.NS == kernel.Host && a.k.Ports != nil && verb == kernel.Delete:
		return a.k.Ports.Release(o)
	case o.NS == kernel.Host && a.k.Ports != nil:
		return a.k.Ports.Hold([]kernel.Socket{o})
	}
	if err := a.k.closeSockets(o); err != nil || verb == kernel.Delete {
		return err
	}
	if r := a.k.foreseen.given[o.NS]; r != nil && a.has(kernel.Op{Verb: verb, Object: o}) {
		udp, tcp := r.udp, r.tcp
		r.udp, r.tcp = nil, nil
		return a.k.keepSockets(o, udp, tcp)
	}
	ns, done, err := a.namespaceOf(o)
	if err != nil {
		return err
	}
	defer done()
	udp, tcp, err := openSockets(ns, o)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w: a program in the sandbox has the port, which Towpath's resolver needs", err)
	case err != nil:
		return err
	}
	return a.k.keepSockets(o, udp, tcp)
}

// namespaceOf gives the namespace of a socket: nothing else of it is needed. It
// may be called by several goroutines as long as nobody opens one for the pass.
func (a *applier) namespaceOf(o kernel.Socket) (ns *os.File, done func(), err error) {
	if o.NS == kernel.Host {
		return a.k.self, func() {}, nil
	}
	if sp := a.spaces.open[o.NS]; sp != nil && sp.err == nil {
		return sp.file, func() {}, nil
	}
	ns, err = netns.Open(a.k.Path(o.NS))
	return ns, func() { _ = ns.Close() }, err
}

// openings opens sockets in many sandboxes, side by side: a daemon that starts
// over a thousand has them all to open.
func (a *applier) openings(ctx context.Context, ops []kernel.Op) {
	errs := make([]error, len(ops))
	turns := make(chan int)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(ops)) {
		wg.Go(func() {
			for i := range turns {
				errs[i] = a.one(ctx, ops[i])
			}
		})
	}
	for i := range ops {
		turns <- i
	}
	close(turns)
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			a.fail(fmt.Errorf("%s: %w", ops[i], err), ops[i])
		}
	}
}

// opening is of a socket in a sandbox.
func opening(op kernel.Op) bool {
	_, isSocket := op.Object.(kernel.Socket)
	return isSocket && op.Object.Key().NS != kernel.Host && op.Verb == kernel.Create
}

// openSockets binds in a namespace: a socket stays in the one it was opened in.
func openSockets(ns *os.File, o kernel.Socket) (udp *net.UDPConn, tcp *net.TCPListener, err error) {
	err = netns.Do(ns, func() error {
		var errs [2]error
		if strings.Contains(o.Proto, "udp") {
			udp, errs[0] = net.ListenUDP("udp", net.UDPAddrFromAddrPort(o.Addr))
		}
		if strings.Contains(o.Proto, "tcp") && errs[0] == nil {
			tcp, errs[1] = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(o.Addr))
		}
		return errors.Join(errs[:]...)
	})
	if err != nil && udp != nil {
		_ = udp.Close()
		udp = nil
	}
	return udp, tcp, err
}

// keepSockets gives sockets to whom they are for.
func (k *Kernel) keepSockets(o kernel.Socket, udp *net.UDPConn, tcp *net.TCPListener) error {
	if k.resolves(o) {
		if tcp == nil { // a nil pointer is no nil interface
			return k.Resolver.Attach(o.NS, udp, nil)
		}
		return k.Resolver.Attach(o.NS, udp, tcp)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if udp != nil {
		k.sockets[o.Key()] = append(k.sockets[o.Key()], udp)
	}
	if tcp != nil {
		k.sockets[o.Key()] = append(k.sockets[o.Key()], tcp)
	}
	return nil
}

// closeSockets closes those that are open already.
func (k *Kernel) closeSockets(o kernel.Socket) error {
	if k.resolves(o) {
		return k.Resolver.Detach(o.NS)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, s := range k.sockets[o.Key()] {
		errs = append(errs, s.Close())
	}
	delete(k.sockets, o.Key())
	return errors.Join(errs...)
}

// resolves reports whether a socket is the resolver's: the only one of a sandbox.
func (k *Kernel) resolves(o kernel.Socket) bool { return k.Resolver != nil && o.NS != kernel.Host }

// readSockets adds those that are held, as far as they are asked for.
func (o *observer) readSockets(ns string) {
	for _, w := range wanted[kernel.Socket](o, ns) {
		if o.k.holds(w) {
			o.add(w)
		}
	}
}

func (k *Kernel) holds(o kernel.Socket) bool {
	switch {
	case k.resolves(o):
		return k.Resolver.Attached(o.NS)
	case o.NS == kernel.Host && k.Ports != nil:
		return k.Ports.Holds(o)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.sockets[o.Key()]) > 0
}
