// Package engines reads what container engines have written down on this
// machine of their containers and networks: names, and nothing they would miss.
// The files are found by their usual places; no engine is asked anything.
package engines

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/towpath/towpath/internal/owner"
)

// Limits of what is read: the files belong to others.
const (
	maxFiles = 4096    // a place
	maxBytes = 1 << 20 // a file
)

// Read reads what the engines have written below root, "/" but in tests. What
// cannot be read is told in notes, one line each, and left out.
func Read(root string) (facts owner.Facts, notes []string) {
	r := &reader{root: root}
	r.docker()
	r.storage()
	r.bundles()
	r.cni()
	r.networks()
	return r.facts, r.notes
}

// reader collects.
type reader struct {
	root  string
	facts owner.Facts
	notes []string
}

func (r *reader) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// each reads the files of a pattern; those that are not there are no fault.
func (r *reader) each(pattern string, take func(path string, data []byte) error) {
	names, err := filepath.Glob(filepath.Join(r.root, pattern))
	if err != nil {
		r.note("%s: %v", pattern, err)
		return
	}
	if len(names) > maxFiles {
		r.note("%s: only %d of %d files are read", pattern, maxFiles, len(names))
		names = names[:maxFiles]
	}
	for _, name := range names {
		data, err := read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = take(name, data)
		}
		if err != nil {
			r.note("%s: %v", name, err)
		}
	}
}

// read reads a regular file that is not too big.
func read(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err == nil && len(data) > maxBytes {
		err = fmt.Errorf("it is larger than %d bytes", maxBytes)
	}
	return data, err
}

// docker reads Docker's containers, where its configuration says they are.
func (r *reader) docker() {
	dir := "/var/lib/docker"
	r.each("/etc/docker/daemon.json", func(_ string, data []byte) error {
		var c struct {
			DataRoot string `json:"data-root"`
		}
		err := json.Unmarshal(data, &c)
		if filepath.IsAbs(c.DataRoot) {
			dir = c.DataRoot
		}
		return err
	})
	r.each(dir+"/containers/*/config.v2.json", func(_ string, data []byte) error {
		return r.add(owner.ParseDocker(data))
	})
}

// storages are where Podman keeps containers: of root, and of other users.
func storages() []string {
	return []string{"/var/lib/containers/storage", "/home/*/.local/share/containers/storage", "/root/.local/share/containers/storage"}
}

// storage reads the containers of Podman and CRI-O: the list has their names,
// their bundles have their namespaces.
func (r *reader) storage() {
	for _, dir := range storages() {
		r.each(dir+"/*-containers/containers.json", func(path string, data []byte) error {
			all, err := owner.ParseStorage(data)
			for _, c := range all {
				r.facts.Records = append(r.facts.Records, r.withNamespace(filepath.Dir(path), c))
			}
			return err
		})
	}
}

// withNamespace adds to a container what its bundle tells.
func (r *reader) withNamespace(dir string, c owner.Record) owner.Record {
	data, err := read(filepath.Join(dir, filepath.Base(c.ID), "userdata", "config.json"))
	if err != nil {
		return c // it has not been started yet, or is removed
	}
	b, err := owner.ParseBundle(data, c.Engine, c.ID)
	if err != nil {
		r.note("%v", err)
		return c
	}
	c.Netns, c.Pod = b.Netns, b.Pod
	if b.Name != "" {
		c.Name = b.Name
	}
	return c
}

// bundles reads those of containerd's tasks. Those of Docker are in Docker's files.
func (r *reader) bundles() {
	r.each("/run/containerd/io.containerd.runtime.v2.task/*/*/config.json", func(path string, data []byte) error {
		dir := filepath.Dir(path)
		if filepath.Base(filepath.Dir(dir)) == "moby" {
			return nil
		}
		c, err := owner.ParseBundle(data, owner.Containerd, filepath.Base(dir))
		if err == nil && c.Netns == "" {
			c.PID = firstProcess(dir)
		}
		return r.add(c, err)
	})
}

// firstProcess is the process of a task that has a namespace of its own, which
// ends with it: 0, if it is not there any more. containerd's shim writes it down.
func firstProcess(dir string) int {
	data, err := read(filepath.Join(dir, "init.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// cni reads what libcni keeps.
func (r *reader) cni() {
	r.each("/var/lib/cni/results/*", func(_ string, data []byte) error { return r.add(owner.ParseCNIResult(data)) })
	for _, ext := range []string{"conflist", "conf", "json"} {
		r.each("/etc/cni/net.d/*."+ext, func(_ string, data []byte) error { return r.network(owner.ParseCNINetwork(data)) })
	}
}

// networks reads those that have files of their own.
func (r *reader) networks() {
	for _, pattern := range []string{"/etc/containers/networks/*.json", "/home/*/.local/share/containers/storage/networks/*.json"} {
		r.each(pattern, func(_ string, data []byte) error { return r.network(owner.ParsePodmanNetwork(data)) })
	}
	r.each("/etc/libvirt/qemu/networks/*.xml", func(_ string, data []byte) error {
		return r.network(owner.ParseLibvirtNetwork(data))
	})
}

func (r *reader) add(c owner.Record, err error) error {
	if err == nil {
		r.facts.Records = append(r.facts.Records, c)
	}
	return err
}

func (r *reader) network(n owner.Network, err error) error {
	if err == nil && n.Device != "" {
		r.facts.Networks = append(r.facts.Networks, n)
	}
	return err
}
