//go:build linux

package ct

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/towpath/towpath/internal/testnet"
)

// TestPurgeServices: of each combination of services, what was said to go goes,
// and nothing else, also where the kernel's filter says more than was asked.
func TestPurgeServices(t *testing.T) {
	all := []Service{{false, udp, 9000}, {false, tcp, 9001}, {false, sctp, 9000}, {true, udp, 9001}, {true, sctp, 9001}, {true, tcp, 9000}}
	var many []Service
	for port := range uint16(9) {
		many = append(many, Service{false, udp, 9000 + port})
	}
	for _, services := range [][]Service{nil, all[:1], all[1:2], all[2:3], all[3:4], all[4:5], all, append(all, all...), many} {
		t.Run(fmt.Sprint(services), func(t *testing.T) {
			goes := func(e Entry) bool {
				return slices.Contains(services, Service{e.Orig.Dst.Addr().Is6(), e.Proto, e.Orig.Dst.Port()})
			}
			deletesExactly(t, func(c *Conn) error {
				_, err := c.PurgeServices(t.Context(), services, goes)
				return err
			}, goes)
		})
	}
}

// TestServicesAreAskedFor: the kernel tells of those asked for alone, in the
// family and protocol and, where it compares them, at the port.
func TestServicesAreAskedFor(t *testing.T) {
	c := dial(t, testnet.New(t, "host"))
	seed(t, c, population()...)
	for _, tc := range []struct {
		service Service
		told    func(Entry) bool
	}{
		{Service{false, udp, 9000}, func(e Entry) bool { return e.Proto == udp && e.Orig.Dst.Port() == 9000 }},
		{Service{true, udp, 9000}, func(e Entry) bool { return e.Proto == udp && e.Orig.Dst.Port() == 9000 }},
		{Service{true, tcp, 9001}, func(Entry) bool { return false }},
		{Service{false, sctp, 9000}, func(e Entry) bool { return e.Proto == sctp }},
	} {
		var got, want []string
		_, err := c.PurgeServices(t.Context(), []Service{tc.service}, func(e Entry) bool {
			got = append(got, e.String())
			return false
		})
		must(t, err)
		for _, e := range population() {
			if e.Orig.Dst.Addr().Is6() == tc.service.IPv6 && tc.told(e) {
				want = append(want, e.String())
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if before58(t) {
			continue // the filter is not looked at
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v: told of %v, want %v", tc.service, got, want)
		}
	}
}

// before58 tells a kernel that does not filter listings.
func before58(t *testing.T) bool {
	t.Helper()
	var u unix.Utsname
	must(t, unix.Uname(&u))
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	must(t, err)
	return major < 5 || major == 5 && minor < 8
}

// TestKernelRefusesAQuestion: one that is refused as an older kernel might, here
// a port without a protocol, is done by reading all instead.
func TestKernelRefusesAQuestion(t *testing.T) {
	refused, err := filter{family: unix.AF_INET, flags: matchDstPort, port: 9000}.listing()
	must(t, err)
	deletesExactly(t, func(c *Conn) error {
		sock, err := open(c.ns)
		must(t, err)
		defer sock.Close()
		if _, err := find(sock, refused, func(Entry) bool { return false }); !errors.Is(err, unix.EINVAL) {
			t.Errorf("question: %v, want EINVAL", err)
		}
		_, err = c.purgeAsked(t.Context(), []message{refused}, isTCP)
		return err
	}, isTCP)
}

func isTCP(e Entry) bool { return e.Proto == tcp }

// TestKernelTakesTheQuestions: none of those in use is refused, which would hide
// behind the reading that is done instead.
func TestKernelTakesTheQuestions(t *testing.T) {
	c := dial(t, testnet.New(t, "host"))
	sock, err := open(c.ns)
	must(t, err)
	defer sock.Close()
	for _, six := range []bool{false, true} {
		for _, proto := range []uint8{tcp, udp, sctp} {
			ask, err := questions([]Service{{six, proto, 9000}})
			must(t, err)
			if _, err := find(sock, ask[0], isTCP); err != nil || len(ask) != 1 {
				t.Errorf("IPv6 %t, protocol %d: %v after %d questions", six, proto, err, len(ask))
			}
		}
	}
}

// TestServicesAsAll: of random tables, what is asked for by services and what is
// found by reading all is the same.
func TestServicesAsAll(t *testing.T) {
	asked, whole := dial(t, testnet.New(t, "asked")), dial(t, testnet.New(t, "whole"))
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfNDistinct(randomEntry(), 0, 60, Entry.String).Draw(t, "entries")
		services := rapid.SliceOfN(randomService(), 1, 6).Draw(t, "services")
		salt := rapid.Uint16Range(0, 3).Draw(t, "salt")
		goes := func(e Entry) bool { // of those of the services, some
			s := Service{e.Orig.Src.Addr().Is6(), e.Proto, e.Orig.Dst.Port()}
			return slices.Contains(services, s) && (e.Orig.Src.Port()+salt)%4 != 0
		}
		var left [2][]string
		var gone [2]int
		for i, purge := range []func() (int, error){
			func() (int, error) { return asked.PurgeServices(t.Context(), services, goes) },
			func() (int, error) { return whole.Purge(t.Context(), goes) },
		} {
			c := []*Conn{asked, whole}[i]
			seed(t, c, entries...)
			var err error
			gone[i], err = purge()
			must(t, err)
			_, err = c.Purge(t.Context(), func(e Entry) bool { // reads what is left, and clears
				left[i] = append(left[i], e.String())
				return true
			})
			must(t, err)
			slices.Sort(left[i])
		}
		if diff := cmp.Diff(left[1], left[0]); diff != "" || gone[0] != gone[1] {
			t.Fatalf("%d of %d gone, by reading all %d (-all +asked):\n%s", gone[0], len(entries), gone[1], diff)
		}
	})
}

// randomEntry is one of few addresses, ports, protocols and zones, so that
// entries often differ in one thing alone.
func randomEntry() *rapid.Generator[Entry] {
	return rapid.Custom(func(t *rapid.T) Entry {
		hosts := rapid.SampledFrom([][3]string{
			{"192.0.2.2", "192.0.2.1", "10.0.0.2"},
			{"192.0.2.3", "192.0.2.4", "10.0.0.3"},
			{"2001:db8::2", "2001:db8::1", "fd00::2"},
			{"2001:db8::3", "2001:db8::4", "fd00::3"},
		}).Draw(t, "hosts")
		at := func(host string, port uint16) string {
			return netip.AddrPortFrom(netip.MustParseAddr(host), port).String()
		}
		dst := at(hosts[1], rapid.Uint16Range(9000, 9003).Draw(t, "port"))
		answers := rapid.SampledFrom([]string{dst, at(hosts[2], 53), at(hosts[2], 9000)}).Draw(t, "answers")
		src := at(hosts[0], rapid.Uint16Range(4000, 4007).Draw(t, "source"))
		e := entry(rapid.SampledFrom([]uint8{tcp, udp, sctp}).Draw(t, "protocol"), src, dst, answers)
		// One zone an answer: two entries of a zone must not have the same one.
		return zoned(e, uint16(slices.Index([]string{dst, at(hosts[2], 53), at(hosts[2], 9000)}, answers))+10*e.Orig.Dst.Port())
	})
}

func randomService() *rapid.Generator[Service] {
	return rapid.Custom(func(t *rapid.T) Service {
		return Service{
			rapid.Bool().Draw(t, "IPv6"), rapid.SampledFrom([]uint8{tcp, udp, sctp}).Draw(t, "protocol"),
			rapid.Uint16Range(9000, 9004).Draw(t, "port"),
		}
	})
}

// BenchmarkPurge is what a published port costs beside connections of others: the
// services of it asked for, and all read, in turns.
func BenchmarkPurge(b *testing.B) {
	for _, count := range []int{1, 1_000, 10_000, 100_000} {
		b.Run(strconv.Itoa(count), func(b *testing.B) {
			c, err := Dial(int(testnet.New(b, "host").F.Fd()))
			must(b, err)
			defer c.Close()
			seed(b, c, strangers(count)...)
			never := func(Entry) bool { return false }
			services := []Service{{false, tcp, 80}, {true, tcp, 80}}
			var asked, all []time.Duration
			for b.Loop() {
				began := time.Now()
				_, err := c.PurgeServices(b.Context(), services, never)
				must(b, err)
				between := time.Now()
				_, err = c.Purge(b.Context(), never)
				must(b, err)
				asked, all = append(asked, between.Sub(began)), append(all, time.Since(between))
			}
			for name, list := range map[string][]time.Duration{"asked": asked, "all": all} {
				slices.Sort(list)
				b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, name+"-ms")
			}
		})
	}
}

// strangers are connections to a port that nobody asks for.
func strangers(count int) (out []Entry) {
	dst := netip.MustParseAddrPort("192.0.2.1:9000")
	for i := range count {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 12), 1}), uint16(1024+i&0xfff))
		out = append(out, Entry{Proto: udp, Orig: Tuple{src, dst}, Reply: Tuple{dst, src}, Timeout: time.Hour})
	}
	return out
}
