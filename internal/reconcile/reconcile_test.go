package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/kernel/fake"
)

// intent is a Source that a test writes.
type intent struct {
	mu   sync.Mutex
	view driver.View
	rev  int64
}

func (s *intent) View() (driver.View, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view, s.rev
}

func (s *intent) Gather() {}

func (s *intent) SaveSysctls(_ context.Context, before map[string]string) error {
	s.change(func(v *driver.View) { maps.Copy(v.Saved, before) })
	return nil
}

// change makes a new view and revision.
func (s *intent) change(f func(*driver.View)) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.view.Clone()
	f(&v)
	s.view, s.rev = v, s.rev+1
	return s.rev
}

func addNetwork(name string, i int) func(*driver.View) {
	return func(v *driver.View) {
		v.Networks[name] = &api.Network{Name: name, Device: "tp-" + name, MAC: "02:00:00:00:00:01", ICC: true, Subnets: []api.Subnet{{
			Subnet: netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", i)), Gateway: netip.MustParseAddr(fmt.Sprintf("10.0.%d.1", i)),
		}}}
	}
}

func addSandbox(name, network string, last int) func(*driver.View) {
	return func(v *driver.View) {
		v.Sandboxes[name] = &api.Sandbox{Name: name, Origin: api.OriginMade}
		v.Endpoints[driver.EndpointID{Sandbox: name, Ifname: "eth0"}] = &api.Endpoint{
			Sandbox: name, Network: network, Ifname: "eth0", HostIfname: "v-" + name, MAC: "02:00:00:00:01:01",
			Addresses: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.1.%d/24", last))}, Gateways: []netip.Addr{netip.MustParseAddr("10.0.1.1")},
		}
	}
}

// bench is a loop that runs over a fake kernel.
type bench struct {
	*testing.T
	kernel *fake.Kernel
	source *intent
	loop   *Loop
}

func start(t *testing.T, f *fake.Kernel) *bench {
	src := &intent{view: driver.NewView()}
	l := New(f, src, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	b := &bench{t, f, src, l}
	synctest.Wait()
	return b
}

// do changes intent and waits for it.
func (b *bench) do(f func(*driver.View), units ...driver.Unit) error {
	return b.loop.Wait(b.Context(), b.change(f, units...), units...)
}

// change changes intent as the engine does, and gives the revision.
func (b *bench) change(f func(*driver.View), units ...driver.Unit) (rev int64) {
	b.loop.Change(func() { rev = b.source.change(f) }, units...)
	return rev
}

// agrees checks that the kernel holds the plan and the loop says so.
func (b *bench) agrees() {
	b.Helper()
	synctest.Wait()
	ops, err := b.loop.Diff(b.Context())
	if err != nil || len(ops) > 0 {
		b.Errorf("diff: %v, %v", ops, err)
	}
	want := b.loop.Desired()
	if diff := cmp.Diff(want.String(), b.kernel.State().String()); diff != "" {
		b.Errorf("kernel differs from plan (-plan +kernel):\n%s", diff)
	}
}

func TestConvergesAndUndoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, fake.New())
		b.must(b.do(addNetwork("front", 1), driver.HostUnit, driver.NetworkUnit("front")))
		b.must(b.do(addSandbox("web", "front", 2), driver.SandboxUnit("web"), "endpoint/web/eth0"))
		b.agrees()
		if got := b.source.view.Saved["net/ipv4/ip_forward"]; got != "0" {
			t.Errorf("ip_forward before us was saved as %q, want 0", got)
		}
		b.must(b.do(func(v *driver.View) {
			delete(v.Sandboxes, "web")
			delete(v.Endpoints, driver.EndpointID{Sandbox: "web", Ifname: "eth0"})
			delete(v.Networks, "front")
		}, driver.HostUnit, driver.NetworkUnit("front"), driver.SandboxUnit("web"), "endpoint/web/eth0"))
		b.agrees()
		if got := b.kernel.State()[kernel.Sysctl{NS: kernel.Host, Name: "net/ipv4/ip_forward"}.Key()]; got.(kernel.Sysctl).Value != "0" {
			t.Errorf("ip_forward is not put back: %v", got)
		}
	})
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// TestCostFollowsTheChange: connecting reads and changes one unit, not all.
func TestCostFollowsTheChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, fake.New())
		b.must(b.do(addNetwork("front", 1), driver.HostUnit, driver.NetworkUnit("front")))
		for i := range 50 {
			name := fmt.Sprintf("s%d", i)
			b.must(b.do(addSandbox(name, "front", i+2), driver.SandboxUnit(name), driver.Unit("endpoint/"+name+"/eth0")))
		}
		b.kernel.Calls()
		b.must(b.do(addSandbox("web", "front", 99), driver.SandboxUnit("web"), "endpoint/web/eth0"))
		ops, reads := b.kernel.Calls()
		for _, op := range ops {
			if s := op.String(); !strings.Contains(s, "web") && !strings.Contains(s, "10.0.1.99") {
				t.Errorf("an op of another unit: %s", s)
			}
		}
		if len(ops) == 0 || reads > 0 {
			t.Errorf("%d ops, %d objects read; want some and none", len(ops), reads)
		}
		b.agrees()
	})
}

// TestRefusedTransactionIsBisected: three networks come at once, the kernel
// refuses an element of one; the others are in, the guilty one is named, and
// its bridge is not plugged in.
func TestRefusedTransactionIsBisected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fake.New()
		bad := errors.New("element refused")
		f.Refuse(func(op kernel.Op) error {
			if e, ok := op.Object.(kernel.Element); ok && strings.Contains(e.Elem, "tp-b") && op.Verb == kernel.Create {
				return bad
			}
			return nil
		})
		b := start(t, f)
		units := []driver.Unit{driver.HostUnit, "network/a", "network/b", "network/c"}
		rev := b.change(func(v *driver.View) {
			addNetwork("a", 1)(v)
			addNetwork("b", 2)(v)
			addNetwork("c", 3)(v)
		}, units...)
		if err := b.loop.Wait(t.Context(), rev, "network/a", "network/c"); err != nil {
			t.Errorf("innocent networks failed: %v", err)
		}
		if err := b.loop.Wait(t.Context(), rev, "network/b"); !errors.Is(err, bad) {
			t.Errorf("the guilty network got %v, want %v", err, bad)
		}
		for name, want := range map[string]bool{"tp-a": true, "tp-b": false, "tp-c": true} {
			if _, got := f.State()[kernel.Link{NS: kernel.Host, Name: name}.Key()]; got != want {
				t.Errorf("bridge %s there: %v, want %v", name, got, want)
			}
		}
		f.Refuse(func(kernel.Op) error { return nil })
		<-time.After(3 * time.Second) // of the bubble: the retry is due
		synctest.Wait()
		b.must(b.loop.Wait(t.Context(), rev, units...))
		b.agrees()
	})
}

// TestNothingWithoutTheHostsRules: when the kernel refuses the host's own rules,
// what they guard stays out, counts as failed, and comes when they are in.
func TestNothingWithoutTheHostsRules(t *testing.T) {
	for name, kind := range map[string]kernel.Kind{"rules": kernel.KindChain, "parameters": kernel.KindSysctl} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fake.New()
				bad := errors.New("no such facility")
				f.Refuse(func(op kernel.Op) error {
					if k := op.Object.Key(); k.Kind == kind && k.NS == kernel.Host && op.Verb != kernel.Delete {
						return bad
					}
					return nil
				})
				b := start(t, f)
				units := []driver.Unit{driver.HostUnit, "network/front", "sandbox/web", "endpoint/web/eth0"}
				rev := b.change(func(v *driver.View) {
					addNetwork("front", 1)(v)
					addSandbox("web", "front", 2)(v)
				}, units...)
				for _, u := range units {
					failed := b.loop.Wait(t.Context(), rev, u) != nil
					_, there := f.State()[kernel.Link{NS: kernel.Host, Name: "tp-front"}.Key()]
					if kind == kernel.KindChain && (!failed || there) {
						t.Errorf("%s failed: %v, bridge there: %v; want neither in the kernel", u, failed, there)
					}
				}
				f.Refuse(func(kernel.Op) error { return nil })
				<-time.After(3 * time.Second) // of the bubble: the retry is due
				synctest.Wait()
				b.must(b.loop.Wait(t.Context(), rev, units...))
				b.agrees()
			})
		})
	}
}

// TestHealsWhatOthersTake: an event names an object that is gone.
func TestHealsWhatOthersTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, fake.New())
		b.must(b.do(addNetwork("front", 1), driver.HostUnit, driver.NetworkUnit("front")))
		b.must(b.do(addSandbox("web", "front", 2), driver.SandboxUnit("web"), "endpoint/web/eth0"))
		key := kernel.Link{NS: kernel.Host, Name: "v-web"}.Key()
		b.must(b.kernel.Take(key))
		b.kernel.Events <- kernel.Event{Keys: []kernel.Key{key}, Why: "link v-web was deleted"}
		b.agrees()
	})
}

// TestAdoptsAfterRestart: a second loop over what the first left applies nothing.
func TestReasons(t *testing.T) {
	all := ""
	for _, why := range []string{"", "a", "b", "a", "", "c", "d", "e"} {
		all = reasons(all, why)
	}
	if all != "a, and b, and c, and d" {
		t.Errorf("%q", all)
	}
}

func TestAdoptsAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, fake.New())
		b.must(b.do(addNetwork("front", 1), driver.HostUnit, driver.NetworkUnit("front")))
		garbage := kernel.Link{NS: kernel.Host, Name: "v-old", Type: "veth", Mark: "towpath endpoint/old/eth0"}
		b.kernel.Calls()
		second := New(b.kernel, b.source, slog.New(slog.DiscardHandler))
		b.must(second.Once(t.Context()))
		if ops, _ := b.kernel.Calls(); len(ops) != 0 {
			t.Errorf("adoption applied %v", ops)
		}
		b.kernel.Put(garbage)
		b.must(New(b.kernel, b.source, slog.New(slog.DiscardHandler)).Once(t.Context()))
		b.agrees()
	})
}

// TestFailureOfOneUnitIsItsOwn: the verb's undo leaves nothing behind.
func TestFailureOfOneUnitIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fake.New()
		b := start(t, f)
		b.must(b.do(addNetwork("front", 1), driver.HostUnit, driver.NetworkUnit("front")))
		f.Refuse(func(op kernel.Op) error {
			if r, ok := op.Object.(kernel.Route); ok && r.NS == "web" && op.Verb == kernel.Create {
				return errors.New("no route to host")
			}
			return nil
		})
		err := b.do(addSandbox("web", "front", 2), driver.SandboxUnit("web"), "endpoint/web/eth0")
		if err == nil || !strings.Contains(err.Error(), "no route to host") {
			t.Fatalf("got %v, want the kernel's words", err)
		}
		b.must(b.do(func(v *driver.View) {
			delete(v.Sandboxes, "web")
			delete(v.Endpoints, driver.EndpointID{Sandbox: "web", Ifname: "eth0"})
		}, driver.SandboxUnit("web"), "endpoint/web/eth0"))
		b.agrees()
	})
}

// TestHostileSandbox: who takes things away for ever gets them back ever more
// slowly, is told of, and does not keep others waiting.
func TestHostileSandbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, fake.New())
		var mu sync.Mutex
		told := map[string]int{}
		b.loop.Tell = func(e api.Event) {
			mu.Lock()
			defer mu.Unlock()
			told[e.Kind+" "+e.Name+" "+e.Action]++
		}
		b.must(b.do(addNetwork("front", 1), driver.HostUnit, driver.NetworkUnit("front")))
		b.must(b.do(addSandbox("evil", "front", 2), driver.SandboxUnit("evil"), "endpoint/evil/eth0"))
		key := kernel.Link{NS: kernel.Host, Name: "v-evil"}.Key()
		repairs := 0
		for range 600 { // a minute
			if b.kernel.Take(key) == nil {
				repairs++
				b.kernel.Events <- kernel.Event{Keys: []kernel.Key{key}, Why: "link v-evil was deleted"}
			}
			<-time.After(100 * time.Millisecond)
			synctest.Wait()
		}
		if repairs < freeRepairs || repairs > 15 {
			t.Errorf("%d repairs in a minute, want a few", repairs)
		}
		from := time.Now()
		b.must(b.do(addSandbox("good", "front", 3), driver.SandboxUnit("good"), "endpoint/good/eth0"))
		if waited := time.Since(from); waited > 0 {
			t.Errorf("another verb waited %s", waited)
		}
		<-time.After(2 * maxPatience)
		b.agrees()
		mu.Lock()
		defer mu.Unlock()
		if told["sandbox evil throttle"] != 1 || told["endpoint evil/eth0 heal"] == 0 {
			t.Errorf("told: %v", told)
		}
	})
}
