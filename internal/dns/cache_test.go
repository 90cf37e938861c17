package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// TestCacheCountsDown: an answer is kept for its time, and says how much of it
// is left.
func TestCacheCountsDown(t *testing.T) {
	bubble(t, func(t *testing.T, f *fakes) {
		f.add(&fake{ttl: 60})
		s := f.server(Config{})
		defer s.Close()
		for _, step := range []struct {
			after time.Duration
			asked string
			ttl   uint32
		}{{0, "1", 60}, {25 * time.Second, "", 35}, {34 * time.Second, "", 1}, {time.Second, "1", 60}} {
			wait(step.after)
			res, _ := f.ask(s, "a.example")
			if f.order() != step.asked || len(res.Records) != 1 || res.Records[0].TTL != step.ttl {
				t.Errorf("after %v more: asked %q, %+v", step.after, f.order(), res)
			}
		}
	})
}

// TestCacheKeeps: what is kept for how long.
func TestCacheKeeps(t *testing.T) {
	soa := func(ttl, least uint32) dnsmessage.Resource {
		return dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("example."), Type: dnsmessage.TypeSOA, Class: dnsmessage.ClassINET, TTL: ttl},
			Body:   &dnsmessage.SOAResource{NS: dnsmessage.MustNewName("ns.example."), MBox: dnsmessage.MustNewName("ns.example."), MinTTL: least},
		}
	}
	none := func(code dnsmessage.RCode, authority ...dnsmessage.Resource) func(*dnsmessage.Message, string) bool {
		return func(m *dnsmessage.Message, _ string) bool {
			m.RCode, m.Answers, m.Authorities = code, nil, authority
			return false
		}
	}
	for _, tt := range []struct {
		name string
		up   fake
		want time.Duration
	}{
		{"answer", fake{ttl: 7}, 7 * time.Second},
		{"no time", fake{ttl: 0}, 0},
		{"a time that is none", fake{ttl: 1 << 31}, 0},
		{"years", fake{ttl: 1 << 30}, 24 * time.Hour},
		{"NXDOMAIN", fake{change: none(dnsmessage.RCodeNameError, soa(600, 30))}, 30 * time.Second},
		{"NXDOMAIN, record shorter", fake{change: none(dnsmessage.RCodeNameError, soa(20, 30))}, 20 * time.Second},
		{"NXDOMAIN, long", fake{change: none(dnsmessage.RCodeNameError, soa(1<<30, 1<<30))}, 3 * time.Hour},
		{"NXDOMAIN without SOA", fake{change: none(dnsmessage.RCodeNameError)}, 0},
		{"no data", fake{change: none(dnsmessage.RCodeSuccess, soa(600, 30))}, 30 * time.Second},
		{"no data without SOA", fake{change: none(dnsmessage.RCodeSuccess)}, 0},
		{"SERVFAIL", fake{change: none(dnsmessage.RCodeServerFailure, soa(600, 30))}, 0},
	} {
		bubble(t, func(t *testing.T, f *fakes) {
			f.add(&tt.up)
			s := f.server(Config{})
			defer s.Close()
			f.ask(s, "a.example")
			if tt.want > 0 {
				wait(tt.want - time.Second/2)
				if f.ask(s, "a.example"); f.order() != "" {
					t.Errorf("%s: not kept", tt.name)
				}
				wait(time.Second / 2)
			}
			if f.ask(s, "a.example"); f.order() != "1" {
				t.Errorf("%s: kept too long", tt.name)
			}
		})
	}
}

// TestStale: while no upstream answers, an old answer is better than none.
func TestStale(t *testing.T) {
	bubble(t, func(t *testing.T, f *fakes) {
		up := &fake{ttl: 10, delay: ms}
		f.add(up)
		s := f.server(Config{})
		defer s.Close()
		f.ask(s, "a.example")
		up.delay = -1
		wait(time.Minute)
		res, took := f.ask(s, "a.example")
		if took != staleWait || !res.Stale || res.Code != NoError || res.Records[0].TTL != 30 {
			t.Errorf("took %v: %+v", took, res)
		}
		wait(10 * time.Second) // it is known to fail by now
		for _, asked := range []string{"1", ""} {
			if res, took = f.ask(s, "a.example"); took != 0 || !res.Stale || f.order() != asked {
				t.Errorf("took %v, asked %q: %+v", took, f.order(), res)
			}
		}
		if res, took = f.ask(s, "b.example"); res.Code != ServerFailure || took != s.cfg.Timeout {
			t.Errorf("another name, took %v: %+v", took, res)
		}
		up.delay = ms
		wait(10 * time.Second)
		f.ask(s, "a.example") // asks in the background
		wait(time.Second)
		if res, took = f.ask(s, "a.example"); took != 0 || res.Stale || res.Source != FromCache {
			t.Errorf("when it is back, took %v: %+v", took, res)
		}
		up.err, up.delay = syscall.ECONNREFUSED, -1
		wait(25 * time.Hour)
		if res, _ = f.ask(s, "a.example"); res.Code != ServerFailure {
			t.Errorf("a day later: %+v", res)
		}
	})
}

// TestCacheIsBounded: the memory stays within the limit, and what is used stays.
func TestCacheIsBounded(t *testing.T) {
	c := newCache(64 << 10)
	now := time.Now()
	msg := func(name string) []byte {
		m := dnsmessage.Message{
			Header:    dnsmessage.Header{Response: true},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		}
		m.Answers = gives("192.0.2.1", 60)(m, false).Answers
		out, err := m.Pack()
		must(t, err)
		return out
	}
	kept := 0
	for i := range 5000 {
		name := fmt.Sprintf("n%d.example.", i)
		now = now.Add(ms)
		c.put(name, msg(name), nil, now)
		if c.size > c.limit {
			t.Fatalf("%d bytes after %d answers", c.size, i)
		}
		if c.get([]byte("n0.example."), now) != nil {
			kept++
		}
	}
	if kept < 4000 {
		t.Errorf("an answer that is used all the time was there %d times of 5000", kept)
	}
	size := 0
	for key, e := range c.entries {
		size += c.cost(key, e.msg)
	}
	if size != c.size || len(c.entries) < 100 {
		t.Errorf("%d entries of %d bytes, counted %d", len(c.entries), size, c.size)
	}
	c.put("big", slices.Concat(msg("big.example."), make([]byte, 16<<10)), nil, now)
	if c.get([]byte("big"), now) != nil {
		t.Error("an answer that is no proper one was kept")
	}
}

// TestHopOptions: a cookie is for one client, an explanation for all.
func TestHopOptions(t *testing.T) {
	build := func(options ...dnsmessage.Option) []byte {
		m := dnsmessage.Message{
			Header:    dnsmessage.Header{Response: true},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("a.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		}
		var h dnsmessage.ResourceHeader
		must(t, h.SetEDNS0(1232, dnsmessage.RCodeSuccess, true))
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{Options: options}}}
		out, err := m.Pack()
		must(t, err)
		return out
	}
	cookie := dnsmessage.Option{Code: optionCook, Data: []byte("0123456789abcdef")}
	pad := dnsmessage.Option{Code: optionPad, Data: make([]byte, 30)}
	ede := dnsmessage.Option{Code: optionEDE, Data: []byte("\x00\x03stale")}
	want := build(ede)
	for _, options := range [][]dnsmessage.Option{{ede}, {cookie, ede}, {ede, cookie}, {pad, ede, cookie}} {
		if got := withoutHop(build(options...)); string(got) != string(want) {
			t.Errorf("%v: %x, want %x", options, got, want)
		}
	}
	if got, want := withoutHop(build(cookie)), build(); string(got) != string(want) {
		t.Errorf("%x, want %x", got, want)
	}
	if text := strings.Repeat("x", 12); string(withoutHop([]byte(text))) != text {
		t.Error("what is no message was changed")
	}
}

// TestUpstreamsChange: answers of other upstreams are not told any more.
func TestUpstreamsChange(t *testing.T) {
	bubble(t, func(t *testing.T, f *fakes) {
		first, second := f.add(&fake{ttl: 60}), f.add(&fake{ttl: 60})
		s := f.server(Config{})
		defer s.Close()
		list := upstreams(first)()
		s.cfg.Upstreams = func() []netip.AddrPort { return list }
		f.ask(s, "a.example")
		if f.ask(s, "a.example"); f.order() != "" {
			t.Error("not kept")
		}
		list = upstreams(second)()
		if res, _ := f.ask(s, "a.example"); res.Upstream != second.String() || res.Source != FromUpstream {
			t.Errorf("%+v", res)
		}
		if len(f.told) != 1 || f.told[0].Kind != UpstreamsNew || f.told[0].Detail != second.String() {
			t.Errorf("told %v", f.told)
		}
	})
}
