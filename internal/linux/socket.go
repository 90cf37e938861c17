//go:build linux

package linux

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

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
	sp, err := a.spaces.at(o.NS)
	if err != nil {
		return err
	}
	udp, tcp, err := openSockets(sp.file, o)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w: a program in the sandbox has the port, which Towpath's resolver needs", err)
	case err != nil:
		return err
	}
	return a.k.keepSockets(o, udp, tcp)
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
