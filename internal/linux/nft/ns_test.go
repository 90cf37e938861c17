//go:build linux

package nft_test

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

// inNamespace runs fn on a thread in a fresh network namespace. The thread is
// not used again, so that nothing of the namespace is left.
func inNamespace(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	testnet.Require(t, "netns")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("make namespace: %v", err)
			return
		}
		fn(t)
	}()
	<-done
}

// dial opens a Conn in the thread's namespace.
func dial(t *testing.T) *nft.Conn {
	t.Helper()
	c, err := nft.Dial(-1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// nftVersion is the version whose listings the tests compare with.
const nftVersion = "v1.0.6"

// nftOutput runs the nft program in the thread's namespace; it skips without
// that version of it.
func nftOutput(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	testnet.Require(t, "nft-binary")
	path, err := exec.LookPath("nft")
	if err != nil {
		t.Fatal(err)
	}
	if version, err := exec.Command(path, "--version").Output(); err != nil || !strings.Contains(string(version), nftVersion) {
		t.Skipf("needs nft %s: have %s, %v", nftVersion, version, err)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v\n%s", args, err, out)
	}
	return string(out)
}
