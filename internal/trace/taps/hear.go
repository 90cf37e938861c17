//go:build linux

package taps

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/linux/ct"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/trace"
)

// Start is from when times count.
func (s *Session) Start() time.Time { return s.start }

// Heard is the time until which all that happened was heard of. It is not now: on
// a machine with much to do, what is read may be older.
func (s *Session) Heard() time.Duration { return s.heard }

// Hear notes what is seen until enough says that it is, or ctx ends; enough may
// take away what it needs no more. Times count from start or, if that is zero,
// from when the session was opened.
func (s *Session) Hear(ctx context.Context, start time.Time, enough func(*trace.Watch) bool) (trace.Watch, error) {
	if !start.IsZero() {
		s.start = start
	}
	fds := make([]unix.PollFd, len(s.taps))
	for i, t := range s.taps {
		fds[i] = unix.PollFd{Fd: int32(t.fd), Events: unix.POLLIN}
	}
	for ctx.Err() == nil && !enough(&s.seen) {
		asked := time.Now()
		n, err := unix.Poll(fds, int(beat.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return s.seen, os.NewSyscallError("poll", err)
		}
		for i := range fds {
			if n <= 0 || fds[i].Revents == 0 {
				continue
			}
			if err := s.drain(s.taps[i]); err != nil {
				return s.seen, fmt.Errorf("hear of packets: %w", err)
			}
		}
		s.heard = asked.Sub(s.start)
	}
	return s.seen, nil
}

// drain reads what a socket has.
func (s *Session) drain(t tap) error {
	if t.also != nil {
		return t.also.Read(s.start, &s.seen, most)
	}
	if t.ring != nil {
		t.ring.read(func(h heard) { s.sighting(t, h) })
		lost, err := t.ring.lost()
		s.seen.Lost = s.seen.Lost || lost
		return err
	}
	for {
		n, _, err := unix.Recvfrom(t.fd, s.buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			return nil
		case errors.Is(err, unix.ENOBUFS):
			s.seen.Lost = true
			continue
		case err != nil:
			return os.NewSyscallError("recvfrom", err)
		}
		s.rulings(t, s.buf[:n])
		if s.full() {
			return nil
		}
	}
}

// full reports whether no more is kept.
func (s *Session) full() bool {
	full := len(s.seen.Sightings)+len(s.seen.Crossings)+len(s.seen.Drops)+len(s.seen.Rulings)+len(s.seen.Renamed) >= most
	s.seen.Lost = s.seen.Lost || full
	return full
}

// sighting notes a packet, if it has to do with the mark.
func (s *Session) sighting(t tap, h heard) {
	p, ok := trace.ParsePacket(h.b)
	if !ok || s.full() {
		return
	}
	if s.mark != 0 && !s.mark.Has(p) {
		return
	}
	s.seen.Sightings = append(s.seen.Sightings, trace.Sighting{At: h.at.Sub(s.start), Space: t.space, Link: t.links[h.index], Out: h.out, Packet: p})
}

// Attributes of NFT_MSG_TRACE (linux/netfilter/nf_tables.h).
const (
	msgTrace         = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_TRACE
	traceTable       = 1  // NFTA_TRACE_TABLE
	traceChain       = 2  // NFTA_TRACE_CHAIN
	traceHandle      = 3  // NFTA_TRACE_RULE_HANDLE
	traceType        = 4  // NFTA_TRACE_TYPE
	traceVerdict     = 5  // NFTA_TRACE_VERDICT
	traceID          = 6  // NFTA_TRACE_ID
	traceNetwork     = 8  // NFTA_TRACE_NETWORK_HEADER
	traceTransport   = 9  // NFTA_TRACE_TRANSPORT_HEADER
	traceIn          = 10 // NFTA_TRACE_IIF
	traceOut         = 12 // NFTA_TRACE_OIF
	tracePolicy      = 16 // NFTA_TRACE_POLICY
	verdictCode      = 1  // NFTA_VERDICT_CODE
	typePolicy       = 1  // NFT_TRACETYPE_POLICY
	sizeofNlmsg      = unix.SizeofNlMsghdr
	sizeofGenmsg     = 4
	familyAt         = sizeofNlmsg
	alignmentOfNlmsg = 4
)

// rulings notes the messages of a datagram of the packet filter.
func (s *Session) rulings(t tap, b []byte) {
	for len(b) >= sizeofNlmsg+sizeofGenmsg {
		n := int(binary.NativeEndian.Uint32(b))
		if n < sizeofNlmsg+sizeofGenmsg || n > len(b) {
			return
		}
		switch binary.NativeEndian.Uint16(b[4:]) {
		case ct.EventNew:
			s.renamed(b[sizeofNlmsg:n])
		case msgTrace:
			if r, ok := decodeRuling(b[familyAt], b[sizeofNlmsg+sizeofGenmsg:n]); ok {
				r.At, r.Space = time.Since(s.start), t.space
				t.errorOf(&r, s.mark)
				s.seen.Rulings = append(s.seen.Rulings, r)
				s.stopped(t, r)
			}
		}
		b = b[min((n+alignmentOfNlmsg-1)&^(alignmentOfNlmsg-1), len(b)):]
	}
}

// renamed notes a connection of which a translation has changed the source port, or
// the identifier of echo requests, or both addresses: by what is left of it nobody
// would know it again.
func (s *Session) renamed(event []byte) {
	e, err := ct.DecodeEvent(event)
	if err != nil || s.full() {
		return
	}
	moved := e.Orig.Src.Addr() != e.Reply.Dst.Addr() && e.Orig.Dst.Addr() != e.Reply.Src.Addr()
	if !moved && e.Orig.Src.Port() == e.Reply.Dst.Port() && e.OrigID == e.ReplyID {
		return
	}
	proto := map[uint8]string{
		unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_ICMPV6: "icmpv6",
	}[e.Proto]
	request := map[uint8]uint8{unix.IPPROTO_ICMP: 8, unix.IPPROTO_ICMPV6: 128}[e.Proto] // echo: RFC 792, RFC 4443
	flow := func(src, dst netip.AddrPort) api.Flow {
		return api.Flow{Proto: proto, Src: src.Addr(), Sport: src.Port(), Dst: dst.Addr(), Dport: dst.Port(), ICMPType: request}
	}
	s.seen.Renamed = append(s.seen.Renamed, trace.Renamed{
		Was: flow(e.Orig.Src, e.Orig.Dst), Is: flow(e.Reply.Dst, e.Reply.Src), WasEcho: e.OrigID, IsEcho: e.ReplyID,
	})
}

// errorOf marks the packet of a message as an ICMP error about one with the mark,
// if a rule said that it is.
func (t tap) errorOf(r *trace.Ruling, mark trace.Mark) {
	p := r.Packet
	if p == nil || !p.Error() || mark == 0 {
		return
	}
	if r.Table == t.table && r.Handle != 0 {
		t.errors[r.ID] = true
	}
	if p.Quoted == nil && t.errors[r.ID] {
		p.Quoted = mark.Packet()
	}
}

// decodeRuling reads one message. Not all have headers, and those of the
// transport stand apart from those of the network.
func decodeRuling(family uint8, attrs []byte) (trace.Ruling, bool) {
	ad, err := netlink.NewAttributeDecoder(attrs)
	if err != nil {
		return trace.Ruling{}, false
	}
	ad.ByteOrder = binary.BigEndian
	r := trace.Ruling{Family: rules.Family(family)}
	var typ, policy uint32
	var network, transport []byte
	for ad.Next() {
		switch ad.Type() {
		case traceTable:
			r.Table = ad.String()
		case traceChain:
			r.Chain = ad.String()
		case traceHandle:
			r.Handle = ad.Uint64()
		case traceType:
			typ = ad.Uint32()
		case traceVerdict:
			ad.Nested(func(n *netlink.AttributeDecoder) error {
				n.ByteOrder = binary.BigEndian
				for n.Next() {
					if n.Type() == verdictCode {
						r.Verdict = verdictWord(int32(n.Uint32()))
					}
				}
				return nil
			})
		case traceID:
			r.ID = ad.Uint32()
		case traceNetwork:
			network = ad.Bytes()
		case traceTransport:
			transport = ad.Bytes()
		case traceIn:
			r.In = int(ad.Uint32())
		case traceOut:
			r.Out = int(ad.Uint32())
		case tracePolicy:
			policy = ad.Uint32()
		}
	}
	if ad.Err() != nil || r.Table == "" {
		return r, false
	}
	if typ == typePolicy {
		r.Handle, r.Verdict = 0, verdictWord(int32(policy))
	}
	if p, ok := trace.ParsePacket(append(network[:len(network):len(network)], transport...)); ok {
		r.Packet = &p
	}
	return r, true
}

// verdictWord is the word for a verdict of the kernel.
func verdictWord(code int32) string {
	switch rules.VerdictCode(code & 0xff) {
	case rules.Drop:
		return "drop"
	case rules.Accept:
		return "accept"
	case rules.Queue:
		return "queue"
	}
	switch rules.VerdictCode(code) {
	case rules.Jump:
		return "jump"
	case rules.Goto:
		return "goto"
	case rules.Return:
		return "return"
	}
	return "continue"
}
