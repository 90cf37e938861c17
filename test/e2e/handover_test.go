package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// keeper is a service manager with a descriptor store.
type keeper struct {
	sock  *net.UnixConn
	ready chan struct{}

	mu   sync.Mutex
	kept map[string][]*os.File
}

func newKeeper(w *world) *keeper {
	w.Helper()
	addr := &net.UnixAddr{Name: filepath.Join(w.run, "manager"), Net: "unixgram"}
	sock, err := net.ListenUnixgram("unixgram", addr)
	w.check(err)
	k := &keeper{sock: sock, ready: make(chan struct{}, 1), kept: map[string][]*os.File{}}
	done := make(chan struct{})
	go func() { defer close(done); k.listen() }()
	w.Cleanup(func() {
		sock.Close()
		<-done
		k.mu.Lock()
		defer k.mu.Unlock()
		for name := range k.kept {
			k.drop(name)
		}
	})
	return k
}

// listen does what the daemon asks.
func (k *keeper) listen() {
	b, oob := make([]byte, 4096), make([]byte, 4096)
	for {
		n, oobn, _, _, err := k.sock.ReadMsgUnix(b, oob)
		if err != nil {
			return
		}
		var files []*os.File
		msgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for _, m := range msgs {
			fds, _ := unix.ParseUnixRights(&m)
			for _, fd := range fds {
				unix.CloseOnExec(fd)
				files = append(files, os.NewFile(uintptr(fd), "kept"))
			}
		}
		k.do(string(b[:n]), files)
	}
}

func (k *keeper) do(text string, files []*os.File) {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, name, _ := strings.Cut(text, "FDNAME=")
	switch {
	case text == "READY=1":
		k.ready <- struct{}{}
	case strings.HasPrefix(text, "FDSTORE=1\n"):
		k.kept[name] = append(k.kept[name], files...)
	case strings.HasPrefix(text, "FDSTOREREMOVE=1\n"):
		k.drop(name)
	case text == "BARRIER=1": // what came before it is done
		for _, f := range files {
			f.Close()
		}
	}
}

func (k *keeper) drop(name string) {
	for _, f := range k.kept[name] {
		f.Close()
	}
	delete(k.kept, name)
}

func (k *keeper) names() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []string
	for name := range k.kept {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// start starts the daemon with what is kept, and waits until it is ready.
func (k *keeper) start(w *world) {
	w.Helper()
	k.mu.Lock() // nothing is dropped while it is handed over
	var names []string
	var files []*os.File
	for name, list := range k.kept {
		for _, f := range list {
			names, files = append(names, name), append(files, f)
		}
	}
	args := append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh", filepath.Join(binDir, "towpathd"), "--run-dir", w.run, "--state-dir", w.state}, w.flags...)
	cmd := exec.Command("sh", args...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(w.run, "manager"), "FDSTORE=64",
		fmt.Sprintf("LISTEN_FDS=%d", len(files)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	cmd.ExtraFiles, cmd.Stderr = files, w.log
	err := w.host.Start(cmd)
	k.mu.Unlock()
	w.check(err)
	w.daemon = cmd
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	w.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	select {
	case <-k.ready:
	case <-ended:
		w.Fatalf("the daemon ended\n%s", w.log)
	case <-time.After(6 * patience):
		w.Fatalf("the daemon did not get ready\n%s", w.log)
	}
}

// TestHandover: where the service manager keeps descriptors, a query that is sent
// while the daemon is away is answered by the next one, without being sent again.
func TestHandover(t *testing.T) {
	w := newWorld(t)
	k := newKeeper(w)
	k.start(w)
	w.must("network", "create", "front", "--subnet", "172.30.0.0/24")
	for i, name := range []string{"web", "db", "gone"} {
		w.must("sandbox", "create", name, "--network", fmt.Sprintf("front,ip=172.30.0.%d", 2+i))
	}
	if got := k.names(); !slices.Equal(got, []string{"resolver-db", "resolver-gone", "resolver-web"}) {
		t.Fatalf("kept are %q", got)
	}
	web, _ := w.sandbox("web")
	w.kill()

	// Over UDP and TCP, while nobody is there.
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	defer cancel()
	udp := make(chan error, 1)
	c, err := web.DialUDP(ctx, port53())
	w.check(err)
	defer c.Close()
	query := []byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02db\x00\x00\x01\x00\x01")
	_, err = c.Write(query)
	w.check(err)
	go func() {
		in := make([]byte, 512)
		n, err := c.Read(in)
		if err == nil {
			err = isTold(in[:n], "172.30.0.3")
		}
		udp <- err
	}()
	tcp, err := web.DialTCP(ctx, port53())
	w.check(err)
	defer tcp.Close()
	_, err = tcp.Write(append([]byte{0, byte(len(query))}, query...))
	w.check(err)

	k.start(w)
	if err := <-udp; err != nil {
		t.Errorf("what was sent over UDP while the daemon was away: %v", err)
	}
	w.check(tcp.SetReadDeadline(time.Now().Add(patience)))
	in := make([]byte, 512)
	n, err := tcp.Read(in)
	if err == nil && n > 2 {
		err = isTold(in[2:n], "172.30.0.3")
	}
	if err != nil {
		t.Errorf("what was sent over TCP while the daemon was away: %v", err)
	}
	w.clean()
	if strings.Contains(w.log.String(), "cannot be used") {
		t.Errorf("something kept was of no use:\n%s", w.log)
	}

	// What goes is not kept: it would keep the namespace.
	w.must("sandbox", "rm", "gone")
	w.eventually("the store lets go", func() bool { return slices.Equal(k.names(), []string{"resolver-db", "resolver-web"}) })

	// What is of no use is let go of, and opened anew.
	w.kill()
	k.mu.Lock()
	k.kept["resolver-web"], k.kept["resolver-db"] = k.kept["resolver-db"], k.kept["resolver-web"]
	k.kept["resolver-nobody"] = nil
	f, err := os.Open("/dev/null")
	w.check(err)
	k.kept["resolver-nobody"] = []*os.File{f}
	k.mu.Unlock()
	k.start(w)
	w.clean()
	if got, _ := w.answered(web, "db"); got != netip.MustParseAddr("172.30.0.3") {
		t.Errorf("web is told %s", got)
	}
	if n := strings.Count(w.log.String(), "cannot be used"); n != 3 {
		t.Errorf("%d of 3 were found to be of no use:\n%s", n, w.log)
	}
	w.eventually("the store has the new ones alone", func() bool { return slices.Equal(k.names(), []string{"resolver-db", "resolver-web"}) })
}

// TestPortsAreKept: where the service manager keeps descriptors, no other program
// gets a published port while the daemon is away, and what is unpublished is free.
func TestPortsAreKept(t *testing.T) {
	w := newWorld(t)
	k := newKeeper(w)
	k.start(w)
	w.must("network", "create", "front", "--subnet", "172.30.0.0/24")
	w.must("sandbox", "create", "web", "--network", "front", "-p", "8080:80", "-p", "192.0.2.10:53:53/udp", "-p", "9000-9002:9000-9002")
	names := []string{"resolver-web", "tcp-8080", "tcp-9000", "tcp-9001", "tcp-9002", "udp-53-192.0.2.10"}
	if got := k.names(); !slices.Equal(got, names) {
		t.Fatalf("kept are %q, want %q", got, names)
	}
	rival := func(network, addr string) (err error) {
		w.host.Do(t, func() error {
			var c io.Closer
			if network == "udp" {
				c, err = net.ListenPacket(network, addr)
			} else {
				c, err = net.Listen(network, addr)
			}
			if err == nil {
				err = c.Close()
			}
			return nil
		})
		return err
	}
	for range 2 { // kept anew by the next, too
		w.kill()
		for _, p := range [][2]string{{"tcp", ":8080"}, {"tcp", "127.0.0.1:9001"}, {"udp", "192.0.2.10:53"}} {
			if err := rival(p[0], p[1]); !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("while the daemon is away another gets %s %s: %v", p[0], p[1], err)
			}
		}
		k.start(w)
		w.clean()
		if got := k.names(); !slices.Equal(got, names) {
			t.Fatalf("after a restart kept are %q", got)
		}
	}
	// Free means free at once, for others and for the next publication.
	w.must("unpublish", "web", "8080:80")
	w.check(rival("tcp", ":8080"))
	w.must("publish", "web", "8080:81")
	w.must("unpublish", "web", "8080:81")

	// What nobody asks for any more is let go of, and what is no such socket.
	w.kill()
	w.host.Do(t, func() error {
		for name, port := range map[string]int{"tcp-7000": 7000, "tcp-7001": 7002} {
			var plain net.ListenConfig
			plain.SetMultipathTCP(false) // which is another protocol
			l, err := plain.Listen(t.Context(), "tcp", fmt.Sprintf(":%d", port))
			if err != nil {
				return err
			}
			f, err := l.(*net.TCPListener).File()
			if err = errors.Join(err, l.Close()); err != nil {
				return err
			}
			k.mu.Lock()
			k.kept[name] = []*os.File{f}
			k.mu.Unlock()
		}
		return nil
	})
	k.start(w)
	w.clean()
	if n := strings.Count(w.log.String(), "cannot be used"); n != 1 {
		t.Errorf("%d of 1 were found to be of no use:\n%s", n, w.log)
	}
	for _, addr := range []string{":7000", ":7001", ":7002"} {
		if err := rival("tcp", addr); err != nil {
			t.Errorf("%s is not let go of: %v", addr, err)
		}
	}
}

// isTold checks the address in an answer.
func isTold(msg []byte, want string) error {
	addrs, code, err := parseAnswer(msg)
	if err == nil && (code != dnsmessage.RCodeSuccess || len(addrs) != 1 || addrs[0] != netip.MustParseAddr(want)) {
		err = fmt.Errorf("told %v, %s", addrs, code)
	}
	return err
}
