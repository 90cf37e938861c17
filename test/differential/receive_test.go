package differential

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/testnet"
)

// record is what is seen of the shots of a world.
type record struct {
	mu   sync.Mutex
	shot map[uint16]shot
	got  map[uint16]outcome
	odd  []string      // what no shot explains
	news chan struct{} // something was seen
}

func newRecord() *record {
	return &record{shot: map[uint16]shot{}, got: map[uint16]outcome{}, news: make(chan struct{}, 1)}
}

// add makes ready for shots.
func (r *record) add(shots []shot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range shots {
		r.shot[s.id], r.got[s.id] = s, outcome{back: nothing}
	}
}

// of is what was seen of a shot.
func (r *record) of(s shot) outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got[s.id]
}

// change notes what was seen of a shot.
func (r *record) change(id uint16, fn func(shot, *outcome)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, known := r.shot[id]
	if !known {
		return
	}
	o := r.got[id]
	fn(s, &o)
	r.got[id] = o
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// arrives notes that a packet has arrived, and for whom it was.
func (r *record) arrives(id uint16, at string, src, dst netip.Addr) {
	r.change(id, func(s shot, o *outcome) {
		now := sight{at, src.Unmap(), dst.Unmap()}
		if o.arrived != nil && *o.arrived != now {
			r.odd = append(r.odd, s.String()+" arrived twice: "+outcome{arrived: &now}.String())
		}
		o.arrived = &now
	})
}

// comesBack notes what a sender got: the first thing counts.
func (r *record) comesBack(id uint16, b back) {
	r.change(id, func(_ shot, o *outcome) {
		if o.back == nothing {
			o.back = b
		}
	})
}

// listen opens the sockets of a namespace that wait for shots, until the test ends.
func (w *world) listen(r *record, ns *testnet.NS) {
	w.Helper()
	any6 := netip.AddrPortFrom(netip.IPv6Unspecified(), openPort)
	go acceptTCP(r, ns.Name, ns.ListenTCP(w, any6))
	udp := ns.ListenUDP(w, any6)
	raw, err := udp.SyscallConn()
	w.must(err)
	w.must(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1) }))
	w.must(err)
	go answerUDP(r, ns.Name, udp)
	for _, v6 := range []bool{false, true} {
		f := w.icmp(ns, v6)
		w.Cleanup(func() { f.Close() })
		go watchICMP(r, ns.Name, f, v6)
	}
}

func acceptTCP(r *record, at string, l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return // closed
		}
		from := c.RemoteAddr().(*net.TCPAddr).AddrPort()
		r.arrives(from.Port(), at, from.Addr(), c.LocalAddr().(*net.TCPAddr).AddrPort().Addr())
		c.Close()
	}
}

// answerUDP sends each datagram back from the very address it was sent to.
func answerUDP(r *record, at string, c *net.UDPConn) {
	b, oob := make([]byte, 64), make([]byte, 256)
	for {
		n, m, _, from, err := c.ReadMsgUDPAddrPort(b, oob)
		if err != nil {
			return // closed
		}
		dst := packetInfo(oob[:m])
		r.arrives(from.Port(), at, from.Addr(), dst)
		info := unix.Inet6Pktinfo{Addr: dst.As16()}
		// A sender that cannot be reached is told of by what it does not get.
		_, _, _ = c.WriteMsgUDPAddrPort(b[:n], unix.PktInfo6(&info), from)
	}
}

// packetInfo is the destination of a packet that was received.
func packetInfo(oob []byte) netip.Addr {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range list {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16 {
			return netip.AddrFrom16([16]byte(m.Data[:16]))
		}
	}
	return netip.Addr{}
}

// icmp opens a raw socket, which is shown all ICMP of its family that arrives.
func (w *world) icmp(ns *testnet.NS, v6 bool) *os.File {
	w.Helper()
	var f *os.File
	ns.Do(w, func() error {
		domain, proto := unix.AF_INET, unix.IPPROTO_ICMP
		if v6 {
			domain, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
		}
		fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
		if err == nil && v6 {
			err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
		f = os.NewFile(uintptr(fd), "icmp")
		return err
	})
	return f
}

// watchICMP notes echo requests, their answers and errors about them.
func watchICMP(r *record, at string, f *os.File, v6 bool) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	b, oob := make([]byte, 2048), make([]byte, 256)
	for {
		var n, m int
		var from unix.Sockaddr
		rerr := raw.Read(func(fd uintptr) bool {
			n, m, _, from, err = unix.Recvmsg(int(fd), b, oob, 0)
			return err != unix.EAGAIN
		})
		switch {
		case rerr != nil:
			return // closed
		case err != nil:
			continue
		case v6:
			if sa, ok := from.(*unix.SockaddrInet6); ok {
				noteICMP(r, at, netip.AddrFrom16(sa.Addr), packetInfo(oob[:m]), b[:n], true)
			}
		case n >= 20:
			src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
			noteICMP(r, at, src, dst, b[int(b[0]&15)*4:n], false)
		}
	}
}

// noteICMP reads one message.
func noteICMP(r *record, at string, src, dst netip.Addr, b []byte, v6 bool) {
	if len(b) < 8 {
		return
	}
	request, reply, inner := byte(8), byte(0), 20
	if v6 {
		request, reply, inner = 128, 129, 40
	}
	id := binary.BigEndian.Uint16(b[4:])
	switch {
	case b[0] == request && isBroadcast(dst): // seen before the stack ignores it
	case b[0] == request:
		r.arrives(id, at, src, dst)
	case b[0] == reply:
		r.change(id, func(s shot, o *outcome) {
			if s.from == at && s.dst.Addr() == src && o.back == nothing {
				o.back = answer
			}
		})
	case isError(b[0], v6) && len(b) >= 8+inner+8 && b[8+inner] == request:
		r.change(binary.BigEndian.Uint16(b[8+inner+4:]), func(s shot, o *outcome) {
			if s.from == at && s.proto == "icmp" && o.back == nothing {
				o.back = failure
			}
		})
	}
}

// isBroadcast: all prefixes here end at a byte.
func isBroadcast(a netip.Addr) bool { return a.Is4() && a.As4()[3] == 255 }

// isError: destination unreachable and time exceeded.
func isError(typ byte, v6 bool) bool {
	if v6 {
		return typ == 1 || typ == 3
	}
	return typ == 3 || typ == 11
}
