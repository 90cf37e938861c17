package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/client"
	"github.com/towpath/towpath/internal/linux/netns"
)

// network is the name of the daemon's network with all endpoints on it.
const network = "bench"

// patience bounds the start of the daemon.
const patience = time.Minute

// daemon is towpathd on a host of its own, and its clients.
type daemon struct {
	program, run, state string
	host                *os.File
	process             *os.Process
	done                chan struct{} // closed when the process has ended
	clients             []*client.Client
}

// newDaemon makes the host, starts the daemon and makes the network.
func newDaemon(ctx context.Context, bin, run, state string) (*daemon, error) {
	d := &daemon{program: filepath.Join(bin, "towpathd"), run: run, state: state}
	var err error
	if d.host, err = netns.New(); err != nil {
		return nil, err
	}
	for range removals {
		d.clients = append(d.clients, client.New(filepath.Join(run, "towpath.sock")))
	}
	if _, err := d.start(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	_, err = d.clients[0].CreateNetwork(ctx, api.NetworkSpec{
		Name: network, IPv6: true, Subnets: []netip.Prefix{netip.MustParsePrefix("10.98.0.0/16")},
	})
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// start starts towpathd and returns how long it took until it said READY.
func (d *daemon) start(ctx context.Context) (time.Duration, error) {
	name := filepath.Join(d.run, "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return 0, err
	}
	defer notify.Close()
	log, err := os.OpenFile(filepath.Join(d.run, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, d.program, "--run-dir", d.run, "--state-dir", d.state)
	cmd.Stderr = log
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+name)
	began := time.Now()
	if err := netns.Do(d.host, cmd.Start); err != nil {
		return 0, err
	}
	d.process, d.done = cmd.Process, make(chan struct{})
	done := d.done
	go func() { _ = cmd.Wait(); close(done); _ = notify.Close() }()
	if err := notify.SetReadDeadline(began.Add(patience)); err != nil {
		return 0, err
	}
	if _, err := notify.Read(make([]byte, 64)); err != nil {
		text, _ := os.ReadFile(log.Name())
		return 0, fmt.Errorf("start towpathd: %w\n%s", errors.Join(err, ctx.Err()), text)
	}
	return time.Since(began), os.Remove(name)
}

// kill ends the daemon by SIGKILL.
func (d *daemon) kill() {
	if d.process == nil {
		return
	}
	_ = d.process.Kill()
	<-d.done
	for _, c := range d.clients {
		c.Close()
	}
}

// close ends the daemon and lets go of its host.
func (d *daemon) close() error {
	d.kill()
	return d.host.Close()
}

// create makes a sandbox on the network.
func (d *daemon) create(ctx context.Context, c *client.Client, name string) (api.Sandbox, error) {
	return c.CreateSandbox(ctx, api.SandboxSpec{Name: name, Networks: []api.EndpointSpec{{Network: network}}}, nil)
}

// resident is the daemon's resident memory in bytes, VmRSS of proc(5).
func (d *daemon) resident() (int64, error) {
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(d.process.Pid), "status"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		text, found := strings.CutPrefix(lines.Text(), "VmRSS:")
		if !found {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
		return kb << 10, err
	}
	return 0, errors.Join(lines.Err(), errors.New("read memory of towpathd: no VmRSS"))
}
