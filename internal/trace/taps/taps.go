//go:build linux

// Package taps watches packets without BPF: by packet sockets (packet(7)) on all
// links of the namespaces it is given, and by rules that make the packet filter
// tell what it decides (nft monitor trace). It sees headers only, and only of
// packets with the mark it is given; when its process dies, nothing is left.
package taps

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/ct"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/trace"
)

const (
	// headers is how many bytes of a packet are taken: those of IPv6, of ICMP,
	// and of the packet that an error is about.
	headers = 128
	// most is how many sightings and rulings are kept.
	most = 4096
	// beat is how long a wait for packets takes at most before it is asked
	// whether to go on.
	beat = 20 * time.Millisecond
	// rulingsBuffer is how many bytes of messages of the packet filter wait to be
	// read at most, in a namespace.
	rulingsBuffer = 2 << 20
	// groupTrace is NFNLGRP_NFTRACE of linux/netfilter/nfnetlink.h.
	groupTrace = 9
)

// Session watches some namespaces until it is closed.
type Session struct {
	mark  trace.Mark
	taps  []tap
	armed []armedSpace
	start time.Time
	heard time.Duration
	seen  trace.Watch
	buf   []byte
}

// armedSpace is a namespace whose packet filter was made to tell, and the table
// that does it.
type armedSpace struct {
	conn        *nft.Conn
	space, name string
}

// tap is a socket that something is heard by.
type tap struct {
	fd    int
	space string
	ring  *ring // nil: the packet filter's
	links map[int]string
	also  Source // nil: none
	// table is the one that makes the packet filter tell, errors the numbers of
	// the ICMP errors that it told of.
	table  string
	errors map[uint32]bool
}

// Source is something else that tells of packets.
type Source interface {
	// FD is readable when there is something to read.
	FD() int
	// Read notes it, of all together so much at most. Times count from start.
	Read(start time.Time, w *trace.Watch, most int) error
	Close() error
}

// Space is a namespace to watch, and the names of its links by their indexes.
type Space struct {
	Name  string
	Inode uint64
	File  *os.File
	Links map[int]string
}

// Open starts to watch for packets of a protocol with the mark or, with neither,
// for all that begin a flow or answer one that begins.
func Open(ctx context.Context, spaces []Space, proto uint8, mark trace.Mark) (*Session, error) {
	return open(ctx, spaces, proto, mark, nil)
}

// OpenWith is Open, but that another source sees the packets, and here it is only
// heard what rules tell of them. The source is closed with the session.
func OpenWith(ctx context.Context, also Source, spaces []Space, proto uint8, mark trace.Mark) (*Session, error) {
	return open(ctx, spaces, proto, mark, also)
}

func open(ctx context.Context, spaces []Space, proto uint8, mark trace.Mark, also Source) (*Session, error) {
	s := &Session{mark: mark, start: time.Now(), buf: make([]byte, 1<<16)}
	if also != nil {
		s.taps = append(s.taps, tap{fd: also.FD(), also: also})
	}
	for _, sp := range spaces {
		if err := s.watch(ctx, sp, proto, also == nil); err != nil {
			return nil, errors.Join(fmt.Errorf("watch %s: %w", sp.Name, err), s.Close())
		}
	}
	return s, nil
}

// watch opens the sockets in a namespace, and arms its packet filter. A kernel
// without nf_tables has none.
func (s *Session) watch(ctx context.Context, sp Space, proto uint8, links bool) error {
	err := netns.Do(sp.File, func() error {
		if links {
			r, err := packets(s.mark)
			if err != nil {
				return err
			}
			s.taps = append(s.taps, tap{fd: r.fd, space: sp.Name, ring: r, links: sp.Links})
		}
		fd, err := rulings(s.mark == 0)
		if err != nil {
			return err
		}
		s.taps = append(s.taps, tap{fd: fd, space: sp.Name, links: sp.Links, errors: map[uint32]bool{}})
		return nil
	})
	if err != nil {
		return err
	}
	c, err := nft.Dial(int(sp.File.Fd()))
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil
	}
	if err != nil {
		return err
	}
	name, err := arm(ctx, c, sp.Links, proto, s.mark)
	s.armed = append(s.armed, armedSpace{c, sp.Name, name})
	s.taps[len(s.taps)-1].table = name
	return err
}

// Close ends it. The tables that armed the packet filter go with their sockets.
func (s *Session) Close() error {
	var errs []error
	for _, t := range s.taps {
		switch {
		case t.ring != nil:
			errs = append(errs, t.ring.close())
		case t.also != nil:
			errs = append(errs, t.also.Close())
		default:
			errs = append(errs, unix.Close(t.fd))
		}
	}
	for _, a := range s.armed {
		errs = append(errs, a.conn.Close())
	}
	s.taps, s.armed = nil, nil
	return errors.Join(errs...)
}

// packets opens a packet socket on all links, which sees packets with the mark
// only, and of them the headers.
func packets(mark trace.Mark) (*ring, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("packet socket", err)
	}
	program := filter(uint32(mark))
	if mark == 0 {
		program = beginnings()
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("packet filter", err), unix.Close(fd))
	}
	r, err := newRing(fd)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	// From here on it hears.
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL)}); err != nil {
		return nil, errors.Join(os.NewSyscallError("bind packet socket", err), r.close())
	}
	return r, nil
}

func networkOrder(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

// filter takes a packet in which one of those places holds the mark at which
// ports or the identifier of an echo are, in the packet itself or in the one that
// an ICMP error quotes. Offsets count from the IP header (SOCK_DGRAM).
func filter(mark uint32) []unix.SockFilter {
	const (
		load8  = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		load16 = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
		and    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret    = unix.BPF_RET | unix.BPF_K
	)
	places := func(header uint32) []uint32 {
		return []uint32{header, header + 2, header + 4, 2*header + 8, 2*header + 10, 2*header + 12}
	}
	v4, v6 := places(20), places(40)
	out := []unix.SockFilter{{Code: load8}, {Code: and, K: 0xf0}, {Code: equal, K: 0x40, Jf: uint8(2*len(v4) + 1)}}
	end := 2*(len(v4)+len(v6)) + 3 // the last instruction, from the first test
	for i, list := range [][]uint32{v4, v6} {
		if i == 1 {
			out = append(out, unix.SockFilter{Code: equal, K: 0x60, Jf: uint8(2 * len(v6))})
		}
		for _, at := range list {
			out = append(out, unix.SockFilter{Code: load16, K: at})
			out = append(out, unix.SockFilter{Code: equal, K: mark, Jt: uint8(end - (len(out) - 3) - 1)})
		}
		if i == 0 {
			out = append(out, unix.SockFilter{Code: ret})
		}
	}
	return append(out, unix.SockFilter{Code: ret}, unix.SockFilter{Code: ret, K: headers})
}

// beginnings takes the packets that begin a flow or answer one: of TCP those with
// SYN or RST, all of UDP, of ICMP all but neighbour discovery.
func beginnings() []unix.SockFilter {
	const (
		load  = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		bits  = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret   = unix.BPF_RET | unix.BPF_K
		// synOrRST are flags of TCP, in byte 13 of its header.
		synOrRST = 0x06
	)
	return []unix.SockFilter{
		{Code: load},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf0},
		{Code: equal, K: 0x40, Jf: 6}, // 2
		{Code: load, K: 9},
		{Code: equal, K: unix.IPPROTO_TCP, Jf: 2},
		{Code: load, K: 20 + 13},
		{Code: bits, K: synOrRST, Jt: 13, Jf: 12},
		{Code: equal, K: unix.IPPROTO_UDP, Jt: 12},
		{Code: equal, K: unix.IPPROTO_ICMP, Jt: 11, Jf: 10},
		{Code: equal, K: 0x60, Jf: 9}, // 9
		{Code: load, K: 6},
		{Code: equal, K: unix.IPPROTO_TCP, Jf: 2},
		{Code: load, K: 40 + 13},
		{Code: bits, K: synOrRST, Jt: 6, Jf: 5},
		{Code: equal, K: unix.IPPROTO_UDP, Jt: 5},
		{Code: equal, K: unix.IPPROTO_ICMPV6, Jf: 3},
		{Code: load, K: 40},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: 133, Jf: 2}, // router solicitation, RFC 4861
		{Code: ret},
		{Code: ret},
		{Code: ret, K: headers}, // 20
	}
}

// rulings opens a socket that hears what the packet filter tells and, where flows
// are told from each other by their ports, of connections that begin.
func rulings(connections bool) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, os.NewSyscallError("netlink socket", err)
	}
	// Every probe in the namespace hears of the packets of all. A socket of an
	// ordinary user gets as much as net.core.rmem_max allows.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, rulingsBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, rulingsBuffer)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, groupTrace)
	}
	if err == nil && connections {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, ct.GroupNew)
	}
	if err != nil {
		return 0, errors.Join(os.NewSyscallError("join group of traces", err), unix.Close(fd))
	}
	return fd, nil
}
