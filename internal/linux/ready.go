//go:build linux

package linux

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
)

// readyNamespaces is how many namespaces are kept ready, each with some four
// descriptors.
const readyNamespaces = 12

// ready is a namespace of no sandbox yet, furnished with what every sandbox has:
// to make all that takes longer than to connect it. Nothing but open files keeps
// it: it is bound nowhere, so that nobody sees it and it goes with the daemon,
// however that ends.
type ready struct {
	space *space
	has   []kernel.Object // as in furniture
	udp   *net.UDPConn
	tcp   *net.TCPListener
}

func (r *ready) close() {
	r.closeSockets()
	r.space.close()
}

func (r *ready) closeSockets() {
	if r.udp != nil {
		_ = r.udp.Close()
	}
	if r.tcp != nil {
		_ = r.tcp.Close()
	}
	r.udp, r.tcp = nil, nil
}

// noSandbox is the namespace that furniture is written for.
const noSandbox = ""

// furniture are the objects that ops make in new namespaces and that are not of
// one sandbox alone: its loopback, its table, its resolver. They are by namespace.
func furniture(ops []kernel.Op) map[string][]kernel.Object {
	out := map[string][]kernel.Object{}
	for _, op := range ops {
		if o := common(op.Object); o != nil && op.Verb == kernel.Create {
			ns := op.Object.Key().NS
			out[ns] = append(out[ns], o)
		}
	}
	return out
}

// common is an object as every sandbox has it, or nil.
func common(o kernel.Object) kernel.Object {
	switch o := o.(type) {
	case kernel.Up:
		if o.NS = noSandbox; o.Dev == loopback {
			return o
		}
	case kernel.Hook:
		if o.NS = noSandbox; o.Dev == loopback {
			return o
		}
	case kernel.Table:
		o.NS = noSandbox
		return o
	case kernel.Chain:
		o.NS = noSandbox
		return o
	case kernel.Socket:
		o.NS = noSandbox
		return o
	}
	return nil
}

const loopback = "lo"

// store keeps namespaces ready. It fills itself in the background when one was
// taken out, with what that one had to have.
type readyStore struct {
	mu     sync.Mutex
	wanted []kernel.Object
	list   []*ready
	wake   chan struct{} // nil until something was asked for
	stop   context.CancelFunc
	ended  sync.WaitGroup
}

// take gives a namespace with the furniture, if there is one.
func (s *readyStore) take(want []kernel.Object) *ready {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.wanted, want) {
		for _, r := range s.list {
			r.close()
		}
		s.wanted, s.list = want, nil
	}
	if len(s.list) == 0 {
		return nil
	}
	r := s.list[0]
	s.list = slices.Delete(s.list, 0, 1)
	return r
}

// refill begins to make ready what is lacking.
func (s *readyStore) refill(fill func(context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wake == nil {
		ctx, cancel := context.WithCancel(context.Background())
		s.wake, s.stop = make(chan struct{}, 1), cancel
		s.ended.Go(func() { fill(ctx) })
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// lacking says what the next namespace has to have; nil when there are enough.
func (s *readyStore) lacking() []kernel.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) >= readyNamespaces {
		return nil
	}
	return s.wanted
}

// put adds a namespace, if it is still what is wanted.
func (s *readyStore) put(r *ready) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.wanted, r.has) {
		r.close()
		return
	}
	s.list = append(s.list, r)
}

func (s *readyStore) close() {
	s.mu.Lock()
	stop := s.stop
	s.mu.Unlock()
	if stop != nil {
		stop()
		s.ended.Wait()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.list {
		r.close()
	}
	s.list = nil
}

// fill makes namespaces ready until ctx ends, while no pass is under way: both
// need the kernel's lock of links, and somebody waits for the pass. What cannot be
// made ready will be tried again by the op that needs it, which tells of it.
func (k *Kernel) fill(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.ready.wake:
		}
		for ctx.Err() == nil && !k.passing.Load() {
			want := k.ready.lacking()
			if want == nil {
				break
			}
			r, err := k.furnish(ctx, want)
			if err != nil && ctx.Err() == nil {
				k.Log.Warn("make a namespace ready", "err", err)
			}
			if err != nil {
				break
			}
			k.ready.put(r)
		}
	}
}

// furnish makes a namespace with the objects.
func (k *Kernel) furnish(ctx context.Context, objects []kernel.Object) (*ready, error) {
	f, err := netns.New()
	if err != nil {
		return nil, err
	}
	r := &ready{space: &space{file: f, buffers: &k.nftBuffers}, has: objects}
	if r.space.rt, err = rt.DialWith(int(f.Fd()), &k.rtBuffers); err == nil {
		r.space.rt.LimitLists(sandboxRoutes)
		err = prepare(f)
	}
	if err == nil {
		r.space.news, err = rt.Listen(int(f.Fd()), rt.GroupIPv6Address)
	}
	if err == nil {
		err = r.furnish(ctx, k)
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *ready) furnish(ctx context.Context, k *Kernel) error {
	var ops []kernel.Op
	for _, o := range r.has {
		var err error
		switch o := o.(type) {
		case kernel.Up:
			var index int
			if index, err = r.space.indexOf(ctx, o.Dev); err == nil {
				up := true
				err = r.space.rt.SetLink(ctx, index, rt.LinkChange{Up: &up})
			}
		case kernel.Socket:
			r.udp, r.tcp, err = openSockets(r.space.file, o)
		default:
			ops = append(ops, kernel.Op{Verb: kernel.Create, Object: o})
		}
		if err != nil {
			return err
		}
	}
	if len(ops) == 0 {
		return nil
	}
	c, err := r.space.rules()
	if err != nil {
		return err
	}
	err = k.change(ctx, c, ops)
	r.space.nft = nil
	return errors.Join(err, c.Close())
}

// prepare sets in a new namespace what links that come later take over, so that
// each need not be told: no routes from advertisements of neighbours, as a
// sandbox takes none. And a link that goes shall not be followed by a
// notification for each of its IPv6 routes, as it is not for those of IPv4: the
// kernel looks for each whether somebody listens in any other namespace.
func prepare(ns *os.File) error {
	for _, p := range []string{"net/ipv6/conf/default/accept_ra=0", "net/ipv6/route/skip_notify_on_dev_down=1"} {
		key, value, _ := strings.Cut(p, "=")
		err := sysctl.Write(ns, key, value)
		if err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// Otherwise it is a kernel without IPv6, or without the parameter.
	}
	return nil
}

// foreseen is what the ops of a pass will make, and what of it is there already.
type foreseen struct {
	furniture map[string][]kernel.Object // of new namespaces, by name
	given     map[string]*ready          // namespaces that were ready, by name
	spaces    *spaces                    // that were opened
}

// Foresee tells of all ops that several calls of Apply are going to carry out,
// until the function is called: a new namespace can then be one that has already
// what later ops make, and namespaces are opened once for all calls. It has to be
// called by the one who calls Apply.
func (k *Kernel) Foresee(ops []kernel.Op) (end func()) {
	k.foreseen = &foreseen{furniture: furniture(ops), given: map[string]*ready{}, spaces: k.spaces()}
	k.passing.Store(true)
	return func() {
		for _, r := range k.foreseen.given {
			r.closeSockets() // that no op has taken
		}
		k.foreseen.spaces.close()
		k.foreseen = nil
		k.passing.Store(false)
		if k.ready.lacking() != nil {
			k.ready.refill(k.fill)
		}
	}
}

// newNamespace makes and binds the namespace of a sandbox, or binds one that is
// ready.
func (a *applier) newNamespace(name string) error {
	path := a.k.Path(name)
	r := a.k.ready.take(a.k.foreseen.furniture[name])
	if r == nil {
		err := netns.Create(path)
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		if err == nil {
			var sp *space
			if sp, err = a.spaces.at(name); err == nil {
				err = prepare(sp.file)
			}
		}
		return err
	}
	if err := netns.Bind(int(r.space.file.Fd()), path); err != nil {
		r.close()
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	a.spaces.open[name] = r.space
	a.k.foreseen.given[name] = r
	return nil
}

// has reports whether what an op makes came with its namespace.
func (a *applier) has(op kernel.Op) bool {
	r := a.k.foreseen.given[op.Object.Key().NS]
	if r == nil || op.Verb != kernel.Create {
		return false
	}
	o := common(op.Object)
	return o != nil && slices.Contains(r.has, o)
}
