//go:build linux

package taps

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is the memory that a packet socket shares with the kernel (packet_mmap):
// the kernel writes the time of each packet into it as it comes by, which a
// socket that is read does not get for the first of them, and when it is full
// the kernel counts what it leaves out.
type ring struct {
	fd   int
	mem  []byte
	next int
}

const (
	// frame is what a packet takes: its header, its address, its first bytes.
	frame = 256
	// frames is how many packets wait to be read at most, of a namespace.
	frames = 256
	// addressAt is where the sockaddr_ll of a frame begins: behind the header,
	// aligned to TPACKET_ALIGNMENT.
	addressAt = (unix.SizeofTpacket2Hdr + 15) &^ 15
)

func newRing(fd int) (*ring, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return nil, os.NewSyscallError("packet version", err)
	}
	req := unix.TpacketReq{Block_size: frame * frames, Block_nr: 1, Frame_size: frame, Frame_nr: frames}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return nil, os.NewSyscallError("packet ring", err)
	}
	mem, err := unix.Mmap(fd, 0, frame*frames, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap packet ring", err)
	}
	return &ring{fd: fd, mem: mem}, nil
}

func (r *ring) close() error {
	return errors.Join(unix.Munmap(r.mem), unix.Close(r.fd))
}

// heard is a packet as it is in the ring.
type heard struct {
	at    time.Time
	index int
	out   bool
	b     []byte // from the IP header on; the ring's until the next
}

// read gives the packets that wait to fn, one after the other.
func (r *ring) read(fn func(heard)) {
	for range frames {
		f := r.mem[r.next*frame : (r.next+1)*frame]
		h := (*unix.Tpacket2Hdr)(unsafe.Pointer(&f[0])) //nolint:gosec // the kernel's layout
		if atomic.LoadUint32(&h.Status)&unix.TP_STATUS_USER == 0 {
			return
		}
		a := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&f[addressAt])) //nolint:gosec // as above
		begin := int(h.Net)
		end := min(begin+int(h.Snaplen), frame)
		if begin >= addressAt && begin <= end {
			fn(heard{time.Unix(int64(h.Sec), int64(h.Nsec)), int(a.Ifindex), a.Pkttype == unix.PACKET_OUTGOING, f[begin:end]})
		}
		atomic.StoreUint32(&h.Status, unix.TP_STATUS_KERNEL)
		r.next = (r.next + 1) % frames
	}
}

// lost reports whether packets did not fit since it was asked last.
func (r *ring) lost() (bool, error) {
	st, err := unix.GetsockoptTpacketStats(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return false, fmt.Errorf("ask packet ring: %w", os.NewSyscallError("getsockopt", err))
	}
	return st.Drops > 0, nil
}
