//go:build linux

package testnet

import (
	"encoding/binary"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/sysctl"
)

// FillConntrack fills the namespace's table of connections: there are as many
// entries as net.netfilter.nf_conntrack_max lets a namespace have, all of which
// have seen an answer, so that none makes room (early_drop). It skips the test
// where those would be too many. What was there before goes: it would end in time,
// and make room.
func (n *NS) FillConntrack(t testing.TB) {
	t.Helper()
	Require(t, "conntrack")
	text, err := sysctl.Read(n.F, "net/netfilter/nf_conntrack_max")
	if err != nil {
		t.Fatal(err)
	}
	most, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	n.Do(t, func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Sendto(fd, emptying(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		const together = 200 // messages in a datagram, well below what a socket may send
		for at := 0; at < most; at += together {
			var b []byte
			for i := range together {
				b = append(b, connection(uint32(at+i))...)
			}
			if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
				return err
			}
		}
		return nil
	})
	if count, err := sysctl.Read(n.F, "net/netfilter/nf_conntrack_count"); err != nil || count != text {
		t.Fatalf("%s connections, want %s: %v", count, text, err)
	}
}

// emptying is the message that deletes all entries (IPCTNL_MSG_CT_DELETE).
func emptying() []byte {
	const header = unix.SizeofNlMsghdr + 4 // and nfgenmsg
	b := binary.NativeEndian.AppendUint32(nil, header)
	b = binary.NativeEndian.AppendUint16(b, unix.NFNL_SUBSYS_CTNETLINK<<8|2)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	return append(b, make([]byte, header-len(b))...)
}

// connection is the message that makes an entry of UDP, from an address of its own
// in 10.0.0.0/8 (IPCTNL_MSG_CT_NEW; attributes of linux/netfilter/nfnetlink_conntrack.h).
func connection(i uint32) []byte {
	attr := func(typ uint16, content ...[]byte) []byte {
		b := slices.Concat(content...)
		head := binary.NativeEndian.AppendUint16(nil, uint16(4+len(b)))
		b = append(binary.NativeEndian.AppendUint16(head, typ), b...)
		return append(b, make([]byte, -len(b)&3)...)
	}
	const nested = unix.NLA_F_NESTED
	big := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	tuple := func(typ uint16, src, dst []byte) []byte {
		port := []byte{0, 53}
		return attr(nested|typ, attr(nested|1, attr(1, src), attr(2, dst)), attr(nested|2, attr(1, []byte{unix.IPPROTO_UDP}), attr(2, port), attr(3, port)))
	}
	from, to := big(10<<24|i), []byte{198, 51, 100, 1}
	const seenReply, assured, confirmed = 1 << 1, 1 << 2, 1 << 3
	body := slices.Concat([]byte{unix.AF_INET, 0, 0, 0}, tuple(1, from, to), tuple(2, to, from), attr(3, big(seenReply|assured|confirmed)), attr(7, big(3600)))
	head := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	head = binary.NativeEndian.AppendUint16(head, unix.NFNL_SUBSYS_CTNETLINK<<8)
	head = binary.NativeEndian.AppendUint16(head, unix.NLM_F_REQUEST|unix.NLM_F_CREATE)
	return append(append(head, make([]byte, 8)...), body...)
}
