//go:build linux

// Package look has one job: to read what the machine's network is now, in all
// namespaces that may be seen, whoever made them, as a machine.Host. It changes
// nothing, and it trusts nobody: what a namespace holds is its tenant's, and is
// read with a limit and a deadline.
package look

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/machine"
)

// Config says where to look, and how far.
type Config struct {
	// Self is the namespace that stands for the machine; nil: the calling thread's.
	Self *os.File
	// RunDir is the directory in which Towpath's sandboxes are bound; "": none.
	RunDir string
	// Named are more namespaces to read, by what they are to be called.
	Named map[string]*os.File
	// All reads every namespace, not only the sandboxes and those that links
	// lead to.
	All bool
	// Owners asks for the processes that have listeners open, which costs a look
	// at every descriptor of every process.
	Owners bool
	// Held tells sockets that keep others from a port, and whom they let in all the
	// same; nil: there are none.
	Held func(machine.Listener) (passes *machine.Passing, held bool)
	// Earlier is what is not read again; nil: everything is read.
	Earlier *Earlier
	Limits  Limits
}

// Limits bound what is read.
type Limits struct {
	Spaces      int // namespaces
	Objects     int // of each kind in a namespace: links, routes, rules, ...
	Connections int // of connection tracking, in a namespace; 0: none is read
	Descriptors int // looked at for owners of sockets
	// PerSpace is how long reading one namespace may take.
	PerSpace time.Duration
}

// DefaultLimits are those of a machine with a thousand containers.
func DefaultLimits() Limits {
	return Limits{Spaces: 4096, Objects: 1 << 14, Connections: 1 << 14, Descriptors: 1 << 18, PerSpace: 3 * time.Second}
}

// Machine reads the machine. A namespace that cannot be read is told of in the
// Host and is no error; that of the machine itself is.
func Machine(ctx context.Context, c Config) (machine.Host, error) {
	l := &looker{Config: c, known: map[uint64]*candidate{}, read: map[uint64]*reading{}}
	defer l.close()
	if err := l.find(); err != nil {
		return machine.Host{}, fmt.Errorf("look at machine: %w", err)
	}
	if err := l.visit(ctx, l.list[0]); err != nil {
		return machine.Host{}, fmt.Errorf("look at machine: %w", err)
	}
	for _, c := range l.list[1:] {
		if l.All || c.ours {
			l.want(ctx, c)
		}
	}
	l.followAll(ctx)
	if l.Earlier != nil {
		l.lose(ctx)
		l.followAll(ctx)
	}
	if l.Owners {
		l.owners(ctx)
	}
	return l.host(), nil
}

// looker is one look.
type looker struct {
	Config
	list   []*candidate // the machine's own first
	known  map[uint64]*candidate
	read   map[uint64]*reading
	order  []*reading
	queue  []*reading // whose links were not followed yet
	unread []machine.Unread
}

// followAll reads what links lead to, too, and what leads on from there.
func (l *looker) followAll(ctx context.Context) {
	for len(l.queue) > 0 {
		r := l.queue[0]
		l.queue = l.queue[1:]
		if r.kept {
			l.lead(ctx, r)
		} else {
			l.follow(ctx, r)
		}
	}
}

// want visits a namespace and notes when it cannot be read.
func (l *looker) want(ctx context.Context, c *candidate) {
	if l.read[c.inode] != nil || c.failed {
		return
	}
	if err := l.visit(ctx, c); err != nil {
		c.failed = true
		l.unread = append(l.unread, machine.Unread{Inode: c.inode, Holders: c.holders, Cause: err.Error()})
	}
}

// visit opens and reads a namespace. One that is gone by now was not there.
func (l *looker) visit(ctx context.Context, c *candidate) error {
	if len(l.order) >= l.Limits.Spaces {
		return fmt.Errorf("there are more than %d network namespaces", l.Limits.Spaces)
	}
	f, err := c.open()
	if errors.Is(err, os.ErrNotExist) {
		c.failed = true
		return nil
	}
	if err != nil {
		return err
	}
	r := &reading{candidate: c, file: f}
	if c.name == machine.HostName {
		r.before = l.Earlier.space(c)
	}
	r.space = c.blank()
	r.space.Cookie, _ = netns.Cookie(f) // 0, not known, before Linux 5.14
	within, cancel := context.WithTimeout(ctx, l.Limits.PerSpace)
	defer cancel()
	if !l.keep(r) {
		if err := r.readAll(within, l.Limits); err != nil {
			_ = f.Close()
			return err
		}
	}
	l.read[c.inode], l.order, l.queue = r, append(l.order, r), append(l.queue, r)
	return nil
}

// blank is a namespace of which nothing was read yet.
func (c *candidate) blank() machine.Space {
	return machine.Space{Name: c.name, Inode: c.inode, Holders: c.holders, Sysctls: map[string]string{}, Counters: map[string]uint64{}}
}

// host puts together what was read.
func (l *looker) host() machine.Host {
	h := machine.Host{Unread: l.unread}
	for _, r := range l.order {
		if l.Held != nil && r == l.order[0] {
			r.hold(l.Held)
		}
		h.Spaces = append(h.Spaces, r.space)
	}
	return h
}

// hold takes from the listeners those that only hold a port.
func (r *reading) hold(held func(machine.Listener) (*machine.Passing, bool)) {
	r.space.Listeners = slices.DeleteFunc(r.space.Listeners, func(s machine.Listener) bool {
		passes, is := held(s)
		if !is {
			return false
		}
		s.Passes = passes
		r.space.Held = append(r.space.Held, s)
		return true
	})
}

func (l *looker) close() {
	for _, r := range l.order {
		_ = r.file.Close()
	}
	for _, c := range l.list {
		if c.file != nil {
			_ = c.file.Close()
		}
	}
}
