package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/testnet"
)

// TestMartians: what comes in by a link and is for a loopback address reaches
// neither a program of the host that listens there nor what is published there,
// though the bridges have route_localnet; nor does what claims to be from one.
func TestMartians(t *testing.T) {
	s := newScene(t)
	s.must("publish", "web", "127.0.0.1:8081:80/udp", "[::1]:8081:80/udp")
	inside := s.web.ns.ListenUDP(t, netip.AddrPortFrom(netip.IPv6Unspecified(), 80))
	program := s.host.ListenUDP(t, netip.MustParseAddrPort("127.0.0.1:8082"))
	for what, answer := range map[string]func() error{
		"published": func() error { return datagram(s, s.host, netip.MustParseAddrPort("127.0.0.1:8081"), inside) },
		"program":   func() error { return datagram(s, s.host, netip.MustParseAddrPort("127.0.0.1:8082"), program) },
	} {
		if err := answer(); err != nil {
			t.Fatalf("the host itself does not reach the %s port: %v", what, err)
		}
	}
	uplink := s.outside.Packets(t, "eth0")
	hostMAC := s.member(s.host, "eth0", host4(), host6()).mac
	strangerMAC := s.member(s.outside, "eth0", outside4(), outside6()).mac
	loop4, loop6 := netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	for _, port := range []uint16{8081, 8082} {
		datagram4 := func(src, dst netip.Addr) []byte {
			return testnet.IPv4(unix.IPPROTO_UDP, src, dst, testnet.UDP(7, port, []byte("martian")))
		}
		datagram6 := func(src netip.Addr) []byte {
			return testnet.IPv6(unix.IPPROTO_UDP, 64, src, loop6, testnet.UDP(7, port, []byte("martian")))
		}
		for _, b := range [][]byte{
			testnet.Ethernet(hostMAC, strangerMAC, unix.ETH_P_IP, datagram4(outside4(), loop4)),
			testnet.Ethernet(hostMAC, strangerMAC, unix.ETH_P_IP, datagram4(loop4, host4())),
			testnet.Ethernet(hostMAC, strangerMAC, unix.ETH_P_IPV6, datagram6(outside6())),
		} {
			_, err := uplink.Write(b)
			s.check(err)
		}
		s.send(s.evil.mac, s.gateway, unix.ETH_P_IP, datagram4(s.evil.v4, loop4))
		s.send(s.evil.mac, s.gateway, unix.ETH_P_IPV6, datagram6(s.evil.v6))
	}
	s.eventually("the rules count what was sent", func() bool {
		out := s.must("sandbox", "inspect", "web")
		return regexp.MustCompile(`martian handle \d+: .*packets 4 bytes \d+ drop comment \\"loopback destination`).MatchString(out) &&
			regexp.MustCompile(`martian handle \d+: .*packets 2 bytes \d+ drop comment \\"loopback source`).MatchString(out)
	})
	// What the host sends now comes after all that was not to come.
	s.check(datagram(s, s.host, netip.MustParseAddrPort("127.0.0.1:8081"), inside))
	s.check(datagram(s, s.host, netip.MustParseAddrPort("127.0.0.1:8082"), program))
	s.clean()
}

// datagram sends a datagram, which must be the first that a socket receives.
func datagram(s *scene, from *testnet.NS, to netip.AddrPort, at *net.UDPConn) error {
	s.Helper()
	c, err := from.DialUDP(s.Context(), to)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("good")); err != nil {
		return err
	}
	b := make([]byte, 64)
	if err := at.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	n, _, err := at.ReadFromUDPAddrPort(b)
	if err == nil && string(b[:n]) != "good" {
		err = fmt.Errorf("received %q", b[:n])
	}
	return err
}
