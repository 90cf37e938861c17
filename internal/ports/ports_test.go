//go:build linux

package ports

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

// TestRivalIsRefused holds a port in each way, and lets another process bind to
// it in each way.
func TestRivalIsRefused(t *testing.T) {
	for _, tc := range []struct {
		held             string
		refused, allowed []string // addresses, with the options they need
	}{
		{
			"[::]:80",
			[]string{"0.0.0.0:80", "127.0.0.1:80", "[::1]:80", "[::]:80", "[::]:80 v6only", "192.0.2.9:80 freebind", "[2001:db8::9]:80 freebind"},
			[]string{"0.0.0.0:81", "[::]:81"},
		},
		{
			"0.0.0.0:80",
			[]string{"0.0.0.0:80", "127.0.0.1:80", "[::]:80", "192.0.2.9:80 freebind"},
			[]string{"[::1]:80", "[::]:80 v6only"},
		},
		{
			"127.0.0.1:80",
			[]string{"0.0.0.0:80", "127.0.0.1:80", "[::]:80"},
			[]string{"127.0.0.2:80", "[::1]:80", "[::]:80 v6only"},
		},
		{
			"[::1]:80",
			[]string{"[::1]:80", "[::]:80", "[::]:80 v6only"},
			[]string{"0.0.0.0:80", "127.0.0.1:80", "[2001:db8::9]:80 freebind"},
		},
		{ // not up
			"192.0.2.9:80",
			[]string{"0.0.0.0:80", "[::]:80", "192.0.2.9:80 freebind"},
			[]string{"127.0.0.1:80", "[::1]:80"},
		},
		{ // not up
			"[2001:db8::9]:80",
			[]string{"[::]:80", "[::]:80 v6only", "[2001:db8::9]:80 freebind"},
			[]string{"0.0.0.0:80", "[::1]:80"},
		},
	} {
		for _, proto := range []string{"tcp", "udp"} {
			t.Run(proto+" "+tc.held, func(t *testing.T) {
				n := newHost(t)
				r := n.rival(t)
				must(t, n.hold(t, Port{Proto: proto, Addr: at(tc.held)}))
				// All that is refused comes first: a bind with SO_REUSEPORT that is
				// allowed, such as to [::] for IPv6 alone, makes the kernel forget to
				// look at the others when the same program binds to [::] again.
				for _, reuse := range subsets("reuseaddr", "reuseport") {
					for _, a := range tc.refused {
						if got := r.ask(t, "try", proto, a, reuse); got != unix.EADDRINUSE.Error() {
							t.Errorf("bind to %s with %q: %s, want it refused", a, reuse, got)
						}
					}
				}
				for _, reuse := range subsets("reuseaddr", "reuseport") {
					for _, a := range tc.allowed {
						if got := r.ask(t, "try", proto, a, reuse); got != "ok" {
							t.Errorf("bind to %s with %q: %s, want it allowed", a, reuse, got)
						}
					}
				}
				other := map[string]string{"tcp": "udp", "udp": "tcp"}[proto]
				if got := r.ask(t, "try", other, "[::]:80"); got != "ok" {
					t.Errorf("bind of %s: %s", other, got)
				}
				must(t, n.h.Release(Port{Proto: proto, Addr: at(tc.held)}))
				for _, a := range tc.refused {
					if got := r.ask(t, "try", proto, a); got != "ok" {
						t.Errorf("bind to %s after release: %s", a, got)
					}
				}
			})
		}
	}
}

func TestHeld(t *testing.T) {
	n := newHost(t)
	web, dns := Port{Proto: "tcp", Addr: at("[::]:80")}, Port{Proto: "udp", Addr: at("192.0.2.9:53")}
	must(t, n.hold(t, web, dns, web))
	must(t, n.hold(t, web))
	if diff := cmp.Diff([]Port{web, dns}, n.h.Held(), cmp.Comparer(func(a, b Port) bool { return a == b })); diff != "" {
		t.Errorf("held (-want +got):\n%s", diff)
	}
	must(t, n.h.Release(Port{Proto: "tcp", Addr: at("[::]:81")}))
	if !holds(n.h, web) || holds(n.h, Port{Proto: "tcp", Addr: at("[::]:81")}) {
		t.Error("Holds does not tell what is held")
	}
	must(t, n.h.Release(web))
	if holds(n.h, web) || len(n.h.Held()) != 1 {
		t.Errorf("after release: %v", n.h.Held())
	}
	must(t, n.h.Close())
	if got := n.rival(t).ask(t, "try", "udp", "192.0.2.9:53 freebind"); got != "ok" || len(n.h.Held()) != 0 {
		t.Errorf("after close: %s, held %v", got, n.h.Held())
	}
}

func TestAllOrNothing(t *testing.T) {
	n := newHost(t)
	r := n.rival(t)
	if got := r.ask(t, "keep", "tcp", "127.0.0.1:8050"); got != "ok" {
		t.Fatal(got)
	}
	before := Port{Proto: "tcp", Addr: at("[::]:8010")}
	must(t, n.hold(t, before))
	all := run("tcp", 8000, 100)
	err := n.hold(t, all...)
	var taken *TakenError
	if !errors.As(err, &taken) || taken.Addr != all[50].Addr {
		t.Fatalf("hold 100 ports: %v, want port 8050 taken", err)
	}
	if held := n.h.Held(); len(held) != 1 || held[0] != before {
		t.Errorf("held %v, want only what was held before", held)
	}
	for _, a := range []string{"[::]:8000", "[::]:8049", "[::]:8051"} {
		if got := r.ask(t, "try", "tcp", a); got != "ok" {
			t.Errorf("bind to %s: %s", a, got)
		}
	}
}

// TestRun: a run of ports gives way to a part of it, which stays held.
func TestRun(t *testing.T) {
	n := newHost(t)
	r := n.rival(t)
	whole, part := Port{Proto: "tcp", Addr: at("[::]:8000"), Count: 10}, Port{Proto: "tcp", Addr: at("[::]:8003"), Count: 2}
	must(t, n.hold(t, whole))
	must(t, n.hold(t, part, whole))
	must(t, n.h.Release(whole))
	for port, want := range map[string]string{"8002": "ok", "8003": unix.EADDRINUSE.Error(), "8004": unix.EADDRINUSE.Error(), "8005": "ok"} {
		if got := r.ask(t, "try", "tcp", "[::]:"+port); got != want {
			t.Errorf("bind to port %s: %s, want %s", port, got, want)
		}
	}
	if n.h.Holds(whole) || !n.h.Holds(part) {
		t.Errorf("held %v, want %s", n.h.Held(), part)
	}
	for port, want := range map[string]bool{"8002": false, "8003": true} {
		one := Port{Proto: "tcp", Addr: at("[::]:" + port)}
		if got, held := n.h.Find(one); held != want || got != one {
			t.Errorf("find %s: %s, %v, want %v", one, got, held, want)
		}
	}
	must(t, n.h.Release(part))
	if got := r.ask(t, "keep", "tcp", "[::]:8005"); got != "ok" {
		t.Fatal(got)
	}
	err := n.hold(t, whole)
	if want := "hold tcp [::]:8005: in use by "; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("hold %s: %v, want %s...", whole, err, want)
	}
	if got := r.ask(t, "try", "tcp", "[::]:8000"); got != "ok" || len(n.h.Held()) != 0 || len(n.h.sockets) != 0 {
		t.Errorf("a run of which one port is taken left %v: %s", n.h.Held(), got)
	}
}

func TestFree(t *testing.T) {
	n := newHost(t)
	r := n.rival(t)
	for _, proto := range []string{"tcp", "udp"} {
		for _, addr := range []string{"::", "0.0.0.0", "127.0.0.1", "2001:db8::9"} {
			var got netip.AddrPort
			n.Do(t, func() (err error) {
				got, err = n.h.Free(proto, netip.MustParseAddr(addr))
				return err
			})
			if got.Port() == 0 || got.Addr() != netip.MustParseAddr(addr) || !holds(n.h, Port{Proto: proto, Addr: got}) {
				t.Errorf("free port of %s %s: %s, held %v", proto, addr, got, n.h.Held())
			}
			if refusal := r.ask(t, "try", proto, got.String(), "freebind,reuseaddr"); refusal != unix.EADDRINUSE.Error() {
				t.Errorf("bind to %s: %s, want it refused", got, refusal)
			}
		}
	}
}

func TestRefusedInput(t *testing.T) {
	n := newHost(t)
	for _, tc := range []struct {
		port Port
		want error
	}{
		{Port{Proto: "icmp", Addr: at("[::]:80")}, ErrProto},
		{Port{Proto: "", Addr: at("[::]:80")}, ErrProto},
		{Port{Proto: "tcp", Addr: netip.AddrPort{}}, errNoAddress},
		{Port{Proto: "tcp", Addr: at("[fe80::1%nolink]:80")}, errNoInterface},
	} {
		if err := n.hold(t, tc.port); !errors.Is(err, tc.want) {
			t.Errorf("hold %s: %v, want %v", tc.port, err, tc.want)
		}
	}
	must(t, n.hold(t, Port{Proto: "tcp", Addr: at("[fe80::1%lo]:80")}, Port{Proto: "udp", Addr: at("[fe80::1%1]:80")}, Port{Proto: "udp", Addr: at("[::ffff:127.0.0.1]:80")}))
	if got := n.rival(t).ask(t, "try", "udp", "127.0.0.1:80"); got != unix.EADDRINUSE.Error() {
		t.Errorf("bind to an IPv4 address held as an IPv6 one: %s", got)
	}
}

// TestAfterServer holds a port where connections of a former server are in
// TIME_WAIT.
func TestAfterServer(t *testing.T) {
	n := newHost(t)
	l := n.ListenTCP(t, at("127.0.0.1:8080"))
	client, err := n.DialTCP(t.Context(), at("127.0.0.1:8080"))
	must(t, err)
	defer client.Close()
	server, err := l.AcceptTCP()
	must(t, err)
	must(t, server.Close()) // first: it is the server's end that lingers
	_, err = io.ReadAll(client)
	must(t, err)
	must(t, client.Close())
	must(t, l.Close())
	if got := n.rival(t).ask(t, "try", "tcp", "127.0.0.1:8080"); got != unix.EADDRINUSE.Error() {
		t.Fatalf("no connection lingers: bind without SO_REUSEADDR says %s", got)
	}
	must(t, n.hold(t, Port{Proto: "tcp", Addr: at("[::]:8080")}))
}

// memInfo reads SO_MEMINFO (SK_MEMINFO_* of linux/sock_diag.h).
func memInfo(t *testing.T, fd int) (info [unix.SK_MEMINFO_VARS]uint32) {
	t.Helper()
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		t.Fatalf("getsockopt SO_MEMINFO: %v", errno)
	}
	return info
}

// TestNothingArrives sends to held ports until the kernel has counted a drop, and
// finds nothing queued and nothing to accept.
func TestNothingArrives(t *testing.T) {
	n := newHost(t)
	for _, addr := range []string{"127.0.0.1:8080", "[::1]:8080"} {
		held := Port{Proto: "udp", Addr: at(addr)}
		must(t, n.hold(t, held))
		c, err := n.DialUDP(t.Context(), held.Addr)
		must(t, err)
		defer c.Close()
		n.untilDropped(t, held, func() {
			_, err := c.Write(make([]byte, 1000))
			must(t, err)
		})

		held.Proto = "tcp"
		must(t, n.hold(t, held))
		n.untilDropped(t, held, func() { n.knock(t, held.Addr) })
		fd, _, err := unix.Accept4(int(n.h.sockets[held.slot()].fd), unix.SOCK_NONBLOCK)
		if err == nil {
			t.Errorf("accepted descriptor %d on %s", fd, held)
		}
	}
}

// untilDropped sends until a drop is counted. On lo that is by the first, unless
// the kernel puts its work off.
func (n host) untilDropped(t *testing.T, p Port, send func()) {
	t.Helper()
	fd := int(n.h.sockets[p.slot()].fd)
	// Accept must not wait.
	must(t, unix.SetNonblock(fd, true))
	for deadline := time.Now().Add(10 * time.Second); memInfo(t, fd)[unix.SK_MEMINFO_DROPS] == 0; send() {
		if time.Now().After(deadline) {
			t.Fatalf("%s dropped nothing", p)
		}
	}
	if queued := memInfo(t, fd)[unix.SK_MEMINFO_RMEM_ALLOC]; queued != 0 {
		t.Errorf("%s has queued %d bytes", p, queued)
	}
}

// knock begins to connect.
func (n host) knock(t *testing.T, a netip.AddrPort) {
	t.Helper()
	ways, err := forms(a)
	must(t, err)
	n.Do(t, func() error {
		fd, err := unix.Socket(ways[0].domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, ways[0].addr); !errors.Is(err, unix.EINPROGRESS) {
			return fmt.Errorf("connect to %s: %w, want no answer", a, err)
		}
		return nil
	})
}

// status reads a number of /proc/self/status.
func status(t *testing.T, field string) int {
	t.Helper()
	f, err := os.Open("/proc/self/status")
	must(t, err)
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if w := strings.Fields(lines.Text()); w[0] == field+":" {
			n, err := strconv.Atoi(w[1])
			must(t, err)
			return n
		}
	}
	t.Fatalf("no %s in /proc/self/status", field)
	return 0
}

// TestMany holds 10 000 ports, or as many as there are descriptors for.
func TestMany(t *testing.T) {
	testnet.Require(t, "netns")
	limit, err := raiseLimit()
	must(t, err)
	count := min(10_000, limit*3/4-300)
	for _, proto := range []string{"tcp", "udp"} {
		t.Run(proto, func(t *testing.T) {
			n := newHost(t)
			debug.FreeOSMemory()
			resident, threads, goroutines := status(t, "VmRSS"), status(t, "Threads"), runtime.NumGoroutine()
			fastest := time.Hour
			for range 3 { // the fastest, on a machine that others use too
				must(t, n.h.Close())
				start := time.Now()
				must(t, n.hold(t, Port{Proto: proto, Addr: at("[::]:10000"), Count: uint16(count)}))
				fastest = min(fastest, time.Since(start))
			}
			grown := status(t, "VmRSS") - resident
			t.Logf("%d ports in %s, %d kB more resident", count, fastest, grown)
			if held := len(n.h.sockets); held != count {
				t.Errorf("%d held, want %d", held, count)
			}
			if fastest > time.Second {
				t.Errorf("took %s, want less than a second", fastest)
			}
			if grown > 30_000 { // the race detector's own memory among it
				t.Errorf("%d kB more resident, want less than 30 MB", grown)
			}
			// Some come and go by the runtime's own doing.
			moreThreads, moreGoroutines := status(t, "Threads")-threads, runtime.NumGoroutine()-goroutines
			if moreThreads > 10 || moreGoroutines > 10 {
				t.Errorf("%d more threads and %d more goroutines, want none for the ports", moreThreads, moreGoroutines)
			}
			start := time.Now()
			must(t, n.hold(t, Port{Proto: proto, Addr: at("[::]:9999")}))
			t.Logf("one more in %s", time.Since(start))
		})
	}
}

// TestV6Only: a port may be held of IPv6 alone, beside others that have it of IPv4.
func TestV6Only(t *testing.T) {
	for _, proto := range []string{"tcp", "udp"} {
		n := newHost(t)
		r := n.rival(t)
		must(t, n.hold(t, Port{Proto: proto + "6", Addr: at("[::]:80")}, Port{Proto: proto, Addr: at("127.0.0.1:80")}))
		var taken *TakenError
		if got := r.ask(t, "keep", proto, "127.0.0.1:81"); got != "ok" {
			t.Error(got)
		}
		if got := r.ask(t, "keep", proto, "[::1]:81"); got != "ok" {
			t.Error(got)
		}
		if err := n.hold(t, Port{Proto: proto + "6", Addr: at("[::]:81")}); !errors.As(err, &taken) || taken.Proto != proto || taken.PID != r.cmd.Process.Pid {
			t.Errorf("hold: %v, want a TakenError of %s and process %d", err, proto, r.cmd.Process.Pid)
		}
		for addr, want := range map[string]string{"[::1]:80": unix.EADDRINUSE.Error(), "[::]:80 v6only": unix.EADDRINUSE.Error(), "127.0.0.2:80": "ok"} {
			if got := r.ask(t, "try", proto, addr); got != want {
				t.Errorf("bind of %s to %s: %s, want %s", proto, addr, got, want)
			}
		}
	}
}
