package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/ipam"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/kernel/fake"
	"github.com/towpath/towpath/internal/reconcile"
	"github.com/towpath/towpath/internal/store"
	"github.com/towpath/towpath/internal/store/mem"
)

// rig is an engine over a fake kernel and a store in memory.
type rig struct {
	*testing.T
	*Engine
	kernel *fake.Kernel
	store  store.Store
	gone   chan struct{} // closed when the process of a `run` ends
	boot   string
	names  *book
	killed []string // by Kill and KillIn
}

// inBubble runs a test with a fresh rig, in a bubble of time.
func inBubble(t *testing.T, f func(*rig)) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		t.Cleanup(func() { _ = s.Close() })
		r := &rig{T: t, kernel: fake.New(), store: s, gone: make(chan struct{}), boot: "boot-1"}
		stop := r.start()
		f(r)
		stop()
	})
}

// Path, Adopt, Identify and Exited are what the host would say.
func (r *rig) Path(sandbox string) string { return "/run/towpath/netns/" + sandbox }

func (r *rig) Adopt(*os.File) (uint64, error) { return 4711, nil }

func (r *rig) Identify(pid int) (api.Process, error) { return api.Process{PID: pid, Start: 1}, nil }

func (r *rig) Exited(context.Context, api.Process) <-chan struct{} { return r.gone }

// Kill and KillIn tell whom they would end.
func (r *rig) Kill(p api.Process) error {
	r.killed = append(r.killed, fmt.Sprint(p.PID))
	return nil
}

func (r *rig) KillIn(path string, still func() bool) error {
	r.killed = append(r.killed, fmt.Sprint(path, " ", still()))
	return nil
}

// start starts an engine, as the daemon does.
func (r *rig) start() (stop func()) {
	ctx, cancel := context.WithCancel(r.Context())
	r.names = &book{pages: map[string]string{}}
	r.Engine = New(Config{
		Names: r.names,
		Store: r.store, Namespaces: r, Processes: r, BootID: r.boot, Log: slog.New(slog.DiscardHandler),
		Prefixes: func(context.Context) ([]ipam.Taken, error) {
			return []ipam.Taken{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Owner: "the host's route over eth0"}}, nil
		},
		Live: func(context.Context, *api.Sandbox, []*api.Endpoint) (*api.Live, error) { return &api.Live{}, nil },
	})
	r.check(r.Prepare(ctx))
	loop := reconcile.New(r.kernel, r.Engine, slog.New(slog.DiscardHandler))
	done := make(chan error)
	go func() { done <- loop.Run(ctx) }()
	r.check(r.Start(ctx, loop))
	return func() {
		cancel()
		r.check(<-done)
	}
}

func (r *rig) check(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// clean checks that kernel and plan agree.
func (r *rig) clean() {
	r.Helper()
	synctest.Wait()
	ops, err := r.Diff(r.Context())
	if err != nil || len(ops) > 0 {
		r.Errorf("diff: %v %v", ops, err)
	}
}

func (r *rig) network(spec api.NetworkSpec) api.Network {
	r.Helper()
	n, _, err := r.CreateNetwork(r.Context(), spec, false)
	r.check(err)
	return n
}

func (r *rig) sandbox(name string, networks ...api.EndpointSpec) api.Sandbox {
	r.Helper()
	s, _, err := r.CreateSandbox(r.Context(), api.SandboxSpec{Name: name, Networks: networks}, api.Caller{}, false)
	r.check(err)
	return s
}

func TestLifeOfANetwork(t *testing.T) {
	inBubble(t, func(r *rig) {
		n := r.network(api.NetworkSpec{Name: "front", IPv6: true})
		if n.Device != "tp-front" || len(n.Subnets) != 2 || !n.Has4() || !n.Has6() || n.Status.State != "ready" {
			t.Errorf("network %+v", n)
		}
		s := r.sandbox("web", api.EndpointSpec{Network: "front"})
		ep := s.Endpoints[0]
		if ep.Ifname != "eth0" || ep.HostIfname != "v-web-eth0" || len(ep.Addresses) != 2 || !n.Subnets[0].Subnet.Contains(ep.Addresses[0].Addr()) {
			t.Errorf("endpoint %+v", ep)
		}
		r.clean()
		if _, err := r.RemoveNetwork(r.Context(), "front", false, false); api.CodeOf(err) != api.InUse || !strings.Contains(err.Error(), "web") {
			t.Errorf("remove in use: %v", err)
		}
		if _, err := r.RemoveNetwork(r.Context(), "FRONT", true, false); err != nil {
			t.Error(err)
		}
		r.clean()
		s, err := r.Sandbox(r.Context(), "web")
		if err != nil || len(s.Endpoints) != 0 {
			t.Errorf("after the network went: %+v, %v", s, err)
		}
	})
}

func TestAddressesAreNotGivenAgainAtOnce(t *testing.T) {
	inBubble(t, func(r *rig) {
		n := r.network(api.NetworkSpec{Name: "front"})
		first := r.sandbox("a", api.EndpointSpec{Network: "front"}).Endpoints[0].Addresses[0]
		_, err := r.RemoveSandbox(r.Context(), "a", api.Caller{}, false, false)
		r.check(err)
		if second := r.sandbox("b", api.EndpointSpec{Network: "front"}).Endpoints[0].Addresses[0]; second == first {
			t.Errorf("%s was given again at once", first)
		}
		_, err = r.RemoveNetwork(r.Context(), "front", true, false)
		r.check(err)
		if again := r.network(api.NetworkSpec{Name: "front"}); again.Subnets[0].Subnet == n.Subnets[0].Subnet {
			t.Errorf("%s was given again at once", n.Subnets[0].Subnet)
		}
	})
}

func TestRefusals(t *testing.T) {
	inBubble(t, func(r *rig) {
		p, a := netip.MustParsePrefix, netip.MustParseAddr
		r.network(api.NetworkSpec{Name: "front", Subnets: []netip.Prefix{p("192.0.2.0/29")}, AuxAddresses: map[string]netip.Addr{"router": a("192.0.2.3")}})
		r.sandbox("web", api.EndpointSpec{Network: "front", IP: a("192.0.2.2"), MAC: "02:00:00:00:00:01"})
		connect := func(spec api.EndpointSpec) func() error {
			return func() error {
				spec.Network = "front"
				_, _, err := r.Connect(r.Context(), "web", spec, false)
				return err
			}
		}
		create := func(spec api.NetworkSpec) func() error {
			return func() error { _, _, err := r.CreateNetwork(r.Context(), spec, false); return err }
		}
		for name, tc := range map[string]struct {
			do   func() error
			code api.Code
			want string
		}{
			"network twice":     {create(api.NetworkSpec{Name: "Front"}), api.AlreadyExists, "network front exists"},
			"overlaps network":  {create(api.NetworkSpec{Name: "x", Subnets: []netip.Prefix{p("192.0.2.0/24")}}), api.Conflict, "192.0.2.0/29 of network front"},
			"overlaps route":    {create(api.NetworkSpec{Name: "x", Subnets: []netip.Prefix{p("10.1.0.0/24")}}), api.Conflict, "route over eth0"},
			"gateway outside":   {create(api.NetworkSpec{Name: "x", Subnets: []netip.Prefix{p("198.51.100.0/24")}, Gateways: []netip.Addr{a("192.0.2.9")}}), api.Invalid, "lies in none"},
			"address taken":     {connect(api.EndpointSpec{IP: a("192.0.2.2")}), api.Conflict, "taken by sandbox web"},
			"address outside":   {connect(api.EndpointSpec{IP: a("192.0.2.20")}), api.Invalid, "outside of network front"},
			"address kept":      {connect(api.EndpointSpec{IP: a("192.0.2.3")}), api.Conflict, "router"},
			"address gateway":   {connect(api.EndpointSpec{IP: a("192.0.2.1")}), api.Conflict, "gateway"},
			"address broadcast": {connect(api.EndpointSpec{IP: a("192.0.2.7")}), api.Invalid, "broadcast"},
			"no such family":    {connect(api.EndpointSpec{IP6: a("fd00::2")}), api.Invalid, "family"},
			"mac taken":         {connect(api.EndpointSpec{MAC: "02:00:00:00:00:01"}), api.Conflict, "MAC address"},
			"interface taken":   {connect(api.EndpointSpec{Ifname: "eth0"}), api.AlreadyExists, "eth0"},
			"no such network": {func() error {
				_, _, err := r.Connect(r.Context(), "web", api.EndpointSpec{Network: "no"}, false)
				return err
			}, api.NotFound, "does not exist"},
			"no such sandbox": {func() error { _, err := r.RemoveSandbox(r.Context(), "no", api.Caller{}, false, false); return err }, api.NotFound, "does not exist"},
			"default network": {func() error { _, err := r.RemoveNetwork(r.Context(), "bridge", true, false); return err }, api.Invalid, "default network"},
			"not connected":   {func() error { _, err := r.Disconnect(r.Context(), "web", "bridge", "", false, false); return err }, api.NotFound, "not connected"},
		} {
			err := tc.do()
			if api.CodeOf(err) != tc.code || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: got %s: %v; want %s with %q", name, api.CodeOf(err), err, tc.code, tc.want)
			}
		}
		for range 3 { // .4, .5, .6
			_, _, err := r.Connect(r.Context(), "web", api.EndpointSpec{Network: "front"}, false)
			r.check(err)
		}
		if err := connect(api.EndpointSpec{})(); api.CodeOf(err) != api.Exhausted || !strings.Contains(err.Error(), "held by web") {
			t.Errorf("full network: %v", err)
		}
		r.clean()
	})
}

// TestKernelRefusal: the verb fails with the kernel's words, and nothing remains.
func TestKernelRefusal(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.network(api.NetworkSpec{Name: "front"})
		before, _, err := r.store.List(r.Context(), sandboxesKey)
		r.check(err)
		r.kernel.Refuse(func(op kernel.Op) error {
			if op.Verb == kernel.Create && op.Object.Key().Kind == kernel.KindRoute {
				return errors.New("network is unreachable")
			}
			return nil
		})
		_, _, err = r.CreateSandbox(r.Context(), api.SandboxSpec{Name: "web", Networks: []api.EndpointSpec{{Network: "front"}}}, api.Caller{}, false)
		if api.CodeOf(err) != api.Failed || !strings.Contains(err.Error(), "create sandbox web") || !strings.Contains(err.Error(), "network is unreachable") {
			t.Errorf("got %v", err)
		}
		r.clean()
		after, _, err := r.store.List(r.Context(), sandboxesKey)
		r.check(err)
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("the store keeps something (-before +after):\n%s", diff)
		}
	})
}

// TestRefusalCodes: what the kernel lacks, and a name that others have, have
// codes of their own.
func TestRefusalCodes(t *testing.T) {
	for code, refusal := range map[api.Code]error{
		api.Unsupported: &kernel.MissingError{What: "bridges", Option: "CONFIG_BRIDGE", Err: errors.New("operation not supported")},
		api.Conflict:    &kernel.TakenError{Name: "tp-front", Kind: "dummy"},
	} {
		inBubble(t, func(r *rig) {
			r.kernel.Refuse(func(op kernel.Op) error {
				if op.Verb == kernel.Create && op.Object.Key().Name == "tp-front" {
					return refusal
				}
				return nil
			})
			_, _, err := r.CreateNetwork(r.Context(), api.NetworkSpec{Name: "front"}, false)
			if api.CodeOf(err) != code || !strings.Contains(err.Error(), refusal.Error()) {
				t.Errorf("code %s, want %s: %v", api.CodeOf(err), code, err)
			}
			r.clean()
		})
	}
}

// TestDryRun: the ops are told, nothing is changed.
func TestDryRun(t *testing.T) {
	inBubble(t, func(r *rig) {
		_, before, err := r.store.List(r.Context(), "")
		r.check(err)
		_, ops, err := r.CreateNetwork(r.Context(), api.NetworkSpec{Name: "front"}, true)
		r.check(err)
		if !strings.Contains(strings.Join(ops, "\n"), "+ host: link tp-front type bridge") {
			t.Errorf("ops: %q", ops)
		}
		_, after, err := r.store.List(r.Context(), "")
		r.check(err)
		if _, err := r.Network(r.Context(), "front"); api.CodeOf(err) != api.NotFound || before != after {
			t.Errorf("a dry run changed something: %v, revision %d to %d", err, before, after)
		}
		r.clean()
	})
}

// TestRestartAndReboot: a restart keeps all; a reboot keeps networks and what
// the daemon made, and forgets the rest.
func TestRestartAndReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		defer s.Close() //nolint:errcheck // memory
		r := &rig{T: t, kernel: fake.New(), store: s, gone: make(chan struct{}), boot: "boot-1"}
		stop := r.start()
		made := r.sandbox("made")
		_, _, err := r.CreateSandbox(r.Context(), api.SandboxSpec{Name: "run", Run: true}, api.Caller{PID: 7}, false)
		r.check(err)
		_, _, err = r.CreateSandbox(r.Context(), api.SandboxSpec{Name: "adopted", Adopt: true}, api.Caller{Netns: os.Stdin}, false)
		r.check(err)
		stop()

		r.kernel.Calls()
		stop = r.start()
		if ops, _ := r.kernel.Calls(); len(ops) != 0 {
			t.Errorf("a restart applied %v", ops)
		}
		stop()

		r.boot, r.kernel = "boot-2", fake.New()
		stop = r.start()
		list, err := r.Sandboxes(r.Context())
		r.check(err)
		if len(list) != 1 || list[0].Name != "made" || list[0].Endpoints[0].Addresses[0] != made.Endpoints[0].Addresses[0] {
			t.Errorf("after the reboot: %+v", list)
		}
		r.clean()
		stop()
	})
}

// TestCleanup: everything of ours goes, what was before comes back.
func TestCleanup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		defer s.Close() //nolint:errcheck // memory
		r := &rig{T: t, kernel: fake.New(), store: s, gone: make(chan struct{}), boot: "boot-1"}
		before := r.kernel.State().String()
		stop := r.start()
		r.sandbox("web")
		stop()
		r.check(New(r.Engine.Config).Cleanup(r.Context(), r.kernel))
		if diff := cmp.Diff(before, r.kernel.State().String()); diff != "" {
			t.Errorf("not as before the first start (-before +after):\n%s", diff)
		}
		stop = r.start()
		if _, err := r.Sandbox(r.Context(), "web"); err != nil {
			t.Errorf("the objects must stay in the store: %v", err)
		}
		r.clean()
		stop()
	})
}

// TestBridgeIsFull: the kernel's limit is told before it is met.
func TestBridgeIsFull(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.network(api.NetworkSpec{Name: "big", Subnets: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/16")}})
		specs := make([]api.EndpointSpec, bridgePorts)
		for i := range specs {
			specs[i] = api.EndpointSpec{Network: "big"}
		}
		r.sandbox("many", specs...)
		r.sandbox("late")
		_, _, err := r.Connect(r.Context(), "late", api.EndpointSpec{Network: "big"}, false)
		if api.CodeOf(err) != api.Exhausted || !strings.Contains(err.Error(), "a bridge has 1023 ports") {
			t.Errorf("got %v", err)
		}
		r.clean()
	})
}
