//go:build linux

package ct

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

// fataler is *testing.T, *testing.B or *rapid.T.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// dial reaches the connections of a namespace until the test ends.
func dial(t *testing.T, ns *testnet.NS) *Conn {
	t.Helper()
	c, err := Dial(ns.FD())
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// String is one line an entry: "udp 192.0.2.2:4000>192.0.2.1:9000
// 10.0.0.2:53>192.0.2.2:4000", and the zone when it is not the default one.
func (e Entry) String() string {
	protos := map[uint8]string{
		unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_ICMP: "icmp",
	}
	s := fmt.Sprintf("%s %s>%s %s>%s", protos[e.Proto], e.Orig.Src, e.Orig.Dst, e.Reply.Src, e.Reply.Dst)
	if e.Zone != 0 {
		s += fmt.Sprintf(" zone %d", e.Zone)
	}
	return s
}

// list gives the entries, sorted.
func list(t *testing.T, c *Conn) []Entry {
	t.Helper()
	var out []Entry
	n, err := c.Purge(t.Context(), func(e Entry) bool {
		out = append(out, e)
		return false
	})
	must(t, err)
	if n != 0 {
		t.Fatalf("%d entries deleted that nobody called stale", n)
	}
	slices.SortFunc(out, func(a, b Entry) int { return cmpString(a.String(), b.String()) })
	return out
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// expect compares the lines of the entries with those wanted, in any order.
func expect(t *testing.T, what string, c *Conn, want ...string) {
	t.Helper()
	var got []string
	for _, e := range list(t, c) {
		got = append(got, e.String())
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// entry writes an entry as what it is: translated when the answer comes from
// elsewhere.
func entry(proto uint8, src, dst, answers string) Entry {
	s, d, a := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst), netip.MustParseAddrPort(answers)
	return Entry{Proto: proto, Orig: Tuple{s, d}, Reply: Tuple{a, s}, Timeout: 10 * time.Minute}
}

// seed makes entries, many in one datagram.
func seed(t fataler, c *Conn, entries ...Entry) {
	t.Helper()
	sock, err := open(c.ns)
	must(t, err)
	defer sock.Close()
	const msgNew = 0 // IPCTNL_MSG_CT_NEW
	for chunk := range slices.Chunk(entries, together) {
		var msgs []netlink.Message
		for _, e := range chunk {
			attrs, err := attributes(e.encode)
			must(t, err)
			family := uint8(unix.AF_INET)
			if e.Orig.Src.Addr().Is6() {
				family = unix.AF_INET6
			}
			m := message{typ: msgNew, family: family, attrs: attrs}
			msgs = append(msgs, m.request(netlink.Create|netlink.Excl))
		}
		msgs[len(msgs)-1].Header.Flags |= netlink.Acknowledge
		_, err := sock.SendMessages(msgs)
		must(t, err)
		_, err = sock.Receive()
		must(t, err)
	}
}

// encode writes what makes the entry.
func (e Entry) encode(ae *netlink.AttributeEncoder) {
	nested(ae, ctaTupleOrig, func(in *netlink.AttributeEncoder) { e.Orig.encode(in, e.Proto) })
	nested(ae, ctaTupleReply, func(in *netlink.AttributeEncoder) { e.Reply.encode(in, e.Proto) })
	ae.Uint32(ctaTimeout, uint32(e.Timeout/time.Second))
	ae.Uint32(ctaMark, e.Mark)
	if e.Zone != 0 {
		ae.Uint16(ctaZone, e.Zone)
	}
}

// encode writes a tuple. For ICMP the ports are the identifier.
func (tu Tuple) encode(ae *netlink.AttributeEncoder, proto uint8) {
	const icmpID, icmpType, icmpCode = 4, 5, 6 // CTA_PROTO_ICMP_*
	src, dst := uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
	if tu.Src.Addr().Is6() {
		src, dst = ctaIPv6Src, ctaIPv6Dst
	}
	nested(ae, ctaTupleIP, func(in *netlink.AttributeEncoder) {
		in.Bytes(src, tu.Src.Addr().AsSlice())
		in.Bytes(dst, tu.Dst.Addr().AsSlice())
	})
	nested(ae, ctaTupleProto, func(in *netlink.AttributeEncoder) {
		in.ByteOrder = binary.BigEndian
		in.Uint8(ctaProtoNum, proto)
		if proto == unix.IPPROTO_ICMP {
			in.Uint16(icmpID, tu.Src.Port()+tu.Dst.Port())
			in.Uint8(icmpType, uint8(tu.Src.Port()&8)) // 8 asks, 0 answers
			in.Uint8(icmpCode, 0)
			return
		}
		in.Uint16(ctaProtoSrcPort, tu.Src.Port())
		in.Uint16(ctaProtoDstPort, tu.Dst.Port())
	})
}
