package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/client"
)

// soakTime is how long the clients work: half a minute, or TOWPATH_SOAK.
func soakTime(t *testing.T) time.Duration {
	text := os.Getenv("TOWPATH_SOAK")
	if text == "" {
		return 30 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("TOWPATH_SOAK=%q is not a duration", text)
	}
	return d
}

// TestSoak: 32 clients do random verbs at once, each against a model of what
// must come of them. In the end models, daemon and kernel agree, and cleanup
// leaves the namespace as it was.
func TestSoak(t *testing.T) {
	w := newWorld(t)
	w.settle()
	before := w.snapshot()
	w.start()
	w.must("network", "create", "shared", "--subnet", "10.99.0.0/16")
	end := time.Now().Add(soakTime(t))
	models := make([]*model, 32)
	var work sync.WaitGroup
	for i := range models {
		m := newModel(i, filepath.Join(w.run, "towpath.sock"))
		models[i] = m
		work.Go(func() { m.work(t, end) })
	}
	work.Wait()
	verbs := 0
	var want, have []string
	for _, m := range models {
		verbs += m.verbs
		want = append(want, m.list()...)
	}
	have = w.inventory()
	slices.Sort(want)
	if !slices.Equal(want, have) {
		t.Errorf("the daemon has %v\nthe models have %v", have, want)
	}
	t.Logf("%d verbs of 32 clients", verbs)
	w.clean()
	w.kill()
	w.start()
	w.clean()
	w.kill()
	w.takeDown(before)
}

// inventory is what the daemon has, as the models write it.
func (w *world) inventory() []string {
	c := client.New(filepath.Join(w.run, "towpath.sock"))
	defer c.Close()
	var out []string
	networks, err := c.Networks(w.Context())
	w.check(err)
	for _, n := range networks {
		if n.Name != api.DefaultNetwork && n.Name != "shared" {
			out = append(out, "network "+n.Name)
		}
	}
	sandboxes, err := c.Sandboxes(w.Context())
	w.check(err)
	for _, s := range sandboxes {
		out = append(out, "sandbox "+s.Name)
		for _, e := range s.Endpoints {
			out = append(out, "endpoint "+s.Name+" on "+e.Network)
		}
	}
	slices.Sort(out)
	return out
}

// model is what one client believes: its own networks and sandboxes, and which
// of them are connected. Others' do not matter to it; the network "shared" does.
type model struct {
	*client.Client
	id        int
	random    *rand.Rand
	networks  map[string]bool
	sandboxes map[string]map[string]bool // to the networks they are on
	verbs     int
}

func newModel(id int, socket string) *model {
	return &model{
		Client: client.New(socket), id: id, random: rand.New(rand.NewPCG(uint64(id), 1)),
		networks: map[string]bool{}, sandboxes: map[string]map[string]bool{},
	}
}

func (m *model) list() []string {
	var out []string
	for n := range m.networks {
		out = append(out, "network "+n)
	}
	for s, on := range m.sandboxes {
		out = append(out, "sandbox "+s)
		for n := range on {
			out = append(out, "endpoint "+s+" on "+n)
		}
	}
	return out
}

// work does random verbs until the end, and stops at the first surprise.
func (m *model) work(t *testing.T, end time.Time) {
	defer m.Close()
	for time.Now().Before(end) && !t.Failed() {
		verb, want, err := m.verb(t)
		m.verbs++
		got := api.Code("")
		if err != nil {
			got = api.CodeOf(err)
		}
		if got != want {
			t.Errorf("client %d: %s: got %q (%v), want %q", m.id, verb, got, err, want)
		}
	}
}

// verb does one and says what must come of it: "" for success.
func (m *model) verb(t *testing.T) (string, api.Code, error) {
	ctx := t.Context()
	network := fmt.Sprintf("n%d-%d", m.id, m.random.IntN(2))
	sandbox := fmt.Sprintf("s%d-%d", m.id, m.random.IntN(3))
	on, hasSandbox := m.sandboxes[sandbox]
	target := network
	if m.random.IntN(2) == 0 {
		target = "shared"
	}
	hasTarget := target == "shared" || m.networks[target]
	switch m.random.IntN(7) {
	case 0:
		_, err := m.CreateNetwork(ctx, api.NetworkSpec{Name: network, IPv6: m.random.IntN(2) == 0, Internal: m.random.IntN(4) == 0})
		want := expect(m.networks[network], api.AlreadyExists)
		m.networks[network] = true
		return "create network " + network, want, err
	case 1:
		err := m.RemoveNetwork(ctx, network, false)
		switch {
		case !m.networks[network]:
			return "remove network " + network, api.NotFound, err
		case m.used(network):
			return "remove network " + network, api.InUse, err
		}
		delete(m.networks, network)
		return "remove network " + network, "", err
	case 2:
		return m.createSandbox(t, sandbox, target, hasSandbox, hasTarget)
	case 3:
		err := m.RemoveSandbox(ctx, sandbox, false)
		delete(m.sandboxes, sandbox)
		return "remove sandbox " + sandbox, expect(!hasSandbox, api.NotFound), err
	case 4, 5:
		if on[target] {
			return "nothing", "", nil
		}
		_, err := m.Connect(ctx, sandbox, api.EndpointSpec{Network: target})
		if hasSandbox && hasTarget {
			on[target] = true
		}
		return "connect " + sandbox + " to " + target, expect(!hasSandbox || !hasTarget, api.NotFound), err
	default:
		err := m.Disconnect(ctx, sandbox, target, "", false)
		was := on[target]
		delete(on, target)
		return "disconnect " + sandbox + " from " + target, expect(!was, api.NotFound), err
	}
}

func (m *model) createSandbox(t *testing.T, sandbox, target string, hasSandbox, hasTarget bool) (string, api.Code, error) {
	_, err := m.CreateSandbox(t.Context(), api.SandboxSpec{Name: sandbox, Networks: []api.EndpointSpec{{Network: target}}}, nil)
	switch {
	case hasSandbox:
		return "create sandbox " + sandbox, api.AlreadyExists, err
	case !hasTarget:
		return "create sandbox " + sandbox, api.NotFound, err
	}
	m.sandboxes[sandbox] = map[string]bool{target: true}
	return "create sandbox " + sandbox, "", err
}

func (m *model) used(network string) bool {
	for _, on := range m.sandboxes {
		if on[network] {
			return true
		}
	}
	return false
}

func expect(failing bool, code api.Code) api.Code {
	if failing {
		return code
	}
	return ""
}

// TestManyRequestsAtOnce: each of ten thousand gets an answer, and the daemon is
// well afterwards.
func TestManyRequestsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.start()
	var all sync.WaitGroup
	var mu sync.Mutex
	failed := map[string]int{}
	shared := client.New(filepath.Join(w.run, "towpath.sock"))
	defer shared.Close()
	for i := range 10000 {
		all.Go(func() {
			var err error
			switch i % 4 {
			case 0:
				_, err = shared.Version(t.Context())
			case 1:
				_, err = shared.Networks(t.Context())
			case 2:
				_, err = shared.Sandboxes(t.Context())
			case 3:
				if err = shared.RemoveSandbox(t.Context(), "nobody", false); api.CodeOf(err) == api.NotFound {
					err = nil
				}
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[err.Error()]++
			}
		})
	}
	all.Wait()
	for text, n := range failed {
		t.Errorf("%d requests: %s", n, text)
	}
	w.clean()
}
