//go:build linux

package ct

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

// TestKernelWithout asks the kernel for a subsystem that nobody registered for,
// as CONFIG_NF_CT_NETLINK does.
func TestKernelWithout(t *testing.T) {
	c := dial(t, testnet.New(t, "host"))
	sock, err := open(c.ns)
	must(t, err)
	defer sock.Close()
	const nobody = 200
	err = probe(sock, nobody)
	var unsupported *UnsupportedError
	if !errors.As(err, &unsupported) || !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, unix.EINVAL) {
		t.Fatalf("probe: %v, want an UnsupportedError with EINVAL", err)
	}
	if !strings.Contains(err.Error(), "CONFIG_NF_CONNTRACK") {
		t.Errorf("%q does not name the option", err)
	}
	must(t, probe(sock, unix.NFNL_SUBSYS_CTNETLINK))
}

// listing answers a listing by one entry, with those flags.
func listing(t *testing.T, req netlink.Message, flags netlink.HeaderFlags) []netlink.Message {
	attrs, err := attributes(entry(udp, "192.0.2.2:4000", "192.0.2.1:9000", "10.0.0.2:53").encode)
	must(t, err)
	m := message{family: unix.AF_INET, attrs: attrs}.request(0)
	m.Header.Flags = netlink.Multi | flags
	m.Header.Sequence = req.Header.Sequence
	done := netlink.Message{Header: netlink.Header{Type: netlink.Done, Flags: netlink.Multi, Sequence: req.Header.Sequence}}
	return []netlink.Message{m, done}
}

func TestInterruptedListing(t *testing.T) {
	for _, tc := range []struct {
		interruptions, listings int
		err                     error
	}{{0, 1, nil}, {2, 3, nil}, {dumpAttempts, dumpAttempts, ErrInterrupted}} {
		var answers []netlink.Message
		listings := 0
		sock := nltest.Dial(func(req []netlink.Message) ([]netlink.Message, error) {
			if len(req) > 0 {
				listings++
				var flags netlink.HeaderFlags
				if listings <= tc.interruptions {
					flags = netlink.DumpInterrupted
				}
				answers = listing(t, req[0], flags)
			}
			return answers, nil
		})
		names, err := find(sock, message{typ: msgGet, family: unix.AF_INET}, func(Entry) bool { return true })
		if !errors.Is(err, tc.err) || listings != tc.listings {
			t.Errorf("%d interruptions: %v after %d listings, want %v after %d", tc.interruptions, err, listings, tc.err, tc.listings)
		}
		if err == nil && len(names) != 1 {
			t.Errorf("%d interruptions: %d entries, want 1", tc.interruptions, len(names))
		}
		sock.Close()
	}
}

// TestRefusedDeletion: the kernel's error is returned, and the others are done.
func TestRefusedDeletion(t *testing.T) {
	c := dial(t, testnet.New(t, "host"))
	seed(t, c, population()...)
	sock, err := open(c.ns)
	must(t, err)
	defer sock.Close()
	names, err := find(sock, message{typ: msgGet, family: unix.AF_INET}, func(Entry) bool { return true })
	must(t, err)
	names[3].tuple = nil // has no addresses: EINVAL
	gone := binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(names[4].id)+1)
	names[4].id = gone // ENOENT
	n, err := remove(sock, names)
	if !errors.Is(err, unix.EINVAL) || n != len(names)-2 {
		t.Errorf("%d deleted, %v; want %d and EINVAL", n, err, len(names)-2)
	}
	left, err := find(sock, message{typ: msgGet, family: unix.AF_INET}, func(Entry) bool { return true })
	must(t, err)
	if len(left) != 2 {
		t.Errorf("%d left, want 2", len(left))
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range population() {
		attrs, err := attributes(e.encode)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append([]byte{unix.AF_INET, 0, 0, 0}, attrs...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, n, err := decodeEntry(b)
		if err == nil && n.family != b[0] {
			t.Errorf("entry %v of family %d, want %d", e, n.family, b[0])
		}
	})
}
