package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/kernel"
)

// book notes what Names is told, as "web front/eth0 80".
type book struct {
	mu    sync.Mutex
	pages map[string]string
}

// Put notes a sandbox.
func (b *book) Put(s *api.Sandbox, networks map[string]*api.Network) {
	b.mu.Lock()
	defer b.mu.Unlock()
	words := []string{s.Name}
	for _, e := range s.Endpoints {
		words = append(words, networks[e.Network].Name+"/"+e.Ifname)
	}
	for _, p := range s.Publications {
		words = append(words, fmt.Sprint(p.Port))
	}
	b.pages[s.Name] = strings.Join(words, " ")
}

// Drop forgets one.
func (b *book) Drop(sandbox string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.pages, sandbox)
}

func (b *book) has(words string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, page := range b.pages {
		if page == words {
			return true
		}
	}
	return false
}

// TestNamesComeLastAndGoFirst: while an op of a sandbox is carried out, what it
// brings cannot be found yet, and what it takes not any more.
func TestNamesComeLastAndGoFirst(t *testing.T) {
	inBubble(t, func(r *rig) {
		b := r.names
		r.network(api.NetworkSpec{Name: "front"})
		r.network(api.NetworkSpec{Name: "back"})
		var while []string
		r.kernel.Refuse(func(op kernel.Op) error {
			if strings.Contains(op.Object.Key().String(), "web") || op.Object.Key().Kind == kernel.KindElement {
				b.mu.Lock()
				while = append(while, b.pages["web"])
				b.mu.Unlock()
			}
			return nil
		})
		step := func(what string, do func() error, during, after string) {
			t.Helper()
			while = nil
			if err := do(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if got := slices.Compact(while); len(got) != 1 || got[0] != during {
				t.Errorf("%s: while it was done there was %q, want %q", what, got, during)
			}
			if b.mu.Lock(); b.pages["web"] != after {
				t.Errorf("%s: afterwards there is %q, want %q", what, b.pages["web"], after)
			}
			b.mu.Unlock()
		}
		ctx := r.Context()
		step("create", func() error { r.sandbox("web", api.EndpointSpec{Network: "front"}); return nil }, "web", "web front/eth0")
		step("connect", func() error {
			_, _, err := r.Connect(ctx, "web", api.EndpointSpec{Network: "back"}, false)
			return err
		}, "web front/eth0", "web front/eth0 back/eth1")
		port := []api.Publication{{Proto: "tcp", Port: 80, HostPort: 8080, Count: 1}}
		step("publish", func() error { _, _, err := r.Publish(ctx, "web", port, false); return err },
			"web front/eth0 back/eth1", "web front/eth0 back/eth1 80")
		step("unpublish", func() error { _, err := r.Unpublish(ctx, "web", port, false); return err },
			"web front/eth0 back/eth1", "web front/eth0 back/eth1")
		step("disconnect", func() error { _, err := r.Disconnect(ctx, "web", "front", "", false, false); return err }, "web back/eth1", "web back/eth1")
		step("remove", func() error { _, err := r.RemoveSandbox(ctx, "web", api.Caller{}, false, false); return err }, "", "")
		if len(r.hidden) != 0 {
			t.Errorf("still hidden: %v", r.hidden)
		}
	})
}

// TestWhatIsRefusedIsNeverFound, not for a moment.
func TestWhatIsRefusedIsNeverFound(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.network(api.NetworkSpec{Name: "front"})
		r.sandbox("web")
		r.kernel.Refuse(func(op kernel.Op) error {
			if r.names.has("web bridge/eth0 front/eth1") {
				t.Errorf("found at %s", op)
			}
			if strings.HasPrefix(op.String(), "+ web: link eth1") {
				return errors.New("refused")
			}
			return nil
		})
		if _, _, err := r.Connect(r.Context(), "web", api.EndpointSpec{Network: "front"}, false); err == nil {
			t.Fatal("connected")
		}
		if !r.names.has("web bridge/eth0") || len(r.hidden) != 0 {
			t.Errorf("afterwards there is %q, hidden %v", r.names.pages, r.hidden)
		}
	})
}

// TestNamesAfterRestart: they are told before the first pass.
func TestNamesAfterRestart(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.sandbox("web")
		r.sandbox("db")
		stop := r.start()
		defer stop()
		want := map[string]string{"web": "web bridge/eth0", "db": "db bridge/eth0"}
		if diff := cmp.Diff(want, r.names.pages); diff != "" {
			t.Errorf("names (-want +got):\n%s", diff)
		}
	})
}
