package explain

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
)

// table puts tables of somebody else's into a namespace.
func (w *world) table(ns, text string) {
	w.Helper()
	tables, err := rules.ParseTables(text)
	w.must(err)
	c, err := nft.Dial(w.spaces[ns].FD())
	w.must(err)
	w.Cleanup(func() { c.Close() })
	var b nft.Batch
	for _, t := range tables {
		b.AddTableDef(t)
	}
	w.must(c.Commit(w.Context(), &b))
}

// iptables runs a program of that name on the host.
func (w *world) iptables(argv ...string) {
	w.Helper()
	testnet.Require(w, argv[0]+"-binary")
	_, err := w.spaces["host"].Output(w.Context(), argv...)
	w.must(err)
}

func (w *world) noDefault(ns, dst string) {
	w.Helper()
	w.must(w.spaces[ns].Conn(w).DelRoute(w.Context(), rt.Route{Dst: netip.MustParsePrefix(dst)}))
}

func (w *world) mtu(ns, dev string, n int) {
	w.Helper()
	w.must(w.spaces[ns].Conn(w).SetLink(w.Context(), w.index(ns, dev), rt.LinkChange{MTU: &n}))
}

func (w *world) down(ns, dev string) {
	w.Helper()
	w.must(w.spaces[ns].Conn(w).SetLink(w.Context(), w.index(ns, dev), rt.LinkChange{Up: new(false)}))
}

// entries are the addresses that are known behind a port.
func (w *world) entries(port string) []rt.Neighbour {
	w.Helper()
	c := w.spaces["host"].Conn(w)
	list, err := c.Neighbours(w.Context(), rt.NeighbourFilter{Family: unix.AF_BRIDGE, Index: w.index("host", port)}, 0)
	w.must(err)
	return slices.DeleteFunc(list, func(n rt.Neighbour) bool { return n.State&unix.NUD_PERMANENT != 0 || n.Master == 0 })
}

// fillConntrack fills the host's table of connections: there are as many entries
// as net.netfilter.nf_conntrack_max lets a namespace have, all of which have seen
// an answer, so that none makes room (early_drop).
func (w *world) fillConntrack() {
	w.Helper()
	testnet.Require(w, "conntrack")
	text, err := sysctl.Read(w.spaces["host"].F, "net/netfilter/nf_conntrack_max")
	w.must(err)
	most, err := strconv.Atoi(text)
	w.must(err)
	w.spaces["host"].Do(w, func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
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
	if count, err := sysctl.Read(w.spaces["host"].F, "net/netfilter/nf_conntrack_count"); err != nil || count != text {
		w.Fatalf("%s connections, want %s: %v", count, text, err)
	}
}

// connection is the message that makes an entry of UDP, from an address of its own
// (IPCTNL_MSG_CT_NEW; attributes of linux/netfilter/nfnetlink_conntrack.h).
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

// bridgeNF says whether frames within bridges of the host pass the packet filter,
// where the kernel can do that at all: where it cannot, they do not.
func (w *world) bridgeNF(on string) {
	w.Helper()
	for _, name := range []string{"iptables", "ip6tables"} {
		if _, err := sysctl.Read(w.spaces["host"].F, "net/bridge/bridge-nf-call-"+name); err == nil {
			w.sysctl("host", "net/bridge/bridge-nf-call-"+name, on)
		}
	}
}
