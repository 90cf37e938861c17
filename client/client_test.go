package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/client"
	"github.com/towpath/towpath/internal/server/servertest"
)

func TestRoundTrip(t *testing.T) {
	c := client.New(servertest.Start(t, servertest.New()))
	defer c.Close()
	ctx := t.Context()
	subnet := netip.MustParsePrefix("10.5.0.0/24")
	spec := api.NetworkSpec{Name: "front", Subnets: []netip.Prefix{subnet}, MTU: 1400}
	if ops, err := c.DryRun().CreateNetwork(ctx, spec); err != nil || !slices.Equal(ops, []string{"+ link tp-front"}) {
		t.Fatalf("dry run: %v %v", ops, err)
	}
	made, err := c.CreateNetwork(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	read, err := c.Network(ctx, "front")
	if diff := cmp.Diff(made, read, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" || err != nil || made.MTU != 1400 {
		t.Errorf("made and read differ: %v\n%s", err, diff)
	}
	if _, err := c.CreateSandbox(ctx, api.SandboxSpec{Name: "web"}, nil); err != nil {
		t.Fatal(err)
	}
	ip := netip.MustParseAddr("10.5.0.9")
	p, err := c.Connect(ctx, "web", api.EndpointSpec{Network: "front", IP: ip})
	if err != nil || p.Ifname != "eth1" || p.Addresses[0].Addr() != ip {
		t.Errorf("connect: %+v %v", p, err)
	}
	if ops, err := c.DryRun().Disconnect(ctx, "web", "", "eth1", false); err != nil || len(ops) != 1 {
		t.Errorf("dry run of disconnect: %v %v", ops, err)
	}
	if err := c.Disconnect(ctx, "web", "front", "", true); err != nil {
		t.Errorf("disconnect: %v", err)
	}
	if err := c.RemoveSandbox(ctx, "web", false); err != nil {
		t.Errorf("remove sandbox: %v", err)
	}
	if err := c.RemoveNetwork(ctx, "front", true); err != nil {
		t.Errorf("remove network: %v", err)
	}
	if all, err := c.Sandboxes(ctx); err != nil || len(all) != 0 {
		t.Errorf("left: %v %v", all, err)
	}
	if text, err := c.Plan(ctx); err != nil || text != "link towpath0 type bridge\n" {
		t.Errorf("plan: %q %v", text, err)
	}
	if v, err := c.Version(ctx); err != nil || v.Version != "test" {
		t.Errorf("version: %+v %v", v, err)
	}
}

func TestProblemsComeBackTyped(t *testing.T) {
	c := client.New(servertest.Start(t, servertest.New()))
	defer c.Close()
	_, err := c.Sandbox(t.Context(), "none/../such")
	want := &api.Error{Code: api.NotFound, Op: "inspect sandbox none/../such", Detail: "sandbox none/../such does not exist", Fix: "see: towpath sandbox ls"}
	var got *api.Error
	if !errors.As(err, &got) || !cmp.Equal(got, want, cmpopts.IgnoreUnexported(api.Error{})) {
		t.Errorf("got %#v", err)
	}
	for _, name := range []string{"", ".", ".."} {
		if err := c.RemoveNetwork(t.Context(), name, false); api.CodeOf(err) != api.Invalid {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func TestNamespaceGoesAlong(t *testing.T) {
	engine := servertest.New()
	var inode uint64
	engine.Seen = func(from api.Caller) {
		var st syscall.Stat_t
		if from.Netns != nil && syscall.Fstat(int(from.Netns.Fd()), &st) == nil {
			inode = st.Ino
		}
	}
	c := client.New(servertest.Start(t, engine))
	f, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	// A body of several socket buffers: the descriptor goes with its beginning only.
	labels := map[string]string{"long": strings.Repeat("x", 700_000)}
	if _, err := c.CreateSandbox(t.Context(), api.SandboxSpec{Name: "web", Labels: labels}, f); err != nil {
		t.Fatal(err)
	}
	if inode != st.Ino {
		t.Errorf("the engine saw inode %d, not %d", inode, st.Ino)
	}
}

func TestNoDaemon(t *testing.T) {
	dir := servertest.SocketDir(t)
	stale := filepath.Join(dir, "towpath.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, socket := range []string{stale, filepath.Join(dir, "none", "towpath.sock")} {
		_, err := client.New(socket).Networks(t.Context())
		var none *client.NoDaemon
		if !errors.As(err, &none) || !strings.HasSuffix(err.Error(), "start it with: towpathd --run-dir "+filepath.Dir(socket)) {
			t.Errorf("%s: %v", socket, err)
		}
	}
}

func TestNotAllowed(t *testing.T) {
	err := &client.NoDaemon{Socket: "/nonexistent/s", Err: os.NewSyscallError("connect", syscall.EACCES)}
	if got := err.Error(); got != "you may not use the socket /nonexistent/s: permission denied; become root" {
		t.Error(got)
	}
	if p := err.Problem(); p.Code != api.Unavailable || p.Status != http.StatusServiceUnavailable || p.Fix != "become root" {
		t.Errorf("%+v", p)
	}
}

func TestDaemonGoesAway(t *testing.T) {
	path := filepath.Join(servertest.SocketDir(t), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Read(make([]byte, 1))
			_ = c.Close()
		}
		_ = l.Close()
	}()
	_, err = client.New(path).CreateNetwork(t.Context(), api.NetworkSpec{Name: "a"})
	if api.CodeOf(err) != api.Unavailable || !strings.Contains(err.Error(), "went away") {
		t.Errorf("got %v", err)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := client.New(servertest.Start(t, servertest.New())).Networks(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
