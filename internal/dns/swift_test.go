package dns

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// TestSwiftBecomesRace: an upstream that is late, refuses, or answers badly, on
// sockets of the kernel.
func TestSwiftBecomesRace(t *testing.T) {
	nobody := func(dnsmessage.Message, bool) *dnsmessage.Message { return nil }
	fails := func(dnsmessage.Message, bool) *dnsmessage.Message {
		return &dnsmessage.Message{Header: dnsmessage.Header{RCode: dnsmessage.RCodeServerFailure}}
	}
	refused, err := net.ListenUDP("udp4", local4)
	must(t, err)
	must(t, refused.Close())
	closed := refused.LocalAddr().(*net.UDPAddr).AddrPort()
	asked := make(chan bool, 1)
	late := newResolver(t, func(q dnsmessage.Message, tcp bool) *dnsmessage.Message {
		<-asked
		return gives("192.0.2.1", 60)(q, tcp)
	})
	second := newResolver(t, func(dnsmessage.Message, bool) *dnsmessage.Message {
		asked <- true
		return nil
	})
	good := newResolver(t, gives("192.0.2.2", 60))
	for name, tt := range map[string]struct {
		list []netip.AddrPort
		want string
	}{
		"silent":         {[]netip.AddrPort{newResolver(t, nobody).addr, good.addr}, "192.0.2.2"},
		"refused":        {[]netip.AddrPort{closed, good.addr}, "192.0.2.2"},
		"failing":        {[]netip.AddrPort{newResolver(t, fails).addr, good.addr}, "192.0.2.2"},
		"late":           {[]netip.AddrPort{late.addr, second.addr}, "192.0.2.1"},
		"no way":         {[]netip.AddrPort{netip.MustParseAddrPort("[fe80::1%none]:53"), good.addr}, "192.0.2.2"},
		"no route":       {[]netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:53"), good.addr}, "192.0.2.2"},
		"nobody answers": {[]netip.AddrPort{closed}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, Config{Names: world(), Upstreams: upstreams(tt.list...), Stagger: 20 * ms, Timeout: time.Minute})
			at := attach(t, s, "web")
			m := exchange(t, dial(t, "udp", at), question(t, "example.org.", TypeA, 0))
			if data(m) != tt.want || (m.RCode == dnsmessage.RCodeServerFailure) != (tt.want == "") {
				t.Errorf("%v", m.GoString())
			}
			if tt.want != "" {
				if m := exchange(t, dial(t, "udp", at), question(t, "example.org.", TypeA, 0)); data(m) != tt.want {
					t.Errorf("from the cache: %v", m.GoString())
				}
			}
		})
	}
}

// TestSwiftForgery: what is no answer to the question is not taken, whatever
// comes first.
func TestSwiftForgery(t *testing.T) {
	up, err := net.ListenUDP("udp4", local4)
	must(t, err)
	defer up.Close()
	s := newServer(t, Config{Names: world(), Upstreams: upstreams(up.LocalAddr().(*net.UDPAddr).AddrPort()), Stagger: time.Minute, Timeout: time.Minute})
	c := dial(t, "udp", attach(t, s, "web"))
	say(t, c, question(t, "example.org.", TypeA, 0))
	b := make([]byte, 512)
	n, from, err := up.ReadFrom(b)
	must(t, err)
	other, err := net.ListenUDP("udp4", local4)
	must(t, err)
	defer other.Close()
	answer := func(id byte, last byte) []byte {
		msg := append([]byte{}, b[:n]...)
		msg[1] ^= id
		msg[2], msg[3], msg[7] = 0x81, 0x80, 1
		return append(msg, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last)
	}
	_, err = other.WriteTo(answer(0, 66), from) // from another port
	must(t, err)
	for i, last := range []byte{67, 68} {
		_, err = up.WriteTo(answer(byte(1-i), last), from)
		must(t, err)
	}
	var m dnsmessage.Message
	must(t, m.Unpack(hear(t, c)))
	if data(m) != "192.0.2.68" {
		t.Errorf("%v", m.GoString())
	}
}

// TestSwiftShares: who asks the same meanwhile is answered by the same answer.
func TestSwiftShares(t *testing.T) {
	const others = 3
	waiting := make(chan bool)
	up := newResolver(t, func(q dnsmessage.Message, tcp bool) *dnsmessage.Message {
		<-waiting
		return gives("192.0.2.1", 0)(q, tcp)
	})
	s := newServer(t, Config{Names: world(), Upstreams: upstreams(up.addr), Stagger: time.Minute, Timeout: time.Minute})
	at := attach(t, s, "web")
	conns := []net.Conn{dial(t, "udp", at)}
	for range others {
		conns = append(conns, dial(t, "udp", at))
	}
	for _, c := range conns {
		say(t, c, question(t, "example.org.", TypeA, 0))
	}
	for s.Stats()["web"].Forwarded < others+1 { // all are there
	}
	close(waiting)
	for _, c := range conns {
		var m dnsmessage.Message
		must(t, m.Unpack(hear(t, c)))
		if data(m) != "192.0.2.1" {
			t.Errorf("%v", m.GoString())
		}
	}
	if n := up.asked.Load(); n > others {
		t.Errorf("asked upstream %d times", n)
	}
}
