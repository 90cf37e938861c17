package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/ports"
)

// keptPrefix begins the names under which the sockets of resolvers are kept over
// a restart; the sandbox is behind it.
const keptPrefix = "resolver-"

// Attach answers on the sockets of a sandbox, and has them kept.
func (r *resolver) Attach(sandbox string, udp *net.UDPConn, tcp net.Listener) error {
	if err := r.keep(sandbox, udp, tcp); err != nil { // it works until the next restart
		r.log.Warn("keep sockets over a restart", "sandbox", sandbox, "err", err)
	}
	return r.Server.Attach(sandbox, udp, tcp)
}

func (r *resolver) keep(sandbox string, udp *net.UDPConn, tcp net.Listener) error {
	l, isTCP := tcp.(*net.TCPListener)
	if udp == nil || !isTCP {
		return nil // half of it is opened anew, and so the whole
	}
	a, err := udp.File()
	if err != nil {
		return err
	}
	defer a.Close() //nolint:errcheck // a copy
	b, err := l.File()
	if err != nil {
		return err
	}
	defer b.Close() //nolint:errcheck // a copy
	return r.store.Keep(keptPrefix+sandbox, a, b)
}

// Detach closes the sockets of a sandbox. What the store has of them goes first:
// it would keep the namespace.
func (r *resolver) Detach(sandbox string) error {
	return errors.Join(r.store.Drop(keptPrefix+sandbox), r.Server.Detach(sandbox))
}

// takeOver answers on the sockets that were kept over a restart, of sandboxes
// that are still there. What cannot be used is let go of.
func (r *resolver) takeOver(kept map[string][]*os.File, sandboxes map[string]*api.Sandbox) {
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		sandbox, ours := strings.CutPrefix(name, keptPrefix)
		if !ours {
			continue
		}
		err := errors.New("there is no such sandbox any more")
		if s := sandboxes[sandbox]; s != nil {
			err = r.resume(s, kept[name])
		}
		for _, f := range kept[name] {
			_ = f.Close() // in use is a copy
		}
		delete(kept, name)
		if err == nil {
			continue
		}
		r.log.Warn("sockets that were kept cannot be used", "sandbox", sandbox, "err", err)
		if err := r.store.Drop(name); err != nil {
			r.log.Warn("let go of kept sockets", "sandbox", sandbox, "err", err)
		}
	}
}

// resume answers on the sockets of one sandbox: a UDP one and a listening one, in
// the namespace that it has now.
func (r *resolver) resume(s *api.Sandbox, files []*os.File) error {
	here, err := netns.Open(s.Netns)
	if err != nil {
		return err
	}
	defer here.Close() //nolint:errcheck // only read
	var udp *net.UDPConn
	var tcp net.Listener
	for _, f := range files {
		if err = sameNamespace(f, here); err != nil {
			break
		}
		if c, perr := net.FilePacketConn(f); perr == nil && udp == nil {
			if u, isUDP := c.(*net.UDPConn); isUDP {
				udp = u
				continue
			}
			_ = c.Close()
		}
		if l, lerr := net.FileListener(f); lerr == nil && tcp == nil {
			tcp = l
		}
	}
	if err == nil && (udp == nil || tcp == nil) {
		err = fmt.Errorf("of %d descriptors, not one is a UDP and one a listening socket", len(files))
	}
	if err != nil {
		if udp != nil {
			_ = udp.Close()
		}
		if tcp != nil {
			_ = tcp.Close()
		}
		return err
	}
	return r.Server.Attach(s.Name, udp, tcp)
}

func sameNamespace(socket, here *os.File) error {
	ns, err := netns.OfSocket(socket)
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // only read
	same, err := netns.Same(ns, here)
	if err == nil && !same {
		err = errors.New("they are in another namespace than the sandbox is now")
	}
	return err
}

// resumePorts holds the ports whose sockets were kept over a restart, and has
// those that are held from now on kept too.
func (c *config) resumePorts(held *ports.Holder, log *slog.Logger) {
	held.KeepIn(c.store, func(err error) { log.Warn("the port is free for others while the daemon restarts", "err", err) })
	here, err := netns.Self()
	if err != nil {
		log.Warn("ports that were kept cannot be used", "err", err)
		return
	}
	defer here.Close() //nolint:errcheck // only read
	for _, name := range slices.Sorted(maps.Keys(c.kept)) {
		if !ports.Kept(name) {
			continue
		}
		err := resumePort(held, name, c.kept[name], here)
		for _, f := range c.kept[name] {
			_ = f.Close() // in use is a copy
		}
		delete(c.kept, name)
		if err == nil {
			continue
		}
		log.Warn("a port that was kept cannot be used", "err", err)
		if err := errors.Join(c.store.Drop(name), c.store.Settle()); err != nil {
			log.Warn("let go of a kept port", "name", name, "err", err)
		}
	}
}

func resumePort(held *ports.Holder, name string, files []*os.File, here *os.File) error {
	if len(files) != 1 {
		return fmt.Errorf("resume %s: there are %d descriptors of it", name, len(files))
	}
	ns, err := netns.OfSocket(files[0])
	if err != nil {
		return fmt.Errorf("resume %s: %w", name, err)
	}
	defer ns.Close() //nolint:errcheck // only read
	same, err := netns.Same(ns, here)
	if err == nil && !same {
		err = errors.New("it is in another namespace than the daemon is now")
	}
	if err != nil {
		return fmt.Errorf("resume %s: %w", name, err)
	}
	return held.Resume(name, files[0])
}
