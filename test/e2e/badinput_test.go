package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/testnet"
)

// TestBadInput: every refusal names the thing, the cause and what to do, and
// leaves nothing half-made.
func TestBadInput(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "front", "--subnet", "198.51.100.0/29", "--aux-address", "router=198.51.100.5")
	w.must("sandbox", "create", "web", "--network", "front:ip=198.51.100.2")
	plan := w.must("plan")
	create := func(args ...string) []string { return append([]string{"network", "create"}, args...) }
	for name, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"subnet overlaps network":   {create("x", "--subnet", "198.51.100.0/24"), 1, "overlaps with 198.51.100.0/29 of network front"},
		"subnet overlaps route":     {create("x", "--subnet", "192.0.2.0/25"), 1, "overlaps with 192.0.2.0/24 of the host's route over eth0"},
		"subnet malformed":          {create("x", "--subnet", "172.20.300.0/24"), 1, "172.20.300.0/24"},
		"subnet with host bits":     {create("x", "--subnet", "172.20.9.7/24"), 1, "did you mean 172.20.9.0/24?"},
		"gateway outside":           {create("x", "--subnet", "172.29.0.0/24", "--gateway", "172.29.1.1"), 1, "gateway 172.29.1.1 lies in none of the subnets"},
		"two gateways":              {create("x", "--subnet", "172.29.0.0/24", "--gateway", "172.29.0.1", "--gateway", "172.29.0.2"), 1, "two gateways, 172.29.0.1 and 172.29.0.2"},
		"two ranges":                {create("x", "--subnet", "172.29.0.0/24", "--ip-range", "172.29.0.0/25", "--ip-range", "172.29.0.128/25"), 1, "two ip-ranges"},
		"gateway kept":              {create("x", "--subnet", "172.29.0.0/24", "--gateway", "172.29.0.9", "--aux-address", "router=172.29.0.9"), 1, "aux-address router=172.29.0.9 is the gateway"},
		"aux-address twice":         {create("x", "--subnet", "172.29.0.0/24", "--aux-address", "router=172.29.0.5", "--aux-address", "router=172.29.0.6"), 1, "router was given before, as 172.29.0.5; give each its own name"},
		"ip-range outside":          {create("x", "--subnet", "172.29.0.0/24", "--ip-range", "172.29.1.0/25"), 1, "ip-range 172.29.1.0/25 lies in none"},
		"mtu too small for IPv6":    {create("x", "--ipv6", "--mtu", "1000"), 1, "1280"},
		"no family":                 {create("x", "--ipv4=false"), 1, "--ipv6"},
		"mode without internal":     {create("x", "--gateway-mode", "isolated"), 1, "--internal"},
		"unknown mode":              {create("x", "--gateway-mode", "bridged"), 1, "nat, routed or isolated"},
		"unknown driver":            {create("x", "-d", "brige"), 1, "bridge"},
		"name twice":                {create("FRONT"), 1, "network front exists"},
		"name reserved":             {create("host"), 1, "reserved"},
		"name is an address":        {create("10.0.0.1"), 1, "reads as an address"},
		"name malformed":            {create("-x-"), 2, ""},
		"name with slash":           {create("a/b"), 1, "not valid"},
		"unknown flag":              {create("x", "--subnett", "10.0.0.0/8"), 2, "--subnet"},
		"unknown command":           {[]string{"netwrk", "ls"}, 2, "network"},
		"too many arguments":        {create("x", "y"), 2, "NAME"},
		"address taken":             {[]string{"network", "connect", "front", "web", "--ip", "198.51.100.2"}, 1, "taken by sandbox web"},
		"address outside":           {[]string{"network", "connect", "front", "web", "--ip", "198.51.100.77"}, 1, "outside of network front (198.51.100.0/29); choose one inside, or leave it out to get a free one"},
		"address kept":              {[]string{"network", "connect", "front", "web", "--ip", "198.51.100.5"}, 1, "router"},
		"address malformed":         {[]string{"network", "connect", "front", "web", "--ip", "198.51.100"}, 1, "198.51.100"},
		"mac of a group":            {[]string{"network", "connect", "front", "web", "--mac-address", "03:00:00:00:00:01"}, 1, "group address"},
		"ifname too long":           {[]string{"network", "connect", "front", "web", "--ifname", "a-very-long-name"}, 1, "1 to 15 bytes"},
		"network in use":            {[]string{"network", "rm", "front"}, 1, "in use by web"},
		"default network":           {[]string{"network", "rm", "-f", "bridge"}, 1, "default network"},
		"no such network":           {[]string{"network", "inspect", "nope"}, 1, "towpath network ls"},
		"no such sandbox":           {[]string{"sandbox", "rm", "nope"}, 1, "towpath sandbox ls"},
		"parameter is none":         {[]string{"network", "connect", "bridge", "web", "--sysctl", "net.ipv4.conf.IFNAME.nope=1"}, 1, "sysctl net.ipv4.conf.eth1.nope: this kernel has no such parameter; choose another, or leave it out; see: ls /proc/sys/net/ipv4/conf/default"},
		"parameter's value":         {[]string{"network", "connect", "bridge", "web", "--sysctl", "net.ipv6.neigh.IFNAME.mcast_solicit=many"}, 1, `sysctl net.ipv6.neigh.eth1.mcast_solicit does not take the value "many": invalid argument; `},
		"netns is a sandbox's":      {[]string{"sandbox", "create", "x", "--netns", filepath.Join(w.run, "netns", "web")}, 1, "the namespace is sandbox web already"},
		"netns is empty":            {[]string{"sandbox", "create", "x", "--netns", ""}, 1, "--netns is empty"},
		"netns path is none":        {[]string{"sandbox", "create", "x", "--netns", "/etc/passwd"}, 1, "not a network namespace"},
		"netns path is not there":   {[]string{"sandbox", "create", "x", "--netns", "/run/nope"}, 1, "no such file"},
		"netns is the host's":       {[]string{"sandbox", "create", "x", "--netns", "/proc/self/ns/net"}, 1, "the namespace towpathd itself runs in"},
		"pid is no number":          {[]string{"sandbox", "create", "x", "--pid", "0"}, 1, "it is 1 or more"},
		"pid is gone":               {[]string{"sandbox", "create", "x", "--pid", "4194304"}, 1, "4194304"},
		"network twice in one flag": {[]string{"sandbox", "create", "x", "--network", "front,ip=198.51.100.3,ip=198.51.100.4"}, 1, "twice"},
	} {
		r := w.towpath(tc.args...)
		if r.code != tc.code || !strings.Contains(r.stderr, tc.want) || strings.TrimSpace(r.stdout) != "" && r.stdout != "[]\n" {
			t.Errorf("%s: towpath %s\nexit %d, want %d; stdout %q\nstderr %q, want %q", name, strings.Join(tc.args, " "), r.code, tc.code, r.stdout, r.stderr, tc.want)
		}
		if tc.code == 1 && (!strings.HasPrefix(r.stderr, "towpath: ") || strings.Count(r.stderr, "\n") != 1) {
			t.Errorf("%s: not one line of `towpath: verb noun: cause`: %q", name, r.stderr)
		}
		if tc.code == 1 && !strings.Contains(r.stderr, "; ") {
			t.Errorf("%s: it does not say what to do: %q", name, r.stderr)
		}
	}
	for range 3 { // .3, .4, .6
		w.must("network", "connect", "front", "web")
	}
	if r := w.towpath("network", "connect", "front", "web"); r.code != 1 || !strings.Contains(r.stderr, "held by web") {
		t.Errorf("a full network: exit %d, %s", r.code, r.stderr)
	}
	w.must("network", "disconnect", "front", "web", "--ifname", "eth1")
	w.must("network", "disconnect", "front", "web", "--ifname", "eth2")
	w.must("network", "disconnect", "front", "web", "--ifname", "eth3")
	if after := w.must("plan"); after != plan {
		t.Errorf("refusals changed the plan from\n%s\nto\n%s", plan, after)
	}
	w.clean()
}

// TestExhaustedPool: the message says who holds it.
func TestExhaustedPool(t *testing.T) {
	w := newWorld(t)
	w.flags = []string{"--pool", "198.18.0.0/23"}
	w.start() // the default network takes the first of two
	w.must("network", "create", "one")
	r := w.towpath("network", "create", "two")
	if r.code != 1 || !strings.Contains(r.stderr, "network bridge") || !strings.Contains(r.stderr, "network one") || !strings.Contains(r.stderr, "--pool") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	w.clean()
}

// TestHugeRequest: a megabyte and more of JSON is refused, and nobody waits for it.
func TestHugeRequest(t *testing.T) {
	w := newWorld(t)
	w.start()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(w.run, "towpath.sock"))
	}}}
	body := `{"name":"x","labels":{"k":"` + strings.Repeat("v", 2<<20) + `"}}`
	resp, err := c.Post("http://towpath/v1/networks", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(text), `"code":"invalid"`) {
		t.Errorf("status %d, %v: %s", resp.StatusCode, err, text)
	}
	w.clean()
}

// startFails runs the daemon, which must end by itself, and gives what it said.
func (w *world) startFails(attr *syscall.SysProcAttr, flags ...string) string {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, "towpathd"), append([]string{"--run-dir", w.run, "--state-dir", w.state}, flags...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	cmd.SysProcAttr = attr
	err := w.host.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || ctx.Err() != nil {
		w.Errorf("towpathd %v: %v, want it to end by itself with an error\n%s", flags, err, errs.String())
	}
	return errs.String()
}

// TestDaemonRefusesToStart: by a message that names the file or the right.
func TestDaemonRefusesToStart(t *testing.T) {
	t.Run("second daemon", func(t *testing.T) {
		w := newWorld(t)
		w.start()
		if got := w.startFails(nil); !strings.Contains(got, "another towpathd") || !strings.Contains(got, w.state) {
			t.Errorf("same state directory: %s", got)
		}
		if got := w.startFails(nil, "--state-dir", t.TempDir()); !strings.Contains(got, "another towpathd answers") {
			t.Errorf("same socket: %s", got)
		}
		w.clean()
	})
	t.Run("corrupt store", func(t *testing.T) {
		w := newWorld(t)
		file := filepath.Join(w.state, "towpath.db")
		rubbish := bytes.Repeat([]byte("this is no store "), 4096)
		w.check(os.WriteFile(file, rubbish, 0o600))
		if got := w.startFails(nil); !strings.Contains(got, file+": file is damaged or not a store") || !strings.Contains(got, "; put back a copy") {
			t.Errorf("the file is not named: %s", got)
		}
		if after, err := os.ReadFile(file); err != nil || !bytes.Equal(after, rubbish) {
			t.Errorf("the file was touched: %v", err)
		}
	})
	t.Run("read-only store", func(t *testing.T) {
		w := newWorld(t)
		w.start()
		w.must("network", "create", "front")
		w.kill()
		file := filepath.Join(w.state, "towpath.db")
		before, err := os.ReadFile(file)
		w.check(err)
		w.check(os.Chmod(file, 0o400))
		if got := w.startFails(nil); !strings.Contains(got, file+": file is read-only: mode 0400; let its owner write to it") {
			t.Errorf("a file without the right to write: %s", got)
		}
		w.check(os.Chmod(file, 0o600))
		w.check(unix.Mount(w.state, w.state, "", unix.MS_BIND, ""))
		t.Cleanup(func() { _ = unix.Unmount(w.state, unix.MNT_DETACH) })
		w.check(unix.Mount("", w.state, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		if got := w.startFails(nil); !strings.Contains(got, file+": read-only file system; mount it for writing") {
			t.Errorf("a file system without the right to write: %s", got)
		}
		w.check(unix.Unmount(w.state, unix.MNT_DETACH))
		if after, err := os.ReadFile(file); err != nil || !bytes.Equal(after, before) {
			t.Errorf("the file was touched: %v", err)
		}
		w.start()
		w.must("network", "inspect", "front")
		w.clean()
	})
	t.Run("no right", func(t *testing.T) {
		w := newWorld(t)
		drop := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER} // root of a namespace that owns no network
		if got := w.startFails(drop); !strings.Contains(got, "CAP_NET_ADMIN") && !strings.Contains(got, "not permitted") {
			t.Errorf("got %s", got)
		}
	})
	t.Run("missing capability", func(t *testing.T) {
		testnet.Require(t, "setpriv-binary")
		w := newWorld(t)
		r := w.finish(exec.Command("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin",
			filepath.Join(binDir, "towpathd"), "--run-dir", w.run, "--state-dir", w.state))
		if r.code != 1 || !strings.Contains(r.stderr, "towpathd needs CAP_NET_ADMIN in its network namespace: run it as root") {
			t.Errorf("exit %d: %s", r.code, r.stderr)
		}
	})
	t.Run("bad flags", func(t *testing.T) {
		w := newWorld(t)
		for _, tc := range [][2]string{
			{"--pool=10.0.0.1/8", "--pool"},
			{"--pool=10.0.0.0/8,size=2", "do not fit"},
			{"--protect-tables=on", "auto or off"},
			{"--log-format=xml", "text or json"},
			{"--dns-upstream=ns.example.org", "is not the address of a DNS server"},
			{"--dns-upstream=127.0.0.11", "is not the address of a DNS server"},
			{"--dns-ttl=2h", "--dns-ttl 2h0m0s is out of range"},
			{"--dns-ttl=soon", "--dns-ttl"},
			{"--nope", "--nope"},
			{"--stat-dir=/nowhere", "did you mean --state-dir?"},
			{"more", "argument \"more\" is not expected"},
			{"--state-dir=/etc/passwd", "make state directory: mkdir /etc/passwd: not a directory; give another --state-dir"},
			{"--state-dir=/proc/nowhere", "no such file or directory; give another --state-dir"},
			{"--run-dir=/etc/passwd", "not a directory; give another --run-dir"},
		} {
			if got := w.startFails(nil, tc[0]); !strings.Contains(got, tc[1]) {
				t.Errorf("%s: %s", tc[0], got)
			}
		}
	})
}

// TestFullDisk: the verb fails with the kernel's words, and nothing is half-done.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	w.check(unix.Mount("tmpfs", w.state, "tmpfs", 0, "size=96k"))
	t.Cleanup(func() { _ = unix.Unmount(w.state, unix.MNT_DETACH) })
	w.start()
	w.must("network", "create", "front")
	var said string
	for i := range 64 {
		label := strings.Repeat("x", 4000)
		if r := w.towpath("network", "create", "n"+string(rune('a'+i%26))+string(rune('a'+i/26)), "--label", "k="+label); r.code != 0 {
			said = r.stderr
			break
		}
	}
	if !strings.Contains(said, "no space left on device") {
		t.Errorf("a full disk: %q", said)
	}
	w.clean()
	w.must("network", "ls")
	w.kill()
	w.start()
	w.clean()
	w.must("network", "inspect", "front")
}
