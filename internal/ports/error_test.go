//go:build linux

package ports

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

// TestTakenNamesProcess lets another process have a port in each way, and asks
// who it is.
func TestTakenNamesProcess(t *testing.T) {
	for _, proto := range []string{"tcp", "udp"} {
		for _, tc := range []struct{ has, want string }{
			{"127.0.0.1:80", "[::]:80"},
			{"[::1]:80", "[::]:80"},
			{"0.0.0.0:80", "[::]:80"},
			{"[::]:80", "[::]:80"},
			{"[::]:80", "127.0.0.1:80"},
			{"[::]:80", "0.0.0.0:80"},
			{"[::]:80", "[2001:db8::9]:80"},
			{"[::1]:80", "[::1]:80"},
			{"0.0.0.0:80", "192.0.2.9:80"},
		} {
			t.Run(proto+" "+tc.has+" "+tc.want, func(t *testing.T) {
				n := newHost(t)
				r := n.rival(t)
				if got := r.ask(t, "keep", proto, tc.has); got != "ok" {
					t.Fatal(got)
				}
				err := n.hold(t, Port{Proto: proto, Addr: at(tc.want)})
				var taken *TakenError
				if !errors.As(err, &taken) || !errors.Is(err, unix.EADDRINUSE) {
					t.Fatalf("hold: %v, want a TakenError", err)
				}
				comm, rerr := os.ReadFile("/proc/self/comm")
				must(t, rerr)
				// The kernel names a program that was started by this path after
				// the last part of it.
				if taken.PID != r.cmd.Process.Pid || taken.Process != "exe" && taken.Process != strings.TrimSpace(string(comm)) {
					t.Errorf("taken by %q, %d, want process %d", taken.Process, taken.PID, r.cmd.Process.Pid)
				}
				if text := "in use by " + taken.Process + " (pid "; !strings.Contains(err.Error(), text) {
					t.Errorf("%q does not say %q", err, text)
				}
			})
		}
	}
}

// TestTakenByUnknown: a socket that is bound and does not listen is in no table.
func TestTakenByUnknown(t *testing.T) {
	n := newHost(t)
	var fd int
	n.Do(t, func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrInet4{Port: 80})
	})
	defer unix.Close(fd)
	err := n.hold(t, Port{Proto: "tcp", Addr: at("[::]:80")})
	if want := "hold tcp [::]:80: in use by another program"; err == nil || err.Error() != want {
		t.Errorf("hold: %v, want %s", err, want)
	}
}

// words writes an address as the kernel does: each 32 bits as a number of this
// machine.
func words(addr string) string {
	b, out := netip.MustParseAddr(addr).AsSlice(), ""
	for i := 0; i < len(b); i += 4 {
		out += fmt.Sprintf("%08X", binary.NativeEndian.Uint32(b[i:]))
	}
	return out
}

// TestInTheWay picks from tables as the kernel writes them.
func TestInTheWay(t *testing.T) {
	const heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	line := func(local, state, inode string) string {
		return "   0: " + local + " 00000000:0000 " + state + " 00000000:00000000 00:00000000 00000000     0        0 " + inode + " 1 0000000000000000 100 0 0 10 0\n"
	}
	const listen, conn = "0A", "01"
	any4, lo4 := words("0.0.0.0"), words("127.0.0.1")
	any6, lo6, mapped := words("::"), words("::1"), words("::ffff:127.0.0.1")
	for _, tc := range []struct {
		name, table, want string
		inode             string
		bound             bool
	}{
		{"empty", "", "[::]:80", "", false},
		{"other port", line(any4+":0051", listen, "7"), "[::]:80", "", false},
		{"other address", line(lo4+":0050", listen, "7"), "127.0.0.2:80", "", false},
		{"other family", line(lo6+":0050", listen, "7"), "127.0.0.1:80", "", false},
		{"IPv4 only for IPv6", line(any4+":0050", listen, "7"), "[::1]:80", "", false},
		{"the same", line(lo4+":0050", listen, "7"), "127.0.0.1:80", "7", true},
		{"all for one", line(any6+":0050", listen, "7"), "127.0.0.1:80", "7", true},
		{"one for all", line(lo6+":0050", listen, "7"), "[::]:80", "7", true},
		{"mapped", line(mapped+":0050", listen, "7"), "127.0.0.1:80", "7", true},
		{"unconnected UDP", line(lo4+":0050", "07", "7"), "0.0.0.0:80", "7", true},
		{"connection", line(lo4+":0050", conn, "7"), "0.0.0.0:80", "7", false},
		{"listener before connection", line(lo4+":0050", conn, "7") + line(any4+":0050", listen, "8"), "0.0.0.0:80", "8", true},
		{"nobody's", line(lo4+":0050", "06", "0"), "0.0.0.0:80", "", false},
		{"not a table", "so 0100007Fx:0050 b c d e f g h 9\n a b:c:d\n", "0.0.0.0:80", "", false},
	} {
		inode, bound := inTheWay(strings.NewReader(heading+tc.table), at(tc.want))
		if inode != tc.inode || bound != tc.bound {
			t.Errorf("%s: %q, %t; want %q, %t", tc.name, inode, bound, tc.inode, tc.bound)
		}
	}
}

// TestOwner looks into a directory like /proc, with processes that may not be
// looked into or have gone.
func TestOwner(t *testing.T) {
	proc := t.TempDir()
	for process, links := range map[string][]string{
		"self": {"socket:[7]"}, "10": {"socket:[70]", "/dev/null"}, "11": {"socket:[7]"}, "12": {"socket:[8]"}, "13": nil,
	} {
		fds := filepath.Join(proc, process, "fd")
		must(t, os.MkdirAll(fds, 0o755))
		for i, target := range links {
			must(t, os.Symlink(target, filepath.Join(fds, string(rune('0'+i)))))
		}
	}
	must(t, os.WriteFile(filepath.Join(proc, "11", "comm"), []byte("nginx\n"), 0o644))
	must(t, os.RemoveAll(filepath.Join(proc, "13", "fd")))
	for inode, want := range map[string]string{"7": "nginx", "8": "", "9": "", "": ""} {
		pid, name := owner(proc, inode)
		if name != want || (pid == 11) != (want != "") {
			t.Errorf("owner of %q: %d %q, want %q", inode, pid, name, want)
		}
	}
	if pid, _ := owner(filepath.Join(proc, "none"), "7"); pid != 0 {
		t.Errorf("owner without /proc: %d", pid)
	}
}

// TestLimit holds ports in a process with few descriptors.
func TestLimit(t *testing.T) {
	n := newHost(t)
	for _, tc := range []struct{ soft, hard, count, want string }{
		{"100", "2000", "1000", "held 1000 with limit 2000"},
		{"100", "400", "200", "held 200 with limit 400"},
		{"100", "400", "350", "held 0 with limit 400: hold 350 ports: needs 350 file descriptors, 2"},
		{"100", "400", "350", "of the limit of 400 are left for ports: raise LimitNOFILE= of the service, or ulimit -n"},
		{"20", "20", "1", "held 1 with limit 20"},
	} {
		got := n.rival(t).ask(t, "limit", tc.soft, tc.hard, "tcp", "20000", tc.count)
		if !strings.Contains(got, tc.want) {
			t.Errorf("hold %s ports with limits %s and %s: %q, want %q", tc.count, tc.soft, tc.hard, got, tc.want)
		}
	}
}

func TestLimitError(t *testing.T) {
	testnet.Require(t, "netns")
	err := error(&LimitError{Needed: 1})
	if !errors.Is(err, unix.EMFILE) {
		t.Error("a LimitError is no EMFILE")
	}
	var open [3]*os.File
	before, err := used()
	must(t, err)
	for i := range open {
		if open[i], err = os.Open(os.DevNull); err != nil {
			t.Fatal(err)
		}
		defer open[i].Close()
	}
	after, err := used()
	must(t, err)
	if after != before+len(open) {
		t.Errorf("%d descriptors with %d more than %d", after, len(open), before)
	}
}

// withoutSockets runs fn on a thread for which socket(2) fails with errno when an
// argument has a value, by a seccomp filter. The thread ends with fn.
func withoutSockets(t *testing.T, argument int, value uint32, errno unix.Errno, fn func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() { done <- err }()
		runtime.LockOSThread()
		if err = refuseSockets(argument, value, errno); err == nil {
			fn()
		}
	}()
	must(t, <-done)
}

// refuseSockets installs the filter. Its input is struct seccomp_data: the number
// of the call at 0, its arguments in 64 bits each from 16 on.
func refuseSockets(argument int, value uint32, errno unix.Errno) error {
	const allow = 0x7fff0000 // SECCOMP_RET_ALLOW
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	code := []unix.SockFilter{
		{Code: load, K: 0},
		{Code: equal, K: unix.SYS_SOCKET, Jf: 3},
		{Code: load, K: uint32(16 + 8*argument)},
		{Code: equal, K: value, Jf: 1},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: ret, K: allow},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

// TestKernelWithoutIPv6 holds all addresses by 0.0.0.0.
func TestKernelWithoutIPv6(t *testing.T) {
	testnet.Require(t, "netns")
	h := New()
	defer h.Close()
	all, one := Port{Proto: "tcp", Addr: at("[::]:8080")}, Port{Proto: "tcp", Addr: at("[::1]:8081")}
	var errAll, errOne error
	withoutSockets(t, 0, unix.AF_INET6, unix.EAFNOSUPPORT, func() {
		errAll, errOne = h.Hold(all), h.Hold(one)
	})
	must(t, errAll)
	if !errors.Is(errOne, unix.EAFNOSUPPORT) {
		t.Errorf("hold %s: %v, want EAFNOSUPPORT", one, errOne)
	}
	if sa, err := unix.Getsockname(int(h.sockets[all.slot()].fd)); err != nil || sa.(*unix.SockaddrInet4).Port != 8080 {
		t.Errorf("bound to %v, %v", sa, err)
	}
	if !holds(h, all) {
		t.Errorf("held as %v", h.Held())
	}
}

func TestKernelWithoutSCTP(t *testing.T) {
	testnet.Require(t, "netns")
	h := New()
	defer h.Close()
	var err error
	withoutSockets(t, 2, unix.IPPROTO_SCTP, unix.EPROTONOSUPPORT, func() {
		err = h.Hold(Port{Proto: "sctp", Addr: at("[::]:8080")})
	})
	if !errors.Is(err, ErrNoSCTP) || !strings.Contains(err.Error(), "hold sctp [::]:8080") {
		t.Errorf("hold: %v, want %v", err, ErrNoSCTP)
	}
	// The kernel of this machine has them or not.
	if err := h.Hold(Port{Proto: "sctp", Addr: at("[::]:8080")}); err != nil && !errors.Is(err, ErrNoSCTP) {
		t.Error(err)
	}
}
