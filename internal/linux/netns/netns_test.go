//go:build linux

package netns_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// here names the namespace of the calling thread, as net:[4026531840].
func here() string {
	s, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return err.Error()
	}
	return s
}

// name names the namespace that is open as f.
func name(t *testing.T, f *os.File) string {
	t.Helper()
	var s string
	must(t, netns.Do(f, func() error { s = here(); return nil }))
	return s
}

// dir is a directory for namespaces that leaves no mounts behind.
func dir(t *testing.T) string {
	t.Helper()
	testnet.Require(t, "netns")
	d := filepath.Join(t.TempDir(), "netns")
	t.Cleanup(func() {
		for _, e := range must2(netns.List(d))(t) {
			if err := netns.Remove(filepath.Join(d, e.Name)); err != nil {
				t.Log(err)
			}
		}
		// The directory is a mount point itself once it was used.
		if err := unix.Unmount(d, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			t.Error(err)
		}
	})
	return d
}

func must2[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func TestCreateOpenRemove(t *testing.T) {
	d := dir(t)
	path := filepath.Join(d, "a")
	must(t, netns.Create(path))
	f := must2(netns.Open(path))(t)
	defer f.Close()
	if name(t, f) == here() {
		t.Error("new namespace is the old one")
	}
	if err := netns.Create(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Create: %v, want %v", err, fs.ErrExist)
	}
	must(t, netns.Create(filepath.Join(d, "b")))
	must(t, os.WriteFile(filepath.Join(d, "crash"), nil, 0o444))
	want := []netns.Entry{{Name: "a", Mounted: true}, {Name: "b", Mounted: true}, {Name: "crash"}}
	if list := must2(netns.List(d))(t); !slices.Equal(list, want) {
		t.Errorf("list is %v, want %v", list, want)
	}
	for range 2 { // the second time there is nothing left
		for _, e := range want {
			must(t, netns.Remove(filepath.Join(d, e.Name)))
		}
	}
	if list := must2(netns.List(d))(t); len(list) != 0 {
		t.Errorf("left over: %v", list)
	}
	if mounts := mountsBelow(t, d); len(mounts) != 1 || mounts[0] != d {
		t.Errorf("mounts %v, want the directory's own", mounts)
	}
}

// mountsBelow lists the mount points at and below a directory.
func mountsBelow(t *testing.T, d string) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(string(must2(os.ReadFile("/proc/self/mountinfo"))(t))) {
		if point := strings.Fields(line)[4]; strings.HasPrefix(point, d) {
			out = append(out, point)
		}
	}
	return out
}

func TestCreateAfterCrash(t *testing.T) {
	d := dir(t)
	must(t, os.MkdirAll(d, 0o755))
	path := filepath.Join(d, "a")
	must(t, os.WriteFile(path, nil, 0o444))
	must(t, netns.Create(path))
	must2(netns.Open(path))(t).Close()

	full := filepath.Join(d, "full")
	must(t, os.WriteFile(full, []byte("precious"), 0o444))
	if err := netns.Create(full); !errors.Is(err, netns.ErrNotNetns) {
		t.Errorf("Create over a file with content: %v", err)
	}
	if err := netns.Remove(full); !errors.Is(err, netns.ErrNotNetns) {
		t.Errorf("Remove of a file with content: %v", err)
	}
	must(t, os.Remove(full))
}

func TestCreateAtOnce(t *testing.T) {
	d := dir(t)
	path := filepath.Join(d, "a")
	const callers = 16
	errs := make(chan error, callers)
	for range callers {
		go func() { errs <- netns.Create(path) }()
	}
	made := 0
	for range callers {
		switch err := <-errs; {
		case err == nil:
			made++
		case !errors.Is(err, fs.ErrExist):
			t.Error(err)
		}
	}
	if made != 1 {
		t.Errorf("%d callers made it, want 1", made)
	}
	if mounts := mountsBelow(t, d); len(mounts) != 2 {
		t.Errorf("mounts %v, want the directory and one namespace", mounts)
	}
}

func TestOpenRefuses(t *testing.T) {
	d := dir(t)
	must(t, os.MkdirAll(d, 0o755))
	plain := filepath.Join(d, "plain")
	must(t, os.WriteFile(plain, nil, 0o444))
	for _, path := range []string{plain, "/proc/self/ns/mnt", "/proc/self/status"} {
		if _, err := netns.Open(path); !errors.Is(err, netns.ErrNotNetns) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := netns.Open(filepath.Join(d, "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	mnt := must2(os.Open("/proc/self/ns/mnt"))(t)
	defer mnt.Close()
	if err := netns.Bind(int(mnt.Fd()), filepath.Join(d, "mnt")); !errors.Is(err, netns.ErrNotNetns) {
		t.Errorf("bind of a mount namespace: %v", err)
	}
}

func TestBindKeepsAlive(t *testing.T) {
	d := dir(t)
	f := must2(netns.New())(t)
	want := must2(netns.Cookie(f))(t)
	path := filepath.Join(d, "adopted")
	must(t, netns.Bind(int(f.Fd()), path))
	f.Close()
	g := must2(netns.Open(path))(t)
	defer g.Close()
	if got := must2(netns.Cookie(g))(t); got != want {
		t.Errorf("cookie %d, want %d", got, want)
	}
}

func TestCookieAndSame(t *testing.T) {
	testnet.Require(t, "netns")
	self := must2(netns.Self())(t)
	defer self.Close()
	f := must2(netns.New())(t)
	defer f.Close()
	a, b, again := must2(netns.Cookie(self))(t), must2(netns.Cookie(f))(t), must2(netns.Cookie(f))(t)
	if a == b || b != again || b == 0 {
		t.Errorf("cookies %d, %d and %d of two namespaces", a, b, again)
	}
	if must2(netns.Same(self, f))(t) || !must2(netns.Same(f, f))(t) {
		t.Error("Same does not tell them apart")
	}
}

func TestDoPassesOn(t *testing.T) {
	testnet.Require(t, "netns")
	f := must2(netns.New())(t)
	defer f.Close()
	want := errors.New("as asked")
	if err := netns.Do(f, func() error { return want }); err != want {
		t.Errorf("error %v, want %v", err, want)
	}
	plain := must2(os.Open("/proc/self/status"))(t)
	defer plain.Close()
	ran := false
	if err := netns.Do(plain, func() error { ran = true; return nil }); !errors.Is(err, unix.EINVAL) || ran {
		t.Errorf("no namespace: %v, fn ran: %v", err, ran)
	}
	func() {
		defer func() {
			p, ok := recover().(netns.Panic)
			if !ok || p.Value != "as asked" || !strings.Contains(string(p.Stack), "TestDoPassesOn") {
				t.Errorf("panic %v", p)
			}
		}()
		_ = netns.Do(f, func() error { panic("as asked") })
	}()
	ended := make(chan bool)
	go func() {
		returned := false
		defer func() { ended <- !returned }()
		_ = netns.Do(f, func() error { runtime.Goexit(); return nil })
		returned = true
	}()
	if !<-ended {
		t.Error("Goexit of fn did not end the caller")
	}
}

// TestDoUnderLoad holds that no goroutine outside ever runs in a namespace it
// did not enter, and none inside in another than its own, while functions end
// in all the ways they can: well, by panic, and on a thread that cannot go back
// because it gave its rights up.
func TestDoUnderLoad(t *testing.T) {
	testnet.Require(t, "netns")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	home := here()
	var spaces []*os.File
	var names []string
	for range 4 {
		f := must2(netns.New())(t)
		defer f.Close()
		spaces, names = append(spaces, f), append(names, name(t, f))
	}
	stop := make(chan struct{})
	var watchers, workers sync.WaitGroup
	for range 8 {
		watchers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got := here(); got != home {
					t.Errorf("goroutine outside is in %s, want %s", got, home)
					return
				}
				runtime.Gosched()
			}
		})
	}
	for i := range 64 {
		workers.Go(func() {
			for round := range 50 {
				visit(t, spaces[i%4], names[i%4], i+round)
				if got := here(); got != home {
					t.Errorf("caller is in %s, want %s", got, home)
				}
			}
		})
	}
	workers.Wait()
	close(stop)
	watchers.Wait()
}

// visit enters a namespace and ends in a way that how decides.
func visit(t *testing.T, f *os.File, want string, how int) {
	defer func() {
		if p := recover(); p != nil && p.(netns.Panic).Value != "as asked" {
			t.Error(p)
		}
	}()
	err := netns.Do(f, func() error {
		if got := here(); got != want {
			t.Errorf("inside is %s, want %s", got, want)
		}
		runtime.Gosched()
		if got := here(); got != want {
			t.Errorf("inside is %s after a pause, want %s", got, want)
		}
		switch how % 10 {
		case 0:
			panic("as asked")
		case 1:
			return dropRights()
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// dropRights takes all capabilities of the calling thread, and of no other: its
// way back is then refused.
func dropRights() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}

// TestLeader: the first thread of the process, whose namespace others take for that
// of the process, never leaves it, not for a moment.
func TestLeader(t *testing.T) {
	testnet.Require(t, "netns")
	home := must2(os.Readlink("/proc/self/ns/net"))(t)
	f := must2(netns.New())(t)
	defer f.Close()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if err := netns.Do(f, func() error {
					if at, err := os.Readlink("/proc/self/ns/net"); at != home {
						return fmt.Errorf("the process is seen in %s: %w", at, err)
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
				other, err := netns.New()
				if err != nil {
					t.Error(err)
					return
				}
				other.Close()
			}
		})
	}
	wg.Wait()
	if at := must2(os.Readlink("/proc/self/ns/net"))(t); at != home {
		t.Errorf("the process is seen in %s, and was in %s", at, home)
	}
}
