//go:build linux

package ports

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

// envRival makes this binary a rival: another program that wants ports.
const envRival = "TOWPATH_PORTS_RIVAL"

func TestMain(m *testing.M) {
	if os.Getenv(envRival) != "" {
		os.Exit(beRival(os.Stdin, os.Stdout))
	}
	os.Exit(testnet.Main(m))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// host is a namespace with a Holder in it.
type host struct {
	*testnet.NS
	h *Holder
}

func newHost(t *testing.T) host {
	t.Helper()
	ns := testnet.New(t, "host")
	h := New()
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return host{ns, h}
}

// hold holds inside, and returns what went wrong with the port, not with the
// test.
func (n host) hold(t *testing.T, ports ...Port) error {
	t.Helper()
	var err error
	n.Do(t, func() error {
		err = n.h.Hold(ports...)
		return nil
	})
	return err
}

func holds(h *Holder, p Port) bool { return slices.Contains(h.Held(), p) }

// rival is another process in the namespace, which does what it is asked.
type rival struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func (n host) rival(t *testing.T) *rival {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), envRival+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, n.Start(cmd))
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait() // it may have been killed as the test ended
	})
	return &rival{cmd, in, bufio.NewScanner(out)}
}

// ask sends a line and returns the one that answers it.
func (r *rival) ask(t *testing.T, words ...string) string {
	t.Helper()
	_, err := fmt.Fprintln(r.in, strings.Join(words, " "))
	must(t, err)
	if !r.out.Scan() {
		t.Fatalf("rival is gone: %v", r.out.Err())
	}
	return r.out.Text()
}

// beRival answers lines of commands:
//
//	try tcp 127.0.0.1:80 reuseaddr,reuseport,v6only,freebind   binds, and lets go
//	keep udp [::]:53                                           binds, listens, and keeps it
//	limit 100 400 tcp 20000 50                                 sets RLIMIT_NOFILE, and holds ports
func beRival(in io.Reader, out io.Writer) int {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		w := strings.Fields(lines.Text())
		var err error
		switch w[0] {
		case "try", "keep":
			err = bindAsRival(w[0] == "keep", w[1], at(w[2]), strings.Split(strings.Join(w[3:], ","), ","))
		case "limit":
			err = holdLimited(w[1:])
		}
		if err == nil {
			err = errors.New("ok")
		}
		if _, err := fmt.Fprintln(out, err); err != nil {
			return 1
		}
	}
	return 0
}

func bindAsRival(keep bool, proto string, a netip.AddrPort, options []string) error {
	k, err := kindOf(proto)
	if err != nil {
		return err
	}
	sa, domain := unix.Sockaddr(&unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}), unix.AF_INET6
	if a.Addr().Is4() {
		sa, domain = &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, unix.AF_INET
	}
	fd, err := unix.Socket(domain, k.typ|unix.SOCK_CLOEXEC, k.proto)
	if err != nil {
		return err
	}
	set := map[string][3]int{
		"reuseaddr": {unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, "reuseport": {unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
		"v6only": {unix.SOL_IPV6, unix.IPV6_V6ONLY, 1}, "freebind": {unix.SOL_IP, unix.IP_FREEBIND, 1},
	}
	for _, o := range options {
		if s, ok := set[o]; ok && err == nil {
			err = unix.SetsockoptInt(fd, s[0], s[1], s[2])
		}
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil && keep && k.listens {
		err = unix.Listen(fd, 1)
	}
	if !keep || err != nil {
		unix.Close(fd)
	}
	return err
}

// holdLimited answers "<held> of <soft limit>" where not all went well too.
func holdLimited(w []string) error {
	n := make([]uint64, len(w))
	for i := range w {
		n[i], _ = strconv.ParseUint(w[i], 10, 64)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n[0], Max: n[1]}); err != nil {
		return err
	}
	h := New()
	err := h.Hold(run(w[2], int(n[3]), int(n[4]))...)
	held := len(h.Held())
	cerr := h.Close()
	var l unix.Rlimit
	lerr := unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
	return fmt.Errorf("held %d with limit %d: %w", held, l.Cur, errors.Join(err, cerr, lerr))
}

// run is count ports on all addresses.
func run(proto string, first, count int) []Port {
	out := make([]Port, count)
	for i := range out {
		out[i] = Port{Proto: proto, Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(first+i))}
	}
	return out
}

// subsets gives all combinations of options.
func subsets(options ...string) []string {
	out := []string{""}
	for _, o := range options {
		for _, s := range slices.Clone(out) {
			out = append(out, strings.Trim(s+","+o, ","))
		}
	}
	return out
}
