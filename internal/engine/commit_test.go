package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/store"
)

// gate is a store that counts commits, and refuses what a test tells it to.
type gate struct {
	store.Store
	mu      sync.Mutex
	commits []store.Txn
	refuse  func(store.Txn) error
}

func (g *gate) Commit(ctx context.Context, t store.Txn) (int64, error) {
	g.mu.Lock()
	g.commits = append(g.commits, t)
	err := g.refuse(t)
	g.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return g.Store.Commit(ctx, t)
}

// behind puts a gate before the rig's store.
func (r *rig) behind() *gate {
	g := &gate{Store: r.store, refuse: func(store.Txn) error { return nil }}
	r.Store = g
	return g
}

func (r *rig) seen() driver.View {
	v, _ := r.View()
	return v
}

// TestCommitTogether: verbs that arrive while another commits share one
// transaction, and each has its own answer.
func TestCommitTogether(t *testing.T) {
	inBubble(t, func(r *rig) {
		g := r.behind()
		r.network(api.NetworkSpec{Name: "front"})
		create := func(name string) *request {
			spec := api.SandboxSpec{Name: name, Networks: []api.EndpointSpec{{Network: "front"}}}
			return &request{ctx: r.Context(), decide: func(d *draft) error { return r.draftSandbox(d, api.Sandbox{Name: name}, spec) }}
		}
		remove := func(name string) *request {
			return &request{ctx: r.Context(), decide: func(d *draft) error { d.deleteSandbox(name); return nil }}
		}
		gone, cancel := context.WithCancel(r.Context())
		cancel()
		late := create("late")
		late.ctx = gone
		list := []*request{create("a"), create("b"), create("A"), late, create("c"), remove("b"), create("d")}
		g.commits = nil
		for _, q := range list {
			r.queue.join(q)
		}
		_, err := r.commit(r.Context(), func(*draft) error { return nil })
		r.check(err)
		for i, want := range []api.Code{"", "", api.AlreadyExists, "", "", "", ""} {
			if i != 3 && (list[i].err != nil || want != "") && api.CodeOf(list[i].err) != want {
				t.Errorf("request %d: %v, want code %q", i, list[i].err, want)
			}
			if !list[i].done {
				t.Errorf("request %d has no answer", i)
			}
		}
		if !errors.Is(late.err, context.Canceled) {
			t.Errorf("who left before its turn: %v", late.err)
		}
		if len(g.commits) != 2 {
			t.Errorf("%d commits, want one for a, b and c, and one for what removes b", len(g.commits))
		}
		if list[1].out.view.Sandboxes["b"] == nil {
			t.Error("b is not in the view that it was answered from")
		}
		if list[0].out.rev != list[4].out.rev || list[5].out.rev == list[0].out.rev {
			t.Errorf("revisions %d, %d, %d", list[0].out.rev, list[4].out.rev, list[5].out.rev)
		}
		seen := map[string]string{}
		for id, e := range r.seen().Endpoints {
			if other := seen[e.Addresses[0].String()]; other != "" {
				t.Errorf("%v and %s both have %s", id, other, e.Addresses[0])
			}
			seen[e.Addresses[0].String()] = id.Sandbox
		}
		if len(seen) != 3 {
			t.Errorf("endpoints of %v, want a, c and d", seen)
		}
		r.clean()
	})
}

// TestRefusedTogether: what the store refuses of one is not the others' fault.
func TestRefusedTogether(t *testing.T) {
	inBubble(t, func(r *rig) {
		g := r.behind()
		full := errors.New("no space left on device")
		g.refuse = func(t store.Txn) error {
			for _, p := range t.Puts {
				if p.Key == sandboxesKey+"s3" {
					return full
				}
			}
			return nil
		}
		var list []*request
		for i := range 6 {
			name := fmt.Sprintf("s%d", i)
			q := &request{ctx: r.Context(), decide: func(d *draft) error { d.putSandbox(&api.Sandbox{Name: name}); return nil }}
			list = append(list, q)
			r.queue.join(q)
		}
		_, err := r.commit(r.Context(), func(*draft) error { return nil })
		r.check(err)
		for i, q := range list {
			if refused := errors.Is(q.err, full); refused != (i == 3) {
				t.Errorf("request %d: %v", i, q.err)
			}
		}
		if v := r.seen(); v.Sandboxes["s3"] != nil || len(v.Sandboxes) != 5 {
			t.Errorf("sandboxes %v", v.Sandboxes)
		}
		synctest.Wait()
	})
}

// TestGather: a pass waits for those who come right behind a crowd, not after a
// verb that came alone, and not for ever.
func TestGather(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.network(api.NetworkSpec{Name: "front"})
		made := 0
		verb := func() *request {
			made++
			spec := api.SandboxSpec{Name: fmt.Sprintf("s%d", made), Networks: []api.EndpointSpec{{Network: "front"}}}
			return &request{ctx: r.Context(), decide: func(d *draft) error { return r.draftSandbox(d, api.Sandbox{Name: spec.Name}, spec) }}
		}
		together := func(n int) {
			t.Helper()
			for range n - 1 {
				r.queue.join(verb())
			}
			_, err := r.commit(r.Context(), verb().decide)
			r.check(err)
		}
		gather := func() time.Duration {
			began := time.Now()
			r.Gather()
			return time.Since(began)
		}
		together(1)
		if took := gather(); took != 0 {
			t.Errorf("after one verb: waited %s", took)
		}
		together(crowd)
		if took := gather(); took != gatherPause {
			t.Errorf("after a crowd: waited %s, want %s", took, gatherPause)
		}
		together(crowd)
		stop := make(chan struct{})
		var coming sync.WaitGroup
		coming.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(gatherPause / 2):
					together(1)
				}
			}
		})
		if took := gather(); took < gatherLimit || took > gatherLimit+gatherPause {
			t.Errorf("while verbs keep coming: waited %s, want %s", took, gatherLimit)
		}
		close(stop)
		coming.Wait()
	})
}
