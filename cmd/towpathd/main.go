// Command towpathd is Towpath's daemon: it keeps the kernel's network
// configuration in the namespace it runs in as the objects in its store ask.
// This is the only place where its parts are put together.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/engine"
	"github.com/towpath/towpath/internal/event"
	"github.com/towpath/towpath/internal/fault"
	"github.com/towpath/towpath/internal/fdstore"
	"github.com/towpath/towpath/internal/firewalld"
	"github.com/towpath/towpath/internal/ipam"
	"github.com/towpath/towpath/internal/linux"
	"github.com/towpath/towpath/internal/metrics"
	"github.com/towpath/towpath/internal/ports"
	"github.com/towpath/towpath/internal/reconcile"
	"github.com/towpath/towpath/internal/server"
	"github.com/towpath/towpath/internal/store"
	"github.com/towpath/towpath/internal/store/bolt"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	c, code := parse(os.Args[1:], os.Stdout, os.Stderr)
	if c == nil {
		os.Exit(code)
	}
	c.store, c.kept = fdstore.Open()
	if err := c.run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "towpathd: %v\n", err)
		os.Exit(1)
	}
}

// adviseStore adds to what is wrong with a store what to do; it was left as it is.
func adviseStore(err error) error {
	for _, known := range []struct {
		err    error
		advice string
	}{
		{bolt.ErrLocked, "stop the other, or give another --state-dir"},
		{bolt.ErrNewer, "start that version, or put back the copy that lies beside the file"},
		{bolt.ErrCorrupt, "put back a copy, or move the file away to begin without networks"},
		{bolt.ErrReadOnly, "let its owner write to it: chmod u+w"},
		{unix.EROFS, "mount it for writing, or give another --state-dir"},
		{unix.EACCES, "start towpathd as the owner of the file, or give another --state-dir"},
		{unix.ENOTDIR, "give another --state-dir"},
		{unix.ENOENT, "give another --state-dir"}, // where directories cannot be made, as in /proc
	} {
		if errors.Is(err, known.err) {
			return fmt.Errorf("%w; %s", err, known.advice)
		}
	}
	return err
}

// run is the daemon's life. What it set up stays when it ends.
func (c *config) run(ctx context.Context) error {
	log := slog.New(c.handler(os.Stderr))
	points, err := faultPoints()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.stateDir, 0o700); err != nil {
		return adviseStore(fmt.Errorf("make state directory: %w", err))
	}
	db, err := bolt.Open(ctx, filepath.Join(c.stateDir, "towpath.db"))
	if err != nil {
		return adviseStore(err)
	}
	defer db.Close() //nolint:errcheck // each commit is on disk when it returns
	held := ports.New()
	defer held.Close() //nolint:errcheck // ends with the process
	zones := &firewalld.Client{}
	defer zones.Close() //nolint:errcheck // ends with the process
	events := &event.Log{}
	r := c.newResolver(func(sandbox string) string { return filepath.Join(c.runDir, "netns", sandbox) }, c.store, events.Tell, log)
	defer r.Close() //nolint:errcheck // ends with the process
	k, err := linux.Open(linux.Config{
		RunDir: c.runDir, Ports: holder{held}, Resolver: r, Protect: c.protect, Cooperate: c.cooperate, Zones: zones,
		Pass: points.Hit, Log: log,
	})
	if err != nil {
		return fmt.Errorf("open kernel: %w", err)
	}
	defer k.Close() //nolint:errcheck // ends with the process
	boot, err := bootID()
	if err != nil {
		return err
	}
	e := c.engine(points.Store(db), k, r, boot, log)
	e.Tell = events.Tell
	switch {
	case c.cleanup:
		return errors.Join(e.Cleanup(ctx, k), k.LetGo())
	case c.tryOut:
		ops, err := e.Check(ctx, k)
		for _, op := range ops {
			fmt.Println(op)
		}
		return err
	}
	return c.serve(ctx, e, k, held, r, events, log)
}

// engine puts the engine together with what it asks of the host.
func (c *config) engine(s store.Store, k *linux.Kernel, r *resolver, boot string, log *slog.Logger) *engine.Engine {
	return engine.New(engine.Config{
		Store: s, Namespaces: namespaces{k}, Processes: processes{},
		Prefixes: func(ctx context.Context) ([]ipam.Taken, error) { return hostPrefixes(ctx, k) },
		Live: func(ctx context.Context, s *api.Sandbox, eps []*api.Endpoint) (*api.Live, error) {
			return live(ctx, k, s, eps)
		},
		Foreign: k.Foreign,
		Names:   r, HostResolv: r.hostResolv, Resolve: r.resolve,
		PublishAt: c.publishAt, PortFree: portFree, Locals: k.Locals,
		Pools: c.pools, BootID: boot, Log: log,
		About: api.Version{Version: version, Kernel: kernelRelease(), Boot: boot},
	})
}

// serve runs the loop and answers requests until ctx ends.
func (c *config) serve(ctx context.Context, e *engine.Engine, k *linux.Kernel, held *ports.Holder, r *resolver, events *event.Log, log *slog.Logger) error {
	l, err := server.Listen(filepath.Join(c.runDir, "towpath.sock"), c.group)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := e.Prepare(ctx); err != nil {
		return errors.Join(fmt.Errorf("start: %w", err), l.Close())
	}
	view, _ := e.View()
	r.takeOver(c.kept, view.Sandboxes)
	c.resumePorts(held, log)
	loop := reconcile.New(k, e, log)
	counts := metrics.New(version, e.Count)
	counts.Names(r.counts)
	counts.PassedOn(func() (open, total, refused int) { t := held.Traffic(); return t.Open, t.Total, t.Refused })
	quiet := &idle{free: debug.FreeOSMemory}
	defer quiet.stop()
	loop.Report = func(r reconcile.Report) { counts.Pass(r.Ops, r.Failed, r.Took); quiet.busy() }
	loop.Tell = func(ev api.Event) { counts.Event(ev.Action); events.Tell(ev) }
	// The loop outlives the server, so that verbs under way end as they should.
	turning, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := loop.Run(turning); err != nil {
			cancel(err)
		}
	}()
	defer func() { stop(); <-done }()
	if err := e.Start(ctx, loop); err != nil {
		return errors.Join(fmt.Errorf("start: %w", cmp.Or(context.Cause(ctx), err)), l.Close()) // why the loop ended
	}
	if err := held.Discard(); err != nil {
		log.Warn("let go of kept ports that nobody asks for", "err", err)
	}
	log.Info("ready", "version", version, "socket", l.Addr().String())
	tell(daemon.SdNotifyReady, log)
	stopping := make(chan struct{})
	context.AfterFunc(ctx, func() { defer close(stopping); tell(daemon.SdNotifyStopping, log) })
	seen, err := c.sight(ctx, e, loop, k, held)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	go watchdog(ctx, func() { loop.Facts() }, log) // has to wait for a pass to end
	h := server.New(server.Config{Engine: e, Events: events, Sight: seen, Metrics: counts.Handler(), Count: counts.Request, Log: log})
	err = server.Serve(ctx, l, h, log)
	stop()
	<-done
	cancel(nil)
	<-stopping
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// faultPoints are for the crash tests: TOWPATHD_FAULT_LOG names a file that
// gets the name of each point passed, TOWPATHD_FAULT_AT the point to die at.
func faultPoints() (*fault.Points, error) {
	name, at := os.Getenv("TOWPATHD_FAULT_LOG"), 0
	if s := os.Getenv("TOWPATHD_FAULT_AT"); s != "" {
		if _, err := fmt.Sscan(s, &at); err != nil {
			return nil, fmt.Errorf("TOWPATHD_FAULT_AT=%q is not a number", s)
		}
	}
	if name == "" && at == 0 {
		return nil, nil
	}
	if name == "" {
		return fault.New(nil, at), nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("open fault log: %w", err)
	}
	return fault.New(f, at), nil
}

// bootID changes with every boot (random(4)).
func bootID() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("identify boot: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
