package scripts

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/testnet"
)

// docker is an engine of Docker's in the host's network namespace, with all its
// files below dir.
type docker struct {
	*world
	dir string
}

// newDocker starts the engine, and waits until it answers.
func newDocker(w *world) *docker {
	w.Helper()
	// Its containers are looked for where they are on every machine; only this
	// test's mount namespace sees that place so.
	w.hide("/var/lib")
	dir, err := os.MkdirTemp("/run", "docker")
	if err != nil {
		w.Fatal(err)
	}
	d := &docker{world: w, dir: dir}
	at := func(name string) string { return filepath.Join(dir, name) }
	d.daemonOf("containerd", "--root", at("containerd"), "--state", at("state"), "--address", at("containerd.sock"))
	d.daemonOf("dockerd", "--data-root", "/var/lib/docker", "--exec-root", "/run/docker", "-H", "unix://"+at("docker.sock"),
		"--pidfile", at("pid"), "-s", "vfs", "--containerd", at("containerd.sock"), "--cgroup-parent", cgroup(),
		"--experimental", "--ip6tables") // which is the default since 27
	if !soon(func() bool { return d.run("version") == nil }) {
		log, _ := os.ReadFile(at("dockerd.log"))
		w.Fatalf("the engine does not answer: %v\n%s", d.run("version"), log)
	}
	return d
}

// cgroup is the parent of its containers' cgroups, which goes with the test.
func cgroup() string { return fmt.Sprintf("/towpath-test-%d", os.Getpid()) }

// daemonOf starts a daemon on the host until the test ends.
func (d *docker) daemonOf(name string, args ...string) {
	d.Helper()
	log, err := os.Create(filepath.Join(d.dir, name+".log"))
	if err != nil {
		d.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := d.host.Start(cmd); err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		removeCgroups()
	})
}

// removeCgroups removes the empty cgroups that engines leave, of either version,
// the inner ones first.
func removeCgroups() {
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		for _, below := range []string{"/*/*", "/*", ""} {
			left, _ := filepath.Glob(pattern + cgroup() + below)
			for _, dir := range left {
				_ = unix.Rmdir(dir)
			}
		}
	}
}

// ask is `docker ARGS`.
func (d *docker) ask(args ...string) (string, error) {
	// To end several containers takes it long on a busy machine.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.Context()), 3*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", append([]string{"-H", "unix://" + filepath.Join(d.dir, "docker.sock")}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("docker %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(out.String()), nil
}

func (d *docker) run(args ...string) error { _, err := d.ask(args...); return err }

func (d *docker) box() {
	d.Helper()
	if err := d.run("import", busybox(d.world, d.dir), "box"); err != nil {
		d.Fatal(err)
	}
}

func (d *docker) name() string { return "Docker" }

// sleeper makes an image of one program that does nothing.
func (d *docker) sleeper() {
	d.Helper()
	src := filepath.Join(d.dir, "sleeper.go")
	text := "package main\n\nimport \"syscall\"\n\nfunc main() { _ = syscall.Pause() }\n"
	if err := os.WriteFile(src, []byte(text), 0o600); err != nil {
		d.Fatal(err)
	}
	build := exec.CommandContext(d.Context(), "sh", "-c", "mkdir image && CGO_ENABLED=0 go build -o image/sleeper sleeper.go && tar -C image -c -f image.tar .")
	build.Dir = d.dir
	if out, err := build.CombinedOutput(); err != nil {
		d.Fatalf("build image: %v\n%s", err, out)
	}
	if err := d.run("import", filepath.Join(d.dir, "image.tar"), "sleeper"); err != nil {
		d.Fatal(err)
	}
}

// TestDocker: networks and containers of Docker have their names in the map,
// reach follows packets through its rules, and the doctor names the cause when
// somebody flushes them. The store holds nothing but the default network.
func TestDocker(t *testing.T) {
	testnet.Require(t, "netns", "root", "dockerd-binary", "docker-binary", "containerd-binary", "runc-binary", "nft-binary")
	w := newWorld(t)
	d := newDocker(w)
	d.sleeper()
	for _, line := range []string{
		"network create --subnet 10.82.0.0/24 shop",
		"run -d --name web --network shop -p 8080:80 sleeper /sleeper",
		"run -d --name db --network shop sleeper /sleeper",
	} {
		if err := d.run(strings.Fields(line)...); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = d.run("rm", "-f", "web", "db") })
	d.says([]string{"map"}, 0,
		"network shop (Docker)  bridge  10.82.0.0/24  gateway 10.82.0.1",
		"container web (Docker)  eth0  10.82.0.2/24  published 8080->80",
		"container db (Docker)  eth0  10.82.0.3/24",
		"*:8080/tcp  -> container web (Docker) 10.82.0.2:80  nothing listens there  by docker",
	)
	d.says([]string{"reach", "--from", "web", "--to", "db"}, 0, "nothing listens")
	d.says([]string{"doctor", "--over", "0s"}, 1, "RISK    published: published port *:8080/tcp: nothing listens at 10.82.0.2:80 in container web (Docker)")
	if _, err := w.host.Output(t.Context(), "nft", "flush", "ruleset"); err != nil {
		t.Fatal(err)
	}
	d.says([]string{"doctor", "--over", "0s"}, 1,
		"FAULT   rules-gone: the rules of Docker are gone, and its networks are in use", "fix:  systemctl restart docker")
}

// says runs towpath and looks for what it must print.
func (d *docker) says(args []string, code int, want ...string) {
	d.Helper()
	cmd := d.command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != code {
		d.Errorf("towpath %s: exit code %d, want %d", strings.Join(args, " "), got, code)
	}
	for _, line := range want {
		if !strings.Contains(out.String(), line) {
			d.Errorf("towpath %s: no %q in\n%s", strings.Join(args, " "), line, out.String())
		}
	}
}
