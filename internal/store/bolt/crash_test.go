package bolt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/towpath/towpath/internal/store"
)

// The test program runs itself again to do one of two jobs: its environment
// names the job and the file.
const (
	jobEnv  = "TOWPATH_TEST_STORE_JOB"
	pathEnv = "TOWPATH_TEST_STORE_PATH"
)

func TestMain(m *testing.M) {
	jobs := map[string]func(path string) error{"commit": commitUntilKilled, "fill": commitOnFullDisk}
	job, ok := jobs[os.Getenv(jobEnv)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := job(os.Getenv(pathEnv)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func childFor(t *testing.T, job, path string) *exec.Cmd {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), jobEnv+"="+job, pathEnv+"="+path)
	child.Stderr = os.Stderr
	return child
}

// commitUntilKilled keeps two keys equal and prints each revision it was given.
func commitUntilKilled(path string) error {
	ctx := context.Background()
	s, err := Open(ctx, path)
	if err != nil {
		return err
	}
	_, rev, err := s.List(ctx, "")
	for err == nil {
		value := []byte(strings.Repeat(strconv.FormatInt(rev+1, 10), 200))
		rev, err = s.Commit(ctx, store.Txn{Puts: []store.Put{{Key: "a", Value: value}, {Key: "z", Value: value}}})
		fmt.Fprintln(os.Stdout, rev)
	}
	return err
}

// killWhileCommitting returns the last revision the child said it had.
func killWhileCommitting(t *testing.T, path string, after int) int64 {
	t.Helper()
	child := childFor(t, "commit", path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var last int64
	lines := bufio.NewScanner(out)
	for n := 1; lines.Scan(); n++ {
		if last, err = strconv.ParseInt(lines.Text(), 10, 64); err != nil {
			t.Fatal(err)
		}
		if n == after {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := child.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("child ended with %v, expected to be killed", err)
	}
	return last
}

func TestKilledProcessLosesNothing(t *testing.T) {
	path := dbPath(t)
	for round := range 8 {
		last := killWhileCommitting(t, path, 1+round*3)
		s := openTest(t, path)
		got := contentOf(t, s)
		if got.Revision < last || len(got.Entries) != 2 || string(got.Entries[0].Value) != string(got.Entries[1].Value) ||
			got.Entries[0].Revision != got.Revision {
			t.Fatalf("killed after it had revision %d, it holds %+v", last, got)
		}
		s.Close()
	}
}

// limitFileSize makes the kernel refuse to let a file of this process grow
// beyond size bytes (EFBIG), as a full disk does (ENOSPC). The limit is that of
// the whole process, which is why it is one of its own.
func limitFileSize(size uint64) error {
	signal.Ignore(syscall.SIGXFSZ) // or writing beyond the limit would end the process
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	limit.Cur = size
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)
}

// commitOnFullDisk fails to commit a large change, and then commits a small one.
func commitOnFullDisk(path string) error {
	ctx := context.Background()
	s, err := Open(ctx, path)
	if err != nil {
		return err
	}
	if err := limitFileSize(1 << 16); err != nil {
		return err
	}
	_, err = s.Commit(ctx, store.Txn{Puts: []store.Put{{Key: "large", Value: make([]byte, 1<<18)}}})
	if err == nil || !strings.Contains(err.Error(), "file too large") || !strings.Contains(err.Error(), path) {
		return fmt.Errorf("commit: %v, want the kernel's error with the file named", err)
	}
	rev, err := s.Commit(ctx, store.Txn{Puts: []store.Put{{Key: "small", Value: []byte("1")}}})
	if err != nil || rev != 1 {
		return fmt.Errorf("next commit took revision %d, %v; want 1", rev, err)
	}
	return s.Close()
}

func TestFullDiskFailsOneCommitOnly(t *testing.T) {
	path := dbPath(t)
	if err := childFor(t, "fill", path).Run(); err != nil {
		t.Fatal(err)
	}
	want := content{[]store.Entry{{Key: "small", Value: []byte("1"), Revision: 1}}, 1}
	if diff := cmp.Diff(want, contentOf(t, openTest(t, path))); diff != "" {
		t.Errorf("the file (- wanted, + found):\n%s", diff)
	}
}

func TestUnknownOutcomeStopsCommits(t *testing.T) {
	path := dbPath(t)
	s := openTest(t, path)
	commit(t, s, "a", "1")
	s.Close()
	db, err := openFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	j := &journal{db: db}
	// The file is at revision 1, so it cannot be that 5 comes next: as after a
	// write that failed half-way.
	bad := []store.Event{{Key: "", Revision: 5}}
	first := j.write(5, bad)
	if first == nil || !strings.Contains(first.Error(), "start towpathd again") {
		t.Fatalf("write: %v, want advice", first)
	}
	if again := j.write(2, []store.Event{{Key: "b", Revision: 2}}); again != first {
		t.Errorf("write after that: %v, want the same error", again)
	}
}
