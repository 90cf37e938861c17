package spawn

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// makePipe makes a named pipe (fifo(7)).
func makePipe(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDetach(t *testing.T) {
	// The log is a pipe: it ends when the last process that holds it does.
	log, gate := makePipe(t), makePipe(t)
	r, err := os.OpenFile(log, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	code, out, stderr := inSandbox(t, playDetach, log, "sh", "-c", "echo to out; echo to error >&2; cat <"+gate)
	if code != 0 || out != "said \"it runs\"\n" || stderr != "" {
		t.Fatalf("code %d: %s %s", code, out, stderr)
	}
	// The command waits for this: Detach is back before it has ended.
	if err := os.WriteFile(gate, []byte("from the test\n"), 0); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil || string(text) != "to out\nto error\nfrom the test\nended\n" {
		t.Errorf("%q %v", text, err)
	}
}

func TestDetachTellsOfFailure(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	code, out, stderr := inSandbox(t, playDetach, log, "no-such-command")
	if code != CodeNotFound || out != "said \"\"\n" || !strings.Contains(stderr, "not found in PATH") {
		t.Errorf("code %d: %q %q", code, out, stderr)
	}
}
