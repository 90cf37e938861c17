// Package engine is the verbs: each checks, chooses what is to be chosen,
// commits to the store in one transaction, and waits until the kernel holds it.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/ipam"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/reconcile"
	"github.com/towpath/towpath/internal/store"
)

// Namespaces is what the engine asks of the host about namespaces.
type Namespaces interface {
	// Adopt identifies the namespace behind f and keeps a handle on it until it
	// is bound. It refuses what is no network namespace, and the host's own.
	Adopt(f *os.File) (cookie uint64, err error)
	// Path is where the namespace of a sandbox is bound.
	Path(sandbox string) string
}

// Processes is what the engine asks of the host about processes.
type Processes interface {
	Identify(pid int) (api.Process, error)
	// Exited closes the channel when the process is gone; at once if it is already.
	Exited(ctx context.Context, p api.Process) <-chan struct{}
	// Kill kills the process unless it is gone.
	Kill(p api.Process) error
	// KillIn kills the processes in the namespace bound at path, once still says
	// that it is the one that is meant.
	KillIn(path string, still func() bool) error
}

// Config is what an Engine works with.
type Config struct {
	Store      store.Store
	Namespaces Namespaces
	Processes  Processes
	// Prefixes are the destinations of the host's live routes that are not ours.
	Prefixes func(context.Context) ([]ipam.Taken, error)
	// Live reads what the kernel shows of a sandbox now.
	Live func(context.Context, *api.Sandbox, []*api.Endpoint) (*api.Live, error)
	// Names is told by what sandboxes are to be found: what comes, when it is in
	// the kernel and before the verb returns; what goes, at once.
	Names Names
	// Resolve answers as if a sandbox had asked for a name, once a type.
	Resolve func(ctx context.Context, sandbox, name, kind string) ([]api.Answer, error)
	// HostResolv is what the host's resolv.conf says now.
	HostResolv func() Resolv
	// Foreign reads the forward chains of other programs, the same pointer as long
	// as nothing changed; nil: nothing is said of them.
	Foreign func(context.Context) (*kernel.Foreign, error)
	// PublishAt is the address to publish at where none is given; the zero
	// address is any.
	PublishAt netip.Addr
	// PortFree reports whether ports of the host can be had.
	PortFree func(proto string, at netip.Addr, first, count uint16) bool
	// Locals tells the host's own addresses from others; nil: nobody knows.
	Locals func(context.Context) (func(netip.Addr) bool, error)
	// Pools are where subnets come from; nil is the default.
	Pools []ipam.Pool
	// BootID changes with every boot of the machine.
	BootID string
	About  api.Version
	// Tell is told of every verb that was carried out.
	Tell func(api.Event)
	Log  *slog.Logger
}

// Engine holds the view of all objects and changes it.
type Engine struct {
	Config
	loop    *reconcile.Loop
	foreign chains
	life    context.Context // the daemon's, for what outlives a request

	queue queue      // verbs that wait for mu
	mu    sync.Mutex // who holds it decides and commits, for all in the queue
	meta  meta       // guarded by mu
	// together is how many verbs the last commit was of; guarded by mu.
	together int
	// now is replaced by each commit and never changed; so readers need no lock.
	now atomic.Pointer[snapshot]

	naming sync.Mutex           // held while Names is told
	hidden map[driver.Unit]bool // guarded by naming
}

type snapshot struct {
	view driver.View
	rev  int64
}

// meta is what allocation remembers besides the objects themselves.
type meta struct {
	revisions map[string]int64        // of each key, for compare-and-set
	subnets   map[string]netip.Prefix // last given, by "4" and "6"
	leases    map[string]netip.Addr   // last given, by network and subnet
	ula       netip.Prefix            // the host's own /48
	port      uint16                  // last ephemeral host port given
	boot      string
}

// New makes an Engine; Prepare and Start bring it to life.
func New(c Config) *Engine {
	e := &Engine{Config: c, hidden: map[driver.Unit]bool{}}
	if e.Tell == nil {
		e.Tell = func(api.Event) {}
	}
	if e.Names == nil {
		e.Names = noNames{}
	}
	if e.HostResolv == nil {
		e.HostResolv = func() Resolv { return Resolv{} }
	}
	if e.Pools == nil {
		e.Pools = ipam.DefaultPools4()
	}
	e.now.Store(&snapshot{view: driver.NewView()})
	return e
}

// Prepare loads the store, drops what did not outlive a reboot, and makes the
// default network. It comes before the loop's first pass: what is not in the
// view is not wanted, and would be removed.
func (e *Engine) Prepare(ctx context.Context) error {
	e.life = ctx
	if err := e.load(ctx); err != nil {
		return fmt.Errorf("load store: %w", err)
	}
	if err := e.afterBoot(ctx); err != nil {
		return fmt.Errorf("forget the boot before: %w", err)
	}
	view, _ := e.View()
	e.name(slices.Collect(maps.Keys(view.Sandboxes))...)
	if view.Networks[api.DefaultNetwork] != nil {
		return nil
	}
	spec := api.NetworkSpec{Name: api.DefaultNetwork, Device: api.DefaultDevice, IPv6: true}
	if _, err := e.commit(ctx, func(d *draft) error { return e.draftNetwork(ctx, d, spec) }); err != nil {
		return fmt.Errorf("make default network: %w", err)
	}
	return nil
}

// Start waits for the first pass of the loop, which is running by now.
func (e *Engine) Start(ctx context.Context, loop *reconcile.Loop) error {
	e.loop = loop
	view, rev := e.View()
	err := loop.Wait(ctx, rev, driver.Units(view)...)
	if ctx.Err() != nil {
		return err
	}
	if err != nil { // the rest works; the loop goes on trying
		e.Log.Error("the first pass left something undone", "err", err)
	}
	for _, s := range view.Sandboxes {
		e.follow(ctx, s)
	}
	return nil
}

// View is the current view and its revision: what the loop plans from.
func (e *Engine) View() (driver.View, int64) {
	s := e.now.Load()
	return s.view, s.rev
}

// afterBoot forgets what was true of an earlier boot only: namespaces that
// were not ours to make, and the values of sysctls, which the boot has reset.
func (e *Engine) afterBoot(ctx context.Context) error {
	_, err := e.commit(ctx, func(d *draft) error {
		if d.meta.boot == e.BootID {
			return nil
		}
		for _, s := range d.view.Sandboxes {
			if d.meta.boot != "" && s.Origin != api.OriginMade {
				e.Log.Info("drop sandbox of an earlier boot", "sandbox", s.Name, "origin", s.Origin)
				d.deleteSandbox(s.Name)
			}
		}
		for name := range d.view.Saved {
			d.deleteSaved(name)
		}
		d.setBoot(e.BootID)
		return nil
	})
	return err
}

// preview says what a decision would do to the kernel, without committing it.
func (e *Engine) preview(ctx context.Context, decide func(*draft) error) (driver.View, []string, error) {
	e.mu.Lock()
	view, _ := e.View()
	d := newDraft(view, e.meta)
	err := decide(d)
	e.mu.Unlock()
	if err != nil {
		return driver.View{}, nil, err
	}
	ops, err := e.loop.Preview(ctx, d.view, d.units...)
	return d.view, lines(ops), err
}

// carry commits a decision and waits until the units it touched are in the kernel.
func (e *Engine) carry(ctx context.Context, decide func(*draft) error) (outcome, error) {
	out, err := e.commit(ctx, decide)
	if err != nil {
		return out, err
	}
	err = e.loop.Wait(ctx, out.rev, out.units...)
	if err == nil && len(out.fresh) > 0 {
		e.reveal(out.fresh)
		e.name(out.names...)
	}
	return out, err
}

// create carries out a decision that creates an object. If the kernel refuses
// it, undo, which deletes the object again, takes everything back.
func (e *Engine) create(ctx context.Context, decide, undo func(*draft) error) (outcome, error) {
	out, err := e.carry(ctx, decide)
	if err == nil || out.rev == 0 {
		return out, err
	}
	// The caller may be gone; what it began is taken back all the same.
	if _, uerr := e.carry(context.WithoutCancel(ctx), undo); uerr != nil {
		e.Log.Error("take back", "err", uerr)
	}
	e.reveal(out.fresh)
	return out, kernelError(err)
}

// kernelError gives what the loop reports a code.
func kernelError(err error) error {
	var e *api.Error
	var missing *kernel.MissingError
	var taken *kernel.TakenError
	var parameter *kernel.ParameterError
	switch {
	case errors.As(err, &e):
		return err
	case errors.As(err, &missing):
		return api.Errorf(api.Unsupported, "%w", err).WithFix("load the module, or run a kernel that has it")
	case errors.As(err, &parameter):
		dir := "/proc/sys/" + strings.Replace(path.Dir(parameter.Sysctl.Name), parameter.Sysctl.Dev, "default", 1)
		return api.Errorf(api.Invalid, "%w", err).WithFix("choose another, or leave it out; see: ls %s", dir)
	case errors.As(err, &taken):
		return api.Errorf(api.Conflict, "%w", err)
	case errors.Is(err, context.DeadlineExceeded):
		return api.Errorf(api.Timeout, "%w", err).WithFix("the change is not in the kernel yet; see the daemon's log")
	default:
		return api.Errorf(api.Failed, "%w", err)
	}
}

// SaveSysctls records values from before our first change.
func (e *Engine) SaveSysctls(ctx context.Context, before map[string]string) error {
	_, err := e.commit(ctx, func(d *draft) error {
		for name, value := range before {
			d.putSaved(name, value)
		}
		return nil
	})
	return err
}

// Version says what this daemon is.
func (e *Engine) Version(context.Context) api.Version { return e.About }

// Plan is the wanted state as text.
func (e *Engine) Plan(context.Context) (string, error) {
	return e.loop.Desired().String(), nil
}

// Diff is the ops that would be applied now.
func (e *Engine) Diff(ctx context.Context) ([]string, error) {
	ops, err := e.loop.Diff(ctx)
	return lines(ops), err
}

func lines[T fmt.Stringer](ops []T) []string {
	out := make([]string, len(ops))
	for i, op := range ops {
		out[i] = op.String()
	}
	return out
}

// Count is how many objects of a kind there are: "network", "sandbox",
// "endpoint", or "failing" for units that the kernel does not hold.
func (e *Engine) Count(kind string) int {
	v, _ := e.View()
	switch kind {
	case "network":
		return len(v.Networks)
	case "sandbox":
		return len(v.Sandboxes)
	case "endpoint":
		return len(v.Endpoints)
	default:
		return e.loop.Failing()
	}
}

// status of a unit as users see it.
func (e *Engine) status(units ...driver.Unit) *api.Status {
	i := slices.IndexFunc(units, func(u driver.Unit) bool { return e.loop.Status(u) != nil })
	if i < 0 {
		return &api.Status{State: "ready"}
	}
	return &api.Status{State: "error", Message: e.loop.Status(units[i]).Error()}
}
