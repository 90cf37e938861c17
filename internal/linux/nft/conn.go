//go:build linux

package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/towpath/towpath/internal/linux/lend"
	rules "github.com/towpath/towpath/internal/nft"
	"golang.org/x/sys/unix"
)

// bufferSize is asked of the kernel for each direction: one transaction has to
// fit the send buffer whole, 10 000 elements take about 2 MB.
const bufferSize = 16 << 20

// readSize is more than any datagram of nf_tables: dumps are cut at 32 KB, and
// one object is at most 64 KB.
const readSize = 128 << 10

// Buffers lends receive buffers to connections.
type Buffers = lend.Buffers[[readSize]byte]

// Conn is a lasting netlink socket in one network namespace. It keeps the
// namespace alive until it is closed. Its methods may be called concurrently.
//
// A table made with rules.TableOwner belongs to the Conn that made it: others,
// of this process too, get EPERM.
type Conn struct {
	sock *netlink.Conn
	raw  syscall.RawConn

	mu    sync.Mutex
	seq   uint32
	buf   *[readSize]byte // lent to who holds mu
	from  *Buffers
	limit int // bytes of a dump; 0: none
}

// Dial opens a socket in the network namespace of the descriptor nsfd; 0 or -1
// means the namespace of the calling thread. It needs CAP_NET_ADMIN there to
// change anything.
func Dial(nsfd int) (*Conn, error) { return dial(nsfd, 0, &Buffers{}) }

// DialUnlike is Dial with a netlink port of chance: by itself the kernel gives
// the number of the process, which one in another pid namespace may have too.
// The connection shares receive buffers with others.
func DialUnlike(nsfd int, b *Buffers) (*Conn, error) {
	// Below 2^31, and far above the largest number of a process (2^22).
	return dial(nsfd, 1<<30|rand.Uint32N(1<<30), b)
}

func dial(nsfd int, port uint32, b *Buffers) (*Conn, error) {
	sock, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: max(nsfd, 0), PID: port})
	if err != nil {
		return nil, fmt.Errorf("dial nf_tables: %w", err)
	}
	c := &Conn{sock: sock, from: b}
	if err := c.configure(); err != nil {
		sock.Close()
		return nil, fmt.Errorf("dial nf_tables: %w", err)
	}
	return c, nil
}

func (c *Conn) configure() error {
	for _, o := range []netlink.ConnOption{netlink.ExtendedAcknowledge, netlink.CapAcknowledge} {
		if err := c.sock.SetOption(o, true); err != nil {
			return err
		}
	}
	// Both try the FORCE variants first, which need CAP_NET_ADMIN in the
	// initial user namespace; else net.core.wmem_max and rmem_max apply.
	if err := c.sock.SetReadBuffer(bufferSize); err != nil {
		return err
	}
	if err := c.sock.SetWriteBuffer(bufferSize); err != nil {
		return err
	}
	raw, err := c.sock.SyscallConn()
	c.raw = raw
	return err
}

// lock waits for the turn to use the socket, and for a buffer.
func (c *Conn) lock() (unlock func()) {
	c.mu.Lock()
	c.buf = c.from.Take()
	return func() {
		c.from.Give(c.buf)
		c.buf = nil
		c.mu.Unlock()
	}
}

// PortID gives the netlink port of the socket, by which the events of its own
// changes are told from those of others.
func (c *Conn) PortID() uint32 { return c.sock.PID() }

// ErrTooMuch is wrapped by the error of a read that a limit cut off.
var ErrTooMuch = errors.New("more there than is read")

// LimitDumps bounds each list that is read to so many bytes: what is in a
// sandbox is its tenant's.
func (c *Conn) LimitDumps(bytes int) { c.limit = bytes }

// Close closes the socket. Tables it owns vanish, unless they have
// rules.TablePersist.
func (c *Conn) Close() error {
	if err := c.sock.Close(); err != nil {
		return fmt.Errorf("close nf_tables socket: %w", err)
	}
	return nil
}

// sizeofGenmsg is the size of struct nfgenmsg, which starts every message.
const sizeofGenmsg = 4

// appendMessage appends a message with its headers.
func appendMessage(b []byte, typ uint16, flags netlink.HeaderFlags, seq uint32, family uint8, resID uint16, attrs []byte) []byte {
	length := unix.SizeofNlMsghdr + sizeofGenmsg + len(attrs)
	b = binary.NativeEndian.AppendUint32(b, uint32(length))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, uint16(flags|netlink.Request))
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, family, 0)
	b = binary.BigEndian.AppendUint16(b, resID)
	b = append(b, attrs...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

// send writes one datagram to the kernel, which works through it before send
// returns.
func (c *Conn) send(b []byte) error {
	var err error
	werr := c.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(err, unix.EAGAIN)
	})
	if werr != nil {
		return werr
	}
	return err
}

// received is one message of a datagram.
type received struct {
	typ   uint16
	flags uint16
	seq   uint32
	pid   uint32
	body  []byte // after the netlink header
}

// receive reads one datagram. The messages point into buf.
func receive(raw syscall.RawConn, buf []byte) ([]received, error) {
	msgs, _, err := receiveControl(raw, buf, nil)
	return msgs, err
}

// receiveControl is receive, and gives the control data beside it, out of oob.
func receiveControl(raw syscall.RawConn, buf, oob []byte) ([]received, []byte, error) {
	var n, oobn, flags int
	var err error
	rerr := raw.Read(func(fd uintptr) bool {
		n, oobn, flags, _, err = unix.Recvmsg(int(fd), buf, oob, 0)
		return !errors.Is(err, unix.EAGAIN)
	})
	switch {
	case rerr != nil:
		return nil, nil, rerr
	case err != nil:
		return nil, nil, err
	case flags&unix.MSG_TRUNC != 0:
		return nil, nil, fmt.Errorf("datagram longer than %d bytes", len(buf))
	}
	msgs, err := split(buf[:n])
	return msgs, oob[:oobn], err
}

// split divides a datagram into messages.
func split(b []byte) ([]received, error) {
	var out []received
	for len(b) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.SizeofNlMsghdr || length > len(b) {
			return nil, fmt.Errorf("message of %d bytes in a datagram of %d", length, len(b))
		}
		out = append(out, received{
			typ:   binary.NativeEndian.Uint16(b[4:]),
			flags: binary.NativeEndian.Uint16(b[6:]),
			seq:   binary.NativeEndian.Uint32(b[8:]),
			pid:   binary.NativeEndian.Uint32(b[12:]),
			body:  b[unix.SizeofNlMsghdr:length],
		})
		b = b[min(len(b), (length+3)&^3):]
	}
	return out, nil
}

// kind gives the nf_tables message; false if it is another subsystem's.
func (r received) kind() (uint8, bool) { return uint8(r.typ), r.typ>>8 == subsysNFTables }

// family and attrs take the body of an nf_tables message apart.
func (r received) family() rules.Family { return rules.Family(r.body[0]) }

func (r received) attrs() []byte { return r.body[min(sizeofGenmsg, len(r.body)):] }

// ack reads an NLMSG_ERROR: the errno, 0 for success, and the kernel's text.
func (r received) ack() (syscall.Errno, string) {
	if len(r.body) < 4 {
		return unix.EBADMSG, ""
	}
	errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(r.body)))
	rest := r.body[4:]
	// With capped acks only the header of the request comes back.
	if r.flags&uint16(netlink.AcknowledgeTLVs) == 0 || len(rest) < unix.SizeofNlMsghdr {
		return errno, ""
	}
	rest = rest[unix.SizeofNlMsghdr:]
	if r.flags&uint16(netlink.Capped) == 0 {
		length := int(binary.NativeEndian.Uint32(r.body[4:])) - unix.SizeofNlMsghdr
		rest = rest[max(0, min(length, len(rest))):]
	}
	ad, err := netlink.NewAttributeDecoder(rest)
	if err != nil {
		return errno, ""
	}
	for ad.Next() {
		if ad.Type() == attrExtAckMsg {
			return errno, ad.String()
		}
	}
	return errno, ""
}

// attrExtAckMsg is NLMSGERR_ATTR_MSG.
const attrExtAckMsg = 1

// withContext runs fn, cutting its reads and writes short when ctx ends.
func withContext(ctx context.Context, sock *netlink.Conn, fn func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		_ = sock.SetDeadline(time.Unix(1, 0))
	})
	err := fn()
	if !stop() {
		<-cut
		_ = sock.SetDeadline(time.Time{})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return ctx.Err()
		}
	}
	return err
}
