package differential

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	rules "github.com/towpath/towpath/internal/nft"
)

// compareFrames sends the world's forgeries and tells each difference. What is
// missing is sent once more, as in compare.
func (w *world) compareFrames(tally map[string]int) []string {
	taps := &taps{seen: map[uint16]map[string]bool{}, news: make(chan struct{}, 1)}
	for n := range w.spec.Networks {
		for _, nb := range w.neighbours(n) {
			w.tap(taps, nb.ns, nb.dev)
		}
	}
	w.silence()
	list := w.forgeries()
	counted, before := map[string]int{}, w.counters()
	missing, out := w.sendForgeries(taps, list, tally, counted)
	if len(missing) > 0 {
		tally["sent again"] += len(missing)
		for i := range missing {
			missing[i].id = firstID + uint16(framesPerWorld+i)
		}
		lost, more := w.sendForgeries(taps, missing, map[string]int{}, counted)
		out = append(out, more...)
		for _, f := range lost {
			out = append(out, fmt.Sprintf("%s does not arrive where the walk says", f))
		}
	}
	after := w.counters()
	for rule := range after {
		got := after[rule] - before[rule]
		// Who is on a network twice answers ARP on both links for either address, and
		// sends errors about what came to the link-local address of one by the other.
		if w.spec.twice() && (strings.HasSuffix(rule, "spoofed ARP sender") || strings.HasSuffix(rule, "spoofed source address")) {
			got = min(got, counted[rule])
		}
		if got != counted[rule] {
			out = append(out, fmt.Sprintf("rule %q dropped %d frames; the walk says %d", rule, got, counted[rule]))
		}
	}
	return out
}

// silence keeps sandboxes from answering senders that are nobody: on two networks,
// they would answer with the address of one over the other, whose guard counts that.
func (w *world) silence() {
	w.Helper()
	for i := range w.spec.Sandboxes {
		for _, nobody := range []netip.Addr{nobody4(), nobody6()} {
			dst := netip.PrefixFrom(nobody, nobody.BitLen())
			w.must(w.spaces[fmt.Sprintf("s%d", i)].Conn(w).AddRoute(w.Context(), rt.Route{Dst: dst, Type: unix.RTN_BLACKHOLE}))
		}
	}
}

// sendForgeries sends frames, and gives those that did not arrive as expected
// and what is wrong with the others.
func (w *world) sendForgeries(t *taps, list []forgery, tally, counted map[string]int) (missing []forgery, out []string) {
	want := map[uint16]string{}
	text := map[uint16]string{}
	for _, f := range list {
		path, reached, err := w.walker.WalkFrame(f.Frame)
		if err != nil {
			out = append(out, fmt.Sprintf("%s: %v", f, err))
			continue
		}
		want[f.id], text[f.id] = reached, fmt.Sprintf("%s %s", path.Verdict, path.Reason)
		tally["frames"]++
		tally[verdictOf(path)]++
		counted[verdictOf(path)]++
	}
	for _, f := range list {
		w.put(f)
	}
	t.await(want)
	for _, f := range list {
		switch got := t.at(f.id); {
		case want[f.id] == "" && len(got) > 0:
			out = append(out, fmt.Sprintf("%s\n  walk:   %s\n  kernel: arrives at %v", f, text[f.id], got))
		case want[f.id] != "" && len(got) == 0:
			missing = append(missing, f)
		case want[f.id] != "" && !slices.Contains(got, want[f.id]):
			out = append(out, fmt.Sprintf("%s\n  walk:   arrives at %s\n  kernel: arrives at %v", f, want[f.id], got))
		}
	}
	return missing, out
}

// counters are how many frames each rule of the guards has counted.
func (w *world) counters() map[string]int {
	w.Helper()
	c, err := nft.Dial(w.spaces["host"].FD())
	w.must(err)
	defer c.Close()
	def, err := c.ReadTable(w.Context(), rules.FamilyNetdev, "towpath")
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	w.must(err)
	out := map[string]int{}
	for _, chain := range def.Chains {
		for _, r := range chain.Rules {
			for _, e := range r.Exprs {
				if n, ok := e.(rules.Counter); ok {
					out[chain.Name+": "+r.Comment] += int(n.Packets)
				}
			}
		}
	}
	return out
}

// taps are sockets that see the frames that come in by links.
type taps struct {
	mu   sync.Mutex
	seen map[uint16]map[string]bool
	news chan struct{}
}

// at is where a frame was seen.
func (t *taps) at(id uint16) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.seen[id]))
}

// await returns when all that is expected was seen, and then for a while nothing.
func (t *taps) await(want map[uint16]string) {
	over, quiet := time.NewTimer(patience), time.NewTimer(grace)
	defer over.Stop()
	defer quiet.Stop()
	for {
		select {
		case <-t.news:
			quiet.Reset(grace)
		case <-quiet.C:
			all := true
			for id, at := range want {
				all = all && (at == "" || len(t.at(id)) > 0)
			}
			if all {
				return
			}
			quiet.Reset(grace)
		case <-over.C:
			return
		}
	}
}

// tap notes the frames that come in by a link and are for it.
func (w *world) tap(t *taps, name, dev string) {
	w.Helper()
	f := w.spaces[name].Packets(w, dev)
	raw, err := f.SyscallConn()
	w.must(err)
	go func() {
		b := make([]byte, 2048)
		for {
			var n int
			var from unix.Sockaddr
			rerr := raw.Read(func(fd uintptr) bool {
				n, from, err = unix.Recvfrom(int(fd), b, 0)
				return err != unix.EAGAIN
			})
			if rerr != nil {
				return // closed
			}
			sa, ok := from.(*unix.SockaddrLinklayer)
			if err != nil || !ok || sa.Pkttype != unix.PACKET_HOST {
				continue
			}
			if id, ours := numberOf(b[:n]); ours {
				t.note(id, name+" "+dev)
			}
		}
	}()
}

func (t *taps) note(id uint16, at string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen[id] == nil {
		t.seen[id] = map[string]bool{}
	}
	t.seen[id][at] = true
	select {
	case t.news <- struct{}{}:
	default:
	}
}

// put sends a frame by its link.
func (w *world) put(f forgery) {
	w.Helper()
	key := f.From + " " + f.Link
	if w.senders == nil {
		w.senders = map[string]*os.File{}
	}
	if w.senders[key] == nil {
		w.senders[key] = w.spaces[f.From].Packets(w, f.Link)
	}
	_, err := w.senders[key].Write(f.bytes())
	w.must(err)
}
