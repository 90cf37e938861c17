package spawn

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
)

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "resolv.conf")
	for _, text := range []string{"nameserver 127.0.0.11\n", "", "search a\n"} {
		if err := WriteFile(file, text); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil || string(got) != text {
			t.Errorf("got %q %v, want %q", got, err, text)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v %v, want 0644", info.Mode(), err)
	}
	if err := WriteFile(filepath.Join(dir, "no", "file"), "x"); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("into no directory: %v", err)
	}
	// A directory cannot be exchanged for a file, and nothing is left beside it.
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "taken"), "x"); err == nil {
		t.Error("wrote over a directory")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

func TestMountsBelow(t *testing.T) {
	info := `22 1 0:20 / / rw - ext4 a b
23 22 0:21 / /sys rw - sysfs a b
24 23 0:22 / /sys/fs/cgroup rw - tmpfs a b
25 24 0:23 / /sys/fs/cgroup/cpu rw - cgroup a b
26 23 0:24 / /sys/kernel/a\040b rw - x a b
27 22 0:25 / /system rw - x a b
`
	if got := mountsBelow(info, "/sys"); !slices.Equal(got, []string{"/sys/fs/cgroup", "/sys/kernel/a b"}) {
		t.Errorf("got %q", got)
	}
}

func TestOpenNetns(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(fifo, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		code api.Code
	}{
		{"/proc/self/ns/net", ""},
		{"/proc/self/ns/uts", api.Invalid},
		{fifo, api.Invalid},
		{"/nonexistent", api.NotFound},
	} {
		f, err := OpenNetns(c.path)
		if c.code == "" && err != nil || c.code != "" && (err == nil || api.CodeOf(err) != c.code) {
			t.Errorf("%s: %v", c.path, err)
		}
		_ = f.Close()
	}
}

func TestOpenPIDNetns(t *testing.T) {
	f, err := OpenPIDNetns(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	got, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.Stat("/proc/self/ns/net")
	if err != nil || !os.SameFile(got, want) {
		t.Errorf("another namespace: %v", err)
	}
	for pid, code := range map[int]api.Code{-1: api.Invalid, 1 << 22: api.NotFound} {
		if _, err := OpenPIDNetns(pid); api.CodeOf(err) != code || err == nil {
			t.Errorf("%d: %v", pid, err)
		}
	}
}
