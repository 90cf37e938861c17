package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
)

// build makes the host, and the machine outside with a server on it.
func (d *tour) build(ctx context.Context) (outside *os.File, err error) {
	if d.host, err = netns.New(); err != nil {
		return nil, err
	}
	if outside, err = netns.New(); err != nil {
		return nil, err
	}
	h, err := rt.Dial(int(d.host.Fd()))
	if err != nil {
		return nil, err
	}
	defer h.Close() //nolint:errcheck // ends with the process
	o, err := rt.Dial(int(outside.Fd()))
	if err != nil {
		return nil, err
	}
	defer o.Close() //nolint:errcheck // ends with the process
	err = h.AddVeth(ctx, rt.VethSpec{LinkSpec: rt.LinkSpec{Name: "eth0"}, Peer: rt.LinkSpec{Name: "eth0", NSFD: int(outside.Fd())}})
	if err == nil {
		err = configure(ctx, o, []string{"192.0.2.1/24", "2001:db8::1/64"}, nil)
	}
	if err == nil {
		err = configure(ctx, h, []string{"192.0.2.10/24", "2001:db8::10/64"}, []string{"192.0.2.1", "2001:db8::1"})
	}
	if err != nil {
		return nil, err
	}
	for _, addr := range []string{"192.0.2.1:80", "[2001:db8::1]:80"} {
		l, err := listenIn(outside, addr)
		if err != nil {
			return nil, err
		}
		go tell(l, "the machine outside")
	}
	return outside, nil
}

// configure sets lo and eth0 up and gives eth0 addresses and default routes.
func configure(ctx context.Context, c *rt.Conn, addrs, gateways []string) error {
	up := true
	var index int
	for _, name := range []string{"lo", "eth0"} {
		l, err := c.LinkByName(ctx, name)
		if err == nil {
			err = c.SetLink(ctx, l.Index, rt.LinkChange{Up: &up})
		}
		if err != nil {
			return err
		}
		index = l.Index
	}
	for _, a := range addrs {
		if err := c.AddAddress(ctx, rt.Address{Index: index, Prefix: netip.MustParsePrefix(a), NoDAD: true}); err != nil {
			return err
		}
	}
	for _, g := range gateways {
		gw := netip.MustParseAddr(g)
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if gw.Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		if err := c.AddRoute(ctx, rt.Route{Dst: all, Gateway: gw, OIF: index}); err != nil {
			return err
		}
	}
	return nil
}

func listenIn(ns *os.File, addr string) (l net.Listener, err error) {
	err = netns.Do(ns, func() error {
		l, err = net.Listen("tcp", addr)
		return err
	})
	return l, err
}

// serve answers in a container, and gives the address it answers on.
func (d tour) serve(ctx context.Context, sandbox string) (addr string, stop func(), err error) {
	out, err := d.output(ctx, "sandbox", "inspect", sandbox)
	if err != nil {
		return "", nil, err
	}
	var info []api.Sandbox
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		return "", nil, err
	}
	ns, err := netns.Open(info[0].Netns)
	if err != nil {
		return "", nil, err
	}
	defer ns.Close() //nolint:errcheck // only read
	addr = netip.AddrPortFrom(info[0].Endpoints[0].Addresses[0].Addr(), 80).String()
	l, err := listenIn(ns, addr)
	if err != nil {
		return "", nil, err
	}
	go tell(l, sandbox)
	return addr, func() { _ = l.Close() }, nil
}

// daemon starts towpathd on the host and waits until it is ready.
func (d tour) daemon(ctx context.Context) (stop func(), err error) {
	notify := filepath.Join(d.run, "notify")
	_ = os.Remove(notify)
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	defer sock.Close() //nolint:errcheck // only read
	log, err := os.OpenFile(filepath.Join(d.run, "log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // only read
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "towpathd"), "--run-dir", d.run, "--state-dir", filepath.Join(d.run, "state"))
	cmd.Stderr = log
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
	if err := netns.Do(d.host, cmd.Start); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done); _ = sock.Close() }()
	if err := os.WriteFile(filepath.Join(d.run, "pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return nil, err
	}
	_ = sock.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := sock.Read(make([]byte, 64)); err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("start towpathd: %w\n%s", errors.Join(err, ctx.Err()), text)
	}
	return func() { _ = cmd.Process.Kill(); <-done }, nil
}
