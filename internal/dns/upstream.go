package dns

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// upstream is a resolver as it is reached from one place, and what is known of it.
type upstream struct {
	addr    netip.AddrPort
	sandbox string // from where: "" is the host

	mu    sync.Mutex
	rtt   time.Duration // smoothed; of one that lost a race, at least that long
	lost  int           // races, one after the other
	fails int           // time-outs and errors, one after the other
	asked time.Time
	count UpstreamStats
}

// UpstreamStats is how an upstream did since it was first asked. Of the queries
// that are neither answered nor failed, another upstream was first.
type UpstreamStats struct {
	Asked    uint64
	Answered uint64
	Failed   uint64
	RTT      time.Duration // smoothed
	Failing  bool          // it did not answer the last time
}

// Upstream is a resolver, and from where it is asked: a sandbox, or the host if
// that is "".
type Upstream struct {
	Addr    netip.AddrPort
	Sandbox string
}

// String is "192.0.2.53:53", and from where if not from the host.
func (u *upstream) String() string {
	if u.sandbox == "" {
		return u.addr.String()
	}
	return u.addr.String() + " from sandbox " + u.sandbox
}

// standing is how good an upstream is; the smaller the better.
type standing uint8

const (
	good standing = iota // asked in the order given
	slow                 // asked after those, the faster first
	failing
)

func (u *upstream) standing(stagger time.Duration) (standing, time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.fails > 0:
		return failing, u.rtt
	case u.lost > 1 || u.rtt >= stagger:
		return slow, u.rtt
	}
	return good, 0
}

// begin notes that it is asked.
func (u *upstream) begin(now time.Time) {
	u.mu.Lock()
	u.asked = now
	u.count.Asked++
	u.mu.Unlock()
}

// answered notes an answer, and tells whether it had been failing.
func (u *upstream) answered(took time.Duration) (back bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.count.Answered++
	back = u.fails > 0
	if u.rtt == 0 || back || u.lost > 0 {
		u.rtt = took
	} else {
		u.rtt += (took - u.rtt) / 8
	}
	u.fails, u.lost = 0, 0
	return back
}

// outrun notes that another answered first.
func (u *upstream) outrun(waited time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lost++
	if u.rtt == 0 {
		u.rtt = waited
	}
	u.rtt = max(u.rtt, (u.rtt+waited)/2)
}

// failed notes that it cannot be reached, and tells whether that is news.
func (u *upstream) failed() (news bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fails++
	u.count.Failed++
	return u.fails == 1
}

func (u *upstream) stats() UpstreamStats {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.count
	c.RTT, c.Failing = u.rtt, u.fails > 0
	return c
}

// due tells whether one that is not good is to be tried again.
func (u *upstream) due(now time.Time) bool {
	const again = 20 * time.Second
	u.mu.Lock()
	defer u.mu.Unlock()
	return now.Sub(u.asked) >= again
}

// scope is the upstreams that a member asks. What one of a scope learned, all
// of that scope know.
type scope struct {
	server  *Server
	id      uint64
	sandbox string
	given   []netip.AddrPort
	list    []*upstream

	mu      sync.Mutex
	retried time.Time // with all of them failing
}

// from tells whether the scope was made of this list. A list does not change:
// another one is another list.
func (sc *scope) from(s *Server, list []netip.AddrPort) bool {
	return sc != nil && sc.server == s && len(sc.given) == len(list) && (len(list) == 0 || &sc.given[0] == &list[0])
}

// scope gives the upstreams of a member, as they are now.
func (s *Server) scope(m *member) *scope {
	list, slot := m.Upstreams, &m.scope
	if len(list) == 0 {
		list = s.cfg.Upstreams()
		if !m.FromSandbox {
			slot = &s.host
		}
	}
	old := slot.Load()
	if old.from(s, list) {
		return old
	}
	sc := &scope{server: s, given: list}
	if m.FromSandbox {
		sc.sandbox = m.Sandbox
	}
	if slot == &s.host && old != nil && !slices.Equal(old.given, list) {
		s.cfg.Tell(Event{Kind: UpstreamsNew, Detail: describe(list)})
	}
	s.fill(sc)
	slot.Store(sc)
	return sc
}

// describe lists addresses.
func describe(list []netip.AddrPort) string {
	text := "none"
	for i, a := range list {
		if i == 0 {
			text = a.String()
		} else {
			text += ", " + a.String()
		}
	}
	return text
}

// maxUpstreams bounds what is remembered of upstreams.
const maxUpstreams = 4096

// fill finds the upstreams of a scope. Those on a loopback address are programs
// of the host, and asked from there.
func (s *Server) fill(sc *scope) {
	var h maphash.Hash
	h.SetSeed(s.seed)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.upstreams) > maxUpstreams {
		clear(s.upstreams)
	}
	for _, addr := range sc.given {
		at := Upstream{netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), sc.sandbox}
		if at.Addr.Addr().IsLoopback() {
			at.Sandbox = ""
		}
		u := s.upstreams[at]
		if u == nil {
			u = &upstream{addr: at.Addr, sandbox: at.Sandbox}
			s.upstreams[at] = u
		}
		if !slices.Contains(sc.list, u) {
			sc.list = append(sc.list, u)
			maphash.WriteComparable(&h, at)
		}
	}
	sc.id = h.Sum64()
}

// forget lets go of what is known from a sandbox that has gone.
func (s *Server) forget(sandbox string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at := range s.upstreams {
		if at.Sandbox == sandbox && sandbox != "" {
			delete(s.upstreams, at)
		}
	}
}

// order gives the upstreams as they are to be asked, and tells whether none of
// them is known to answer. One that was not good and was not asked for a while is
// asked along with the first, to see if it still is so.
func (sc *scope) order(now time.Time, stagger time.Duration) (list []*upstream, along *upstream, down bool) {
	type ranked struct {
		u     *upstream
		class standing
		rtt   time.Duration
	}
	all := make([]ranked, 0, len(sc.list))
	for _, u := range sc.list {
		class, rtt := u.standing(stagger)
		all = append(all, ranked{u, class, rtt})
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.rtt, b.rtt))
	})
	for i, r := range all {
		if i > 0 && all[0].class == good && r.class != good && along == nil && r.u.due(now) {
			along = r.u
			continue
		}
		list = append(list, r.u)
	}
	return list, along, len(all) > 0 && all[0].class == failing
}

// retry tells, once in a while, that upstreams which all fail are to be tried.
func (sc *scope) retry(now time.Time) bool {
	const again = 2 * time.Second
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if now.Sub(sc.retried) < again {
		return false
	}
	sc.retried = now
	return true
}

// matches tells whether a message answers a query: it has its ID, and repeats the
// question, in any case of letters. Who could not read the question need not.
func matches(answer, asked []byte, end int) bool {
	if len(answer) < headerLen || answer[0] != asked[0] || answer[1] != asked[1] {
		return false
	}
	flags := binary.BigEndian.Uint16(answer[2:])
	if flags&flagQR == 0 || flags&maskOpcode != 0 {
		return false
	}
	switch binary.BigEndian.Uint16(answer[4:]) {
	case 0:
		code := RCode(flags & maskRCode)
		return code != NoError && code != NameError
	case 1:
		return len(answer) >= end && equalFold(answer[headerLen:end-4], asked[headerLen:end-4]) &&
			string(answer[end-4:end]) == string(asked[end-4:end])
	}
	return false
}

func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}
