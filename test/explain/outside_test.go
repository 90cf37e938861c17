package explain

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/linux/ct"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
	"github.com/towpath/towpath/internal/trace/probe"
)

// outside reports whether the packet comes from somebody outside, of whom there is
// no namespace.
func (s scenario) outside() bool { return strings.HasPrefix(s.from, "outside") }

// wire is a packet socket where the uplink ends.
type wire struct {
	*world
	fd int
}

// listen hears from now on what leaves the host.
func (w *world) listen() *wire {
	w.Helper()
	out := &wire{world: w, fd: -1}
	index := w.index("outside", "eth0")
	w.spaces["outside"].Do(w, func() error {
		var err error
		if out.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		return unix.Bind(out.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
	})
	w.Cleanup(func() { w.must(unix.Close(out.fd)) })
	return out
}

// left are the frames that have come, and come within a while.
func (w *wire) left(within time.Duration) [][]byte {
	w.Helper()
	var out [][]byte
	end := time.Now().Add(within)
	for left := within; left > 0; left = time.Until(end) {
		timeout := unix.NsecToTimeval(left.Nanoseconds())
		w.must(unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout))
		b := make([]byte, 2048)
		n, from, err := unix.Recvfrom(w.fd, b, 0)
		if err != nil {
			continue // the time is over, which the loop sees
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING && !idle(b[:n]) {
			out = append(out, b[:n])
		}
	}
	return out
}

// nothing fails the test if anything has left.
func (w *wire) nothing(within time.Duration) {
	w.Helper()
	for _, b := range w.left(within) {
		w.Errorf("this left the machine:\n%s", hex.Dump(b))
	}
}

// idle reports whether a frame is what a link of IPv6 sends by itself, to groups:
// reports of listeners, router solicitations, detection of duplicates.
func idle(b []byte) bool {
	const source, destination, end = 14 + 8, 14 + 24, 14 + 40
	if len(b) < end || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_IPV6 {
		return false
	}
	src, dst := netip.AddrFrom16([16]byte(b[source:destination])), netip.AddrFrom16([16]byte(b[destination:end]))
	return dst.IsMulticast() && (src.IsUnspecified() || src.IsLinkLocalUnicast())
}

// send probes.
func (w *world) send(q api.ProbeQuery) (api.Probe, error) {
	w.Helper()
	return probe.Run(w.Context(), probe.Config{Machine: w.machine(), Again: w.look, Open: w.looking().Open}, q)
}

// TestOutsideLeavesNothing: nothing of a probe from outside leaves, not even what a
// listener sends again after a second, for no half of a connection is left; and
// nobody remembers that there was one.
func TestOutsideLeavesNothing(t *testing.T) {
	testnet.Require(t, "root", "bpf")
	for _, to := range []string{"host:8080", "[2001:db8::10]:8080", "host:8053/udp", "[2001:db8::10]:8053/udp", "host", "[2001:db8::10]"} {
		t.Run(to, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			// So that connection tracking is on there.
			w.table("web", `table inet f { chain c { type filter hook input priority 0; policy accept; ct state invalid drop } }`)
			out := w.listen()
			p, err := w.send(api.ProbeQuery{PathQuery: api.PathQuery{From: "outside", To: to}, Level: api.LevelTaps})
			w.must(err)
			if p.Verdict != api.Answered || !strings.Contains(text(t, p.Actual), ", stopped there") {
				t.Errorf("verdict %s\n%s", p.Verdict, text(t, p.Actual))
			}
			w.forgotten(p.Actual.Flow.Src)
			const again = 1500 * time.Millisecond // an answer to a SYN is sent again after one second
			out.nothing(again)
			for _, ns := range []string{"host", "web"} {
				w.spaces[ns].Do(t, func() error { return noHalf(t) })
			}
			w.must(w.spaces["host"].Echo(netip.MustParseAddr("192.0.2.1"), patience))
			if len(out.left(grace)) == 0 {
				t.Error("what leaves is not heard at all")
			}
		})
	}
}

// forgotten checks that no namespace tracks a connection of somebody's.
func (w *world) forgotten(who netip.Addr) {
	w.Helper()
	for _, ns := range []string{"host", "web"} {
		c, err := ct.Dial(w.spaces[ns].FD())
		w.must(err)
		list, err := c.Entries(w.Context(), 1000)
		w.must(errors.Join(err, c.Close()))
		for _, e := range list {
			if e.Orig.Src.Addr() == who {
				w.Errorf("%s tracks %+v", ns, e)
			}
		}
	}
}

// noHalf checks that no listener of this thread's namespace waits for the end of a
// handshake.
func noHalf(t *testing.T) error {
	t.Helper()
	const synReceived = "03" // TCP_SYN_RECV of include/net/tcp_states.h
	for _, name := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile("/proc/thread-self/net/" + name)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 3 && f[3] == synReceived {
				t.Errorf("half a connection: %s", line)
			}
		}
	}
	return nil
}

// TestOutsideRefused are probes that cannot be.
func TestOutsideRefused(t *testing.T) {
	testnet.Require(t, "root", "bpf")
	for _, c := range []struct {
		to, source, says string
		size             int
		connect          bool
		change           func(*world)
		code             api.Code
	}{
		{to: "203.0.113.9:80", says: "would leave the machine again", code: api.Unsupported},
		{to: "host:8080", connect: true, says: "nobody is there to go on with a connection", code: api.Invalid},
		{to: "host:8080", size: 1501, says: "1500 at most", code: api.Invalid},
		{to: "host:8080", says: "it is down", code: api.Unavailable, change: func(w *world) { w.down("outside", "eth0") }},
		{to: "host:8080", says: "there is no address left", code: api.Invalid, change: func(w *world) {
			for _, dst := range []string{"198.51.100.0/24", "203.0.113.0/24"} {
				w.route("host", rt.Route{Dst: netip.MustParsePrefix(dst), OIF: w.index("host", "tp-front")})
			}
			w.noDefault("host", "0.0.0.0/0")
			w.route("host", rt.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), OIF: w.index("host", "eth0")})
		}},
	} {
		t.Run(c.says, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if c.change != nil {
				c.change(w)
			}
			out := w.listen()
			_, err := w.send(api.ProbeQuery{PathQuery: api.PathQuery{From: "outside", To: c.to, Size: c.size}, Connect: c.connect})
			if api.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %s: %s", err, c.code, c.says)
			}
			out.nothing(grace)
		})
	}
}

// TestOutsideStopsWhatWouldLeave: a packet that rules send out again, against what
// was explained, is stopped before anybody is asked for its next hop.
func TestOutsideStopsWhatWouldLeave(t *testing.T) {
	testnet.Require(t, "root", "bpf")
	for _, level := range allLevels() {
		t.Run(string(level), func(t *testing.T) {
			t.Parallel()
			requireLevel(t, level)
			w := newWorld(t)
			m := w.machine() // as it was before somebody changed the rules
			w.table("host", `table ip f { chain c { type nat hook prerouting priority -150; policy accept; tcp dport 8080 dnat to 192.0.2.99:80 } }`)
			out := w.listen()
			p, err := probe.Run(t.Context(), probe.Config{Machine: m, Open: w.looking().Open}, api.ProbeQuery{PathQuery: api.PathQuery{From: "outside", To: "host:8080"}, Level: level})
			w.must(err)
			if p.Verdict != api.Lost || p.Actual.Reason != "it would leave the machine by eth0 of host, and was stopped there" {
				t.Errorf("%s: %s\n%s", p.Verdict, p.Actual.Reason, text(t, p.Actual))
			}
			out.nothing(grace)
		})
	}
}

// TestOutsideOrdinary: who may not load programs is told what that needs, and who
// may is not.
func TestOutsideOrdinary(t *testing.T) {
	w := newWorld(t)
	_, err := w.send(api.ProbeQuery{PathQuery: api.PathQuery{From: "outside", To: "host:8080"}, Level: api.LevelTaps})
	if err != nil && (api.CodeOf(err) != api.Unsupported || !strings.Contains(err.Error(), "needs Linux 5.18")) {
		t.Error(err)
	}
}
