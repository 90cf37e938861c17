//go:build linux

// Package rt has one job: rtnetlink. It turns links, addresses, routes, rules,
// neighbours and their notifications into plain structs and back, over one
// socket in one network namespace, one message for each change.
//
// It keeps nothing between calls but the socket. Indexes are interface indexes
// of the namespace the socket is in. Every refusal by the kernel is an *Error.
package rt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// dumpAttempts bounds how often a listing is begun again because the kernel's
// tables changed while it was read.
const dumpAttempts = 8

var (
	// ErrTooMany says that a listing was cut off at its limit.
	ErrTooMany = errors.New("more entries than the limit")
	// ErrInterrupted says that the kernel's tables changed during each of
	// several readings (NLM_F_DUMP_INTR), so that none was consistent.
	ErrInterrupted = errors.New("tables changed while being listed")
	// ErrClosed says that the Conn was closed.
	ErrClosed = errors.New("rtnetlink connection is closed")
)

// Error is a refusal by the kernel.
type Error struct {
	Errno unix.Errno
	// Message is the kernel's own explanation; empty where it gives none.
	Message string
	// Offset is that of the attribute at fault in the request, in bytes; 0
	// where the kernel names none.
	Offset uint32
}

// Error gives the error number's text, and the kernel's explanation.
func (e *Error) Error() string {
	if e.Message == "" {
		return e.Errno.Error()
	}
	return e.Errno.Error() + ": " + e.Message
}

// Unwrap gives the error number, for errors.Is(err, unix.EEXIST).
func (e *Error) Unwrap() error { return e.Errno }

// Conn is a connection to rtnetlink in one network namespace, which it keeps
// alive until it is closed. It may be used by several goroutines; one request is
// under way at a time.
type Conn struct {
	turn chan struct{} // holds one token: the right to use what follows
	sock *socket
	err  error // why sock is nil
	seq  uint32
	buf  *[recvBuffer]byte // lent to who has the turn
	from *Buffers

	limit int // of listings that are given none
}

// Dial connects in the namespace of nsfd, or, when nsfd is not positive, in the
// namespace of the calling thread. nsfd is not needed after Dial.
func Dial(nsfd int) (*Conn, error) { return DialWith(nsfd, &Buffers{}) }

// DialWith is Dial of a connection that shares receive buffers with others.
func DialWith(nsfd int, b *Buffers) (*Conn, error) {
	s, err := openSocket(nsfd)
	if err != nil {
		return nil, fmt.Errorf("dial rtnetlink: %w", err)
	}
	c := &Conn{turn: make(chan struct{}, 1), sock: s, from: b}
	c.turn <- struct{}{}
	return c, nil
}

// LimitLists bounds every listing that is given no limit of its own, for
// namespaces whose owner may be hostile: more than n entries are an ErrTooMany
// beside the first n.
// 0, as after Dial, is no limit. It must be called before the Conn is shared.
func (c *Conn) LimitLists(n int) { c.limit = n }

// Close closes the socket. It waits for a request that is under way.
func (c *Conn) Close() error {
	<-c.turn
	defer func() { c.turn <- struct{}{} }()
	if c.sock == nil {
		return nil
	}
	err := c.sock.close()
	c.sock, c.err = nil, ErrClosed
	return err
}

// request is a message to be sent. A body is the family's fixed header and the
// attributes after it.
type request struct {
	typ   uint16
	flags netlink.HeaderFlags
	body  []byte
}

// append writes the request as a message, with its struct nlmsghdr.
func (r request) append(b []byte, seq uint32) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(r.body)))
	b = binary.NativeEndian.AppendUint16(b, r.typ)
	b = binary.NativeEndian.AppendUint16(b, uint16(r.flags))
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0) // the port: the kernel knows it
	b = append(b, r.body...)
	return append(b, make([]byte, -len(b)&(unix.NLMSG_ALIGNTO-1))...)
}

// do sends a request that is no dump, and gives each answer before the
// acknowledgement to each, if each is not nil.
func (c *Conn) do(ctx context.Context, req request, each func(typ uint16, body []byte) error) error {
	req.flags |= netlink.Request | netlink.Acknowledge
	return c.exchange(ctx, req, each)
}

// dump sends a dump request and gives each answer to each. An error of each ends
// the dump, and is returned.
func (c *Conn) dump(ctx context.Context, req request, each func(typ uint16, body []byte) error) error {
	req.flags |= netlink.Request | netlink.Dump
	return c.exchange(ctx, req, each)
}

// exchange sends a request and reads until its last answer.
func (c *Conn) exchange(ctx context.Context, req request, each func(uint16, []byte) error) error {
	release, err := c.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	seq, err := c.send(req)
	if err != nil {
		return err
	}
	end := c.sock.until(ctx)
	complete, err := c.collect(seq, each)
	err = end(err)
	if !complete && req.flags&netlink.Dump == netlink.Dump {
		c.reopen()
	}
	return err
}

// take waits for the right to use the socket, and fails where there is none.
func (c *Conn) take(ctx context.Context) (release func(), err error) {
	select {
	case <-c.turn:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	c.buf = c.from.Take()
	release = func() {
		c.from.Give(c.buf)
		c.buf = nil
		c.turn <- struct{}{}
	}
	if err = context.Cause(ctx); err == nil && c.sock == nil {
		err = c.err
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// send gives the request the next sequence number and sends it. Late answers of
// a request that was given up carry another number, and are passed over.
func (c *Conn) send(req request) (uint32, error) {
	c.seq++
	return c.seq, c.sock.send(req.append(nil, c.seq))
}

// collect reads answers to seq until the last one. complete tells whether that
// one was seen, so that nothing more is to come.
func (c *Conn) collect(seq uint32, each func(uint16, []byte) error) (complete bool, err error) {
	a := answers{seq: seq, each: each}
	for !complete && err == nil {
		var n int
		if n, _, err = c.sock.recv(c.buf[:], nil); err == nil {
			complete, err = a.take(c.buf[:n])
		}
	}
	return complete, err
}

// answers takes the answers to one request.
type answers struct {
	seq         uint32
	each        func(typ uint16, body []byte) error // may be nil
	interrupted bool
}

// take takes one datagram, and tells whether the last answer was in it. The
// kernel marks only the message in which it first saw that its tables changed:
// that can be any of them, also the last, which says that the dump is done.
func (a *answers) take(b []byte) (complete bool, err error) {
	for len(b) > 0 {
		var m message
		if m, b, err = nextMessage(b); err != nil {
			return false, err
		}
		if m.seq != a.seq {
			continue
		}
		a.interrupted = a.interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
		switch {
		case m.typ == unix.NLMSG_ERROR || m.typ == unix.NLMSG_DONE:
			if err = m.result(); err == nil && a.interrupted {
				err = ErrInterrupted
			}
			return true, err
		case a.each != nil:
			if err := a.each(m.typ, m.body); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// reopen replaces the socket after a dump that was given up: the kernel goes on
// with it whenever there is room, and refuses the next one with EBUSY.
func (c *Conn) reopen() {
	ns, err := c.sock.namespace()
	c.sock.close()
	c.sock = nil
	if err == nil {
		defer ns.Close()
		c.sock, err = openSocket(int(ns.Fd()))
	}
	if err != nil {
		c.sock, c.err = nil, fmt.Errorf("reopen rtnetlink connection after an unfinished listing: %w", err)
	}
}

// message is one received message.
type message struct {
	typ   uint16
	flags uint16
	seq   uint32
	body  []byte
}

// nextMessage takes the first message off b.
func nextMessage(b []byte) (message, []byte, error) {
	if len(b) < unix.SizeofNlMsghdr {
		return message{}, nil, fmt.Errorf("netlink datagram ends after %d bytes of a header", len(b))
	}
	length := int(binary.NativeEndian.Uint32(b))
	if length < unix.SizeofNlMsghdr || length > len(b) {
		return message{}, nil, fmt.Errorf("netlink message of %d bytes in %d", length, len(b))
	}
	m := message{
		typ:   binary.NativeEndian.Uint16(b[4:]),
		flags: binary.NativeEndian.Uint16(b[6:]),
		seq:   binary.NativeEndian.Uint32(b[8:]),
		body:  b[unix.SizeofNlMsghdr:length],
	}
	return m, b[min((length+3)&^3, len(b)):], nil
}

// result reads the error number of an acknowledgement or of the end of a dump,
// and the kernel's explanation behind it (NETLINK_EXT_ACK).
func (m message) result() error {
	if len(m.body) < 4 {
		return nil // the end of a dump needs no number
	}
	errno := -int32(binary.NativeEndian.Uint32(m.body))
	if errno == 0 {
		return nil
	}
	e := &Error{Errno: unix.Errno(errno)}
	attrs := m.body[4:]
	if m.typ == unix.NLMSG_ERROR {
		attrs = m.afterRequest()
	}
	if m.flags&unix.NLM_F_ACK_TLVS == 0 {
		return e
	}
	ad, err := netlink.NewAttributeDecoder(attrs)
	if err != nil {
		return e // the number is worth more than a complaint about its comment
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.NLMSGERR_ATTR_MSG:
			e.Message = ad.String()
		case unix.NLMSGERR_ATTR_OFFS:
			e.Offset = ad.Uint32()
		}
	}
	return e
}

// afterRequest skips the copy of the request in an acknowledgement: its header
// alone when NLM_F_CAPPED is set, all of it otherwise.
func (m message) afterRequest() []byte {
	rest := m.body[4:]
	if len(rest) < unix.SizeofNlMsghdr {
		return nil
	}
	size := unix.SizeofNlMsghdr
	if m.flags&unix.NLM_F_CAPPED == 0 {
		size = (int(binary.NativeEndian.Uint32(rest)) + 3) &^ 3
	}
	return rest[min(size, len(rest)):]
}
