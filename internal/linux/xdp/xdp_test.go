//go:build linux

package xdp_test

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/xdp"
	"github.com/towpath/towpath/internal/testnet"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

// TestInject gives a namespace a datagram as if its neighbour had sent it.
func TestInject(t *testing.T) {
	testnet.Require(t, "netns", "root", "bpf")
	a, b := testnet.New(t, "a"), testnet.New(t, "b")
	testnet.Link(t, a, b, "eth0", "eth0", []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")}, []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24")})
	l, err := a.Conn(t).LinkByName(t.Context(), "eth0")
	if err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort("10.9.0.1:7000")
	c := a.ListenUDP(t, to)
	x, err := xdp.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	frame := append(l.MAC[:], 2, 0, 0, 0, 0, 9, 8, 0)
	frame = append(frame, 0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0x66, 0xb3, 10, 9, 0, 7, 10, 9, 0, 1)
	frame = append(frame, 0x11, 0x5c, 0x1b, 0x58, 0, 12, 0, 0, 'h', 'e', 'r', 'e')
	if err := x.Inject(a.F, l.Index, frame); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:n]) != "here" || from != netip.MustParseAddrPort("10.9.0.7:4444") {
		t.Errorf("got %q from %s: %v", buf[:n], from, err)
	}
	if err := x.Inject(a.F, 9999, frame); !errors.Is(err, unix.ENODEV) {
		t.Errorf("at no link: %v, want ENODEV", err)
	}
}
