package differential

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/testnet"
	"github.com/towpath/towpath/internal/walk"
)

// enoughFrames are those of a run, framesPerWorld those of a world at most.
const enoughFrames, framesPerWorld = 3000, 300

// TestForgedFramesWalkAsTheKernel sends frames that sandboxes have made by hand,
// with all kinds of addresses and claims: where each comes to a stack must be
// where the walk says, and each rule must have counted what the walk says that
// it drops.
func TestForgedFramesWalkAsTheKernel(t *testing.T) {
	testnet.Require(t, "netns")
	tally, failed := map[string]int{}, false
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSpec(rt)
		if tally["frames"] >= enoughFrames && !failed {
			return
		}
		s.Foreign = nil // what they do is TestWalkIsTheKernel's
		var differences []string
		t.Run(fmt.Sprintf("world %d", tally["worlds"]), func(t *testing.T) {
			differences = newWorld(t, s).compareFrames(tally)
		})
		tally["worlds"]++
		if len(differences) > 0 {
			failed = true
			rt.Fatalf("%d differences in %+v:\n%s", len(differences), s, strings.Join(differences[:min(len(differences), 8)], "\n"))
		}
	})
	t.Logf("%v", tally)
	if tally["frames"] < enoughFrames && !testing.Short() {
		t.Errorf("%d frames were sent, want %d", tally["frames"], enoughFrames)
	}
}

// nobody4 and nobody6 are addresses that no machine of a world has.
func nobody4() netip.Addr { return netip.MustParseAddr("198.51.100.9") }
func nobody6() netip.Addr { return netip.MustParseAddr("2001:db8:9::9") }

// forgery is a frame to send.
type forgery struct {
	walk.Frame
	id   uint16
	dhcp bool // from the port of a DHCP server
}

func (f forgery) String() string {
	return fmt.Sprintf("%s %s: %s > %s, %s %s > %s about %s (id %d)", f.From, f.Link, f.SrcMAC, f.DstMAC, f.Proto, f.Src, f.Dst, f.Target, f.id)
}

// neighbour is somebody on a network: a sandbox's interface or the bridge.
type neighbour struct {
	ns, dev, mac string
	addrs        []netip.Addr
}

// neighbours are those on network n.
func (w *world) neighbours(n int) []neighbour {
	var out []neighbour
	for _, s := range w.host.Spaces {
		for _, l := range s.Links {
			if s.Name == "host" && l.Name != fmt.Sprintf("tp-n%d", n) || s.Name != "host" && !w.isOn(s.Name, l.Name, n) {
				continue
			}
			nb := neighbour{ns: s.Name, dev: l.Name, mac: l.MAC}
			for _, a := range s.Addresses {
				if a.Dev == l.Name {
					nb.addrs = append(nb.addrs, a.Prefix.Addr())
				}
			}
			out = append(out, nb)
		}
	}
	return out
}

// isOn reports whether an interface of a sandbox is on network n.
func (w *world) isOn(sandbox, dev string, n int) bool {
	var i, j int
	if k, _ := fmt.Sscanf(sandbox+dev, "s%deth%d", &i, &j); k != 2 {
		return false
	}
	return j < len(w.spec.Sandboxes[i]) && w.spec.Sandboxes[i][j] == n
}

// forgeries are a choice of all frames that containers could make.
func (w *world) forgeries() []forgery {
	var all []forgery
	for n, network := range w.spec.Networks {
		list := w.neighbours(n)
		for _, from := range list {
			if from.ns == "host" {
				continue
			}
			macs := []string{from.mac}
			if network.Guard != guardNone { // a bridge that learns would believe it
				macs = append(macs, "02:00:00:00:00:ff")
				for _, other := range list {
					macs = append(macs, other.mac)
				}
			}
			for _, to := range list {
				if to.mac == from.mac {
					continue
				}
				for _, mac := range macs {
					all = append(all, w.forgeriesBetween(from, to, mac)...)
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b forgery) int { return strings.Compare(a.String(), b.String()) })
	r := rand.New(rand.NewPCG(w.spec.Seed, 1))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	all = all[:min(len(all), framesPerWorld)]
	for i := range all {
		f := &all[i]
		f.id = firstID + uint16(i)
		if f.Proto == "udp" || f.Proto == "tcp" || f.Proto == "icmp" {
			f.Src = netip.AddrPortFrom(f.Src.Addr(), f.id)
		}
		if f.dhcp {
			f.Src = netip.AddrPortFrom(f.Src.Addr(), map[bool]uint16{true: 67, false: 547}[f.Src.Addr().Is4()])
		}
	}
	return all
}

// forgeriesBetween are all frames from one to another with one source MAC.
func (w *world) forgeriesBetween(from, to neighbour, mac string) []forgery {
	sources := append(slices.Clone(from.addrs), to.addrs...)
	sources = append(sources, nobody4(), nobody6(), netip.MustParseAddr("fe80::9"),
		netip.IPv4Unspecified(), netip.IPv6Unspecified())
	var out []forgery
	for _, src := range sources {
		for _, dst := range to.addrs {
			if src.Is4() != dst.Is4() {
				continue
			}
			f := forgery{Frame: walk.Frame{From: from.ns, Link: from.dev, SrcMAC: mac, DstMAC: to.mac}}
			add := func(proto string, target netip.Addr, port uint16, dhcp bool) {
				f.Proto, f.Target, f.dhcp = proto, target, dhcp
				f.Src, f.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, port)
				out = append(out, f)
			}
			add("udp", netip.Addr{}, openPort, false)
			add("udp", netip.Addr{}, openPort, true)
			add("tcp", netip.Addr{}, openPort, false)
			add("icmp", netip.Addr{}, 0, false)
			if src.Is4() {
				add("arp", netip.Addr{}, 0, false)
				add("probe", netip.Addr{}, 0, false)
				continue
			}
			add("ra", netip.Addr{}, 0, false)
			for _, target := range sources {
				if target.Is6() {
					add("na", target, 0, false)
					add("ns", target, 0, false)
				}
			}
		}
	}
	return out
}

// bytes is the frame. Its number is in it where the kernel leaves it alone: in
// the header of ICMP and TCP, behind that of UDP and behind ARP.
func (f forgery) bytes() []byte {
	dst, _ := machine.ParseMAC(f.DstMAC)
	src, _ := machine.ParseMAC(f.SrcMAC)
	if f.Proto == "arp" {
		arp := testnet.ARPReply(src, f.Src.Addr(), dst, f.Dst.Addr())
		return testnet.Ethernet(dst, src, unix.ETH_P_ARP, append(arp, 0, 0, byte(f.id>>8), byte(f.id)))
	}
	if f.Proto == "probe" {
		arp := testnet.ARPProbe(src, f.Dst.Addr())
		copy(arp[14:], f.Src.Addr().AsSlice())
		return testnet.Ethernet(dst, src, unix.ETH_P_ARP, append(arp, 0, 0, byte(f.id>>8), byte(f.id)))
	}
	proto, l4 := f.transport()
	if f.Src.Addr().Is4() {
		return testnet.Ethernet(dst, src, unix.ETH_P_IP, testnet.IPv4(proto, f.Src.Addr(), f.Dst.Addr(), l4))
	}
	return testnet.Ethernet(dst, src, unix.ETH_P_IPV6, testnet.IPv6(proto, f.hops(), f.Src.Addr(), f.Dst.Addr(), l4))
}

// hops: neighbour discovery is only believed with 255, which no router lets by.
func (f forgery) hops() byte {
	if slices.Contains([]string{"na", "ns", "ra"}, f.Proto) {
		return 255
	}
	return 64
}

// transport is the protocol's number and what is behind the header of IP.
func (f forgery) transport() (byte, []byte) {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b, f.Src.Port())
	binary.BigEndian.PutUint16(b[2:], f.Dst.Port())
	switch f.Proto {
	case "udp":
		b[5] = 12
		return unix.IPPROTO_UDP, append(b, 0, 0, byte(f.id>>8), byte(f.id))
	case "tcp":
		binary.BigEndian.PutUint16(b[6:], f.id)
		return unix.IPPROTO_TCP, append(b, 0, 0, 0, 0, 5<<4, 2, 1, 0, 0, 0, 0, 0)
	case "na", "ns":
		target := f.Target.As16()
		// Before the number are the flags.
		b = []byte{map[string]byte{"na": 136, "ns": 135}[f.Proto], 0, 0, 0, 0x20, 0, byte(f.id >> 8), byte(f.id)}
		return unix.IPPROTO_ICMPV6, append(b, target[:]...)
	case "ra":
		return unix.IPPROTO_ICMPV6, []byte{134, 0, 0, 0, 64, 0, 0, 0, 0, 0, byte(f.id >> 8), byte(f.id), 0, 0, 0, 0}
	}
	b = []byte{8, 0, 0, 0, byte(f.id >> 8), byte(f.id), 0, 0}
	if f.Src.Addr().Is6() {
		b[0] = 128
		return unix.IPPROTO_ICMPV6, b
	}
	return unix.IPPROTO_ICMP, b
}

// numberOf is the number in a frame that was seen; false if it has none of ours.
func numberOf(b []byte) (uint16, bool) {
	at := -1
	switch {
	case len(b) < 14:
	case b[12] == 8 && b[13] == 6:
		at = 14 + 28 + 2
	case b[12] == 8 && b[13] == 0 && len(b) > 34:
		at = numberAt(b[23], b[34:], 34)
	case b[12] == 0x86 && b[13] == 0xdd && len(b) > 54:
		at = numberAt(b[20], b[54:], 54)
	}
	if at < 0 || at+2 > len(b) {
		return 0, false
	}
	id := binary.BigEndian.Uint16(b[at:])
	return id, id >= firstID && id < firstID+2*framesPerWorld
}

func numberAt(proto byte, l4 []byte, base int) int {
	switch {
	case proto == unix.IPPROTO_UDP:
		return base + 10
	case proto == unix.IPPROTO_TCP:
		return base + 6
	case proto == unix.IPPROTO_ICMP && l4[0] == 8, proto == unix.IPPROTO_ICMPV6 && l4[0] == 128:
		return base + 4
	case proto == unix.IPPROTO_ICMPV6 && (l4[0] == 136 || l4[0] == 135):
		return base + 6
	case proto == unix.IPPROTO_ICMPV6 && l4[0] == 134:
		return base + 10
	}
	return -1
}

// verdictOf counts where the walk says that frames end: by the rule that drops
// them, if one does.
func verdictOf(p api.Path) string {
	switch {
	case p.Culprit != nil && p.Culprit.Family == "netdev":
		return p.Culprit.Chain + ": " + p.Culprit.Comment
	case strings.Contains(p.Reason, "is locked"):
		return "locked"
	}
	return string(p.Verdict)
}
