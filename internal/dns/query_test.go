package dns

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// parts joins bytes: numbers are single bytes, text is itself.
func parts(list ...any) []byte {
	var b []byte
	for _, p := range list {
		switch p := p.(type) {
		case int:
			b = append(b, byte(p))
		case string:
			b = append(b, p...)
		case []byte:
			b = append(b, p...)
		}
	}
	return b
}

// Pieces of queries.
var (
	plainHead = parts(0x12, 0x67, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	ednsHead  = parts(0x12, 0x67, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1)
	webA      = parts(3, "web", 0, 0, 1, 0, 1)
	opt       = parts(0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0)
)

// head is plainHead with some bytes changed.
func head(at int, with ...byte) []byte {
	b := slices.Clone(plainHead)
	copy(b[at:], with)
	return b
}

// local runs a packet through a server without upstreams.
func localAnswer(s *Server, k *sockets, packet []byte, stream bool) ([]byte, *member) {
	p := s.packet()
	n := copy(p.in[:], packet)
	return s.local(k, p, max(n, len(packet)), stream)
}

// TestBadQueries: what is no proper query gets the code that the RFCs have for
// it, or no answer.
func TestBadQueries(t *testing.T) {
	s := New(Config{Names: world()})
	defer s.Close()
	k := s.newSockets("web")
	long := func(n int) []byte { return parts(n, strings.Repeat("a", n)) }
	name := func(labels ...[]byte) []byte { return slices.Concat(append(labels, []byte{0, 0, 1, 0, 1})...) }
	for _, tt := range []struct {
		name   string
		packet []byte
		want   string // the code, or "silence"
	}{
		{"good", parts(plainHead, webA), "NOERROR"},
		{"good with EDNS", parts(ednsHead, webA, opt), "NOERROR"},
		{"empty", nil, "silence"},
		{"half a header", plainHead[:11], "silence"},
		{"header alone", plainHead, "FORMERR"},
		{"an answer", parts(head(2, 0x81), webA), "silence"},
		{"an answer to nothing", head(2, 0x80, 0, 0, 0), "silence"},
		{"inverse query", parts(head(2, 1<<3), webA), "NOTIMP"},
		{"status", parts(head(2, 2<<3), webA), "NOTIMP"},
		{"update", parts(head(2, 5<<3), webA), "NOTIMP"},
		{"unknown opcode", parts(head(2, 15<<3), webA), "NOTIMP"},
		{"no question", head(4, 0, 0), "FORMERR"},
		{"two questions", parts(head(4, 0, 2), webA, webA), "FORMERR"},
		{"65535 questions", parts(head(4, 0xff, 0xff), webA), "FORMERR"},
		{"an answer in the query", parts(head(6, 0, 1), webA), "FORMERR"},
		{"an authority in the query", parts(head(8, 0, 1), webA), "FORMERR"},
		{"name cut off", parts(plainHead, 3, "we"), "FORMERR"},
		{"name without end", parts(plainHead, 3, "web"), "FORMERR"},
		{"type cut off", parts(plainHead, 3, "web", 0, 0), "FORMERR"},
		{"class cut off", parts(plainHead, 3, "web", 0, 0, 1, 0), "FORMERR"},
		{"bytes behind", parts(plainHead, webA, 0), "FORMERR"},
		{"pointer to itself", parts(plainHead, 0xc0, 12, 0, 1, 0, 1), "FORMERR"},
		{"pointer into the header", parts(plainHead, 0xc0, 0, 0, 1, 0, 1), "FORMERR"},
		{"pointer ahead", parts(plainHead, 0xc0, 14, 3, "web", 0, 0, 1, 0, 1), "FORMERR"},
		{"pointer behind a label", parts(plainHead, 3, "web", 0xc0, 12, 0, 1, 0, 1), "FORMERR"},
		{"pointer cut off", parts(plainHead, 3, "web", 0xc0), "FORMERR"},
		{"label of 64 bytes", parts(plainHead, name(long(64))), "FORMERR"},
		{"label of the reserved kind", parts(plainHead, name(parts(0x80, 1))), "FORMERR"},
		{"label of 63 bytes", parts(plainHead, name(long(63))), "upstream"},
		{"name of 253 bytes", parts(plainHead, name(long(63), long(63), long(63), long(61))), "upstream"},
		{"name of 254 bytes", parts(plainHead, name(long(63), long(63), long(63), long(62))), "FORMERR"},
		{"name of 300 bytes", parts(plainHead, name(long(63), long(63), long(63), long(63), long(44))), "FORMERR"},
		{"the root", parts(plainHead, 0, 0, 2, 0, 1), "upstream"},
		{"class CH", parts(plainHead, 7, "version", 4, "bind", 0, 0, 16, 0, 3), "NOTIMP"},
		{"class ANY", parts(plainHead, 3, "web", 0, 0, 1, 0, 255), "NOTIMP"},
		{"unknown class", parts(plainHead, 3, "web", 0, 0, 1, 0x12, 0x34), "NOTIMP"},
		{"AXFR", parts(plainHead, 3, "web", 0, 0, 252, 0, 1), "REFUSED"},
		{"IXFR", parts(plainHead, 3, "web", 0, 0, 251, 0, 1), "REFUSED"},
		{"type OPT", parts(plainHead, 3, "web", 0, 0, 41, 0, 1), "FORMERR"},
		{"type 0", parts(plainHead, 3, "web", 0, 0, 0, 0, 1), "FORMERR"},
		{"unknown type", parts(plainHead, 3, "web", 0, 0xff, 0x42, 0, 1), "NOERROR"},
		{"OPT announced", parts(ednsHead, webA), "FORMERR"},
		{"OPT cut off", parts(ednsHead, webA, opt[:10]), "FORMERR"},
		{"two OPT", parts(head(10, 0, 2), webA, opt, opt), "FORMERR"},
		{"OPT with a name", parts(ednsHead, webA, 1, "a", opt), "FORMERR"},
		{"OPT with a pointer as name", parts(ednsHead, webA, 0xc0, 15, opt[1:]), "FORMERR"},
		{"option cut off", parts(ednsHead, webA, opt[:10], 3, 0, 10, 0), "FORMERR"},
		{"option too long", parts(ednsHead, webA, opt[:10], 5, 0, 10, 0, 8, 1), "FORMERR"},
		{"EDNS version 1", parts(ednsHead, webA, opt[:6], 1, opt[7:]), "BADVERS"},
		{"another record behind", parts(ednsHead, webA, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4), "NOERROR"},
		{"1232 bytes", parts(ednsHead, webA, opt[:9], 1200>>8, 1200&0xff, 0, 12, 1196>>8, 1196&0xff, make([]byte, 1196)), "NOERROR"},
		{"1233 bytes", parts(ednsHead, webA, opt[:9], 1201>>8, 1201&0xff, 0, 12, 1197>>8, 1197&0xff, make([]byte, 1197)), "FORMERR"},
		{"too long", parts(ednsHead, webA, make([]byte, 2000)), "FORMERR"},
		{"64 kB", parts(ednsHead, webA, make([]byte, 65000)), "FORMERR"},
	} {
		for _, stream := range []bool{false, true} {
			answer, m := localAnswer(s, k, tt.packet, stream)
			got := "silence"
			switch {
			case answer != nil:
				got = codeWithOPT(t, answer).String()
				if string(answer[:2]) != string(tt.packet[:2]) || answer[2]&0x80 == 0 {
					t.Errorf("%s: answer %x", tt.name, answer)
				}
			case m != nil:
				got = "upstream"
			}
			if got != tt.want {
				t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
			}
		}
	}
}

// codeWithOPT reads an answer with a parser of others, and gives the code with
// its upper bits, which are in OPT.
func codeWithOPT(t testing.TB, answer []byte) RCode {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(answer); err != nil {
		t.Fatalf("answer %x: %v", answer, err)
	}
	code := RCode(m.RCode)
	for _, r := range m.Additionals {
		if r.Header.Type == dnsmessage.TypeOPT {
			code = RCode(r.Header.ExtendedRCode(m.RCode))
		}
	}
	return code
}

// crowd is a sandbox and many others that share an alias.
func crowd(n int) *Names {
	names := NewNames()
	for i := range n {
		names.Put(Member{Sandbox: fmt.Sprint("w", i), Attachments: []Attachment{{
			Network: "net", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}, Aliases: []string{"all"},
		}}, Services: []Service{{80, "tcp"}}})
	}
	return names
}

// TestSizes: an answer is not longer than the client takes, and says so when it
// is not all. Over TCP it is all.
func TestSizes(t *testing.T) {
	s := New(Config{Names: crowd(1000)})
	defer s.Close()
	k := s.newSockets("w0")
	for _, tt := range []struct {
		name      string
		typ       Type
		edns      int
		stream    bool
		answers   int
		truncated bool
	}{
		{"w7.", TypeA, 0, false, 1, false},
		{"all.", TypeA, 0, false, (512 - 21) / 16, true},
		{"all.", TypeA, 100, false, (512 - 21 - 11) / 16, true}, // below 512 means 512
		{"all.", TypeA, 1232, false, (1232 - 21 - 11) / 16, true},
		{"all.", TypeA, 65535, false, (4096 - 21 - 11) / 16, true},
		{"all.", TypeA, 0, true, 1000, false},
		{"all.", TypeA, 1232, true, 1000, false},
		{"_80._tcp.all.", TypeSRV, 0, false, 1, false}, // what is left out is not the answer
		{"_80._tcp.all.", TypeSRV, 1232, true, 1, false},
	} {
		answer, _ := localAnswer(s, k, question(t, tt.name, tt.typ, tt.edns), tt.stream)
		var m dnsmessage.Message
		must(t, m.Unpack(answer))
		if len(m.Answers) != tt.answers || m.Truncated != tt.truncated {
			t.Errorf("%s, EDNS %d, TCP %t: %d answers, truncated %t", tt.name, tt.edns, tt.stream, len(m.Answers), m.Truncated)
		}
		if limit := min(max(tt.edns, 512), maxAnswer); !tt.stream && len(answer) > limit {
			t.Errorf("%s, EDNS %d: %d bytes", tt.name, tt.edns, len(answer))
		}
		if has := slices.ContainsFunc(m.Additionals, func(r dnsmessage.Resource) bool { return r.Header.Type == dnsmessage.TypeOPT }); has != (tt.edns > 0) {
			t.Errorf("%s, EDNS %d: OPT %t", tt.name, tt.edns, has)
		}
	}
}

// TestReason: a refusal says why to those who know EDNS (RFC 8914).
func TestReason(t *testing.T) {
	s := New(Config{Names: world()})
	defer s.Close()
	for sandbox, want := range map[string]string{"safe": "\x00\x12internal networks: local names only", "nobody": "\x00\x0esandbox is not connected yet"} {
		k := s.newSockets(sandbox)
		answer, _ := localAnswer(s, k, question(t, "example.org.", TypeA, 1232), false)
		var m dnsmessage.Message
		must(t, m.Unpack(answer))
		options := m.Additionals[0].Body.(*dnsmessage.OPTResource).Options
		if len(options) != 1 || options[0].Code != optionEDE || string(options[0].Data) != want {
			t.Errorf("%s: %v", sandbox, options)
		}
	}
}

// TestFlags: RD and CD are repeated, letters are as the client wrote them, and
// the DO bit of EDNS too.
func TestFlags(t *testing.T) {
	s := New(Config{Names: world()})
	defer s.Close()
	k := s.newSockets("api")
	q := parts(0xab, 0xcd, 1, 0x10, 0, 1, 0, 0, 0, 0, 0, 1, 3, "wEb", 0, 0, 1, 0, 1, opt[:7], 0x80, opt[8:])
	answer, _ := localAnswer(s, k, q, false)
	want := parts(0xab, 0xcd, 0x85, 0x90, 0, 1, 0, 1, 0, 0, 0, 1, 3, "wEb", 0, 0, 1, 0, 1,
		0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 172, 20, 0, 2,
		0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0, 0, 0)
	if string(answer) != string(want) {
		t.Errorf("answer\n%x, want\n%x", answer, want)
	}
	if binary.BigEndian.Uint16(answer[2:])&flagAD != 0 {
		t.Error("AD of what nobody signed")
	}
}

// FuzzLocal: no packet crashes the server, and every answer is one that others
// can read, is to this query, and no longer than the client takes.
func FuzzLocal(f *testing.F) {
	for _, seed := range [][]byte{
		nil, plainHead, parts(plainHead, webA), parts(ednsHead, webA, opt), parts(head(4, 0, 2), webA, webA),
		parts(plainHead, 0xc0, 12, 0, 1, 0, 1), parts(ednsHead, webA, opt[:10], 4, 0, 10, 0, 0),
		question(f, "_80._tcp.pool.front.", TypeSRV, 1232), question(f, "2.0.20.172.in-addr.arpa.", TypePTR, 0),
		question(f, ReverseName(addrs("fd00:20::2")[0])+".", TypePTR, 512), question(f, "pool.towpath.internal.", TypeANY, 4096),
		question(f, "host.docker.internal.", TypeAAAA, 0), question(f, "a.localhost.", TypeA, 0),
	} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	s := New(Config{Names: world()})
	f.Cleanup(func() { s.Close() })
	k := s.newSockets("web")
	k.all.rate = 0
	f.Fuzz(func(t *testing.T, b []byte, stream bool) {
		b = b[:min(len(b), 2*maxQuery)]
		p := s.packet()
		defer s.release(p)
		copy(p.in[:], b)
		answer, _ := s.local(k, p, len(b), stream)
		if answer == nil || bytes.ContainsRune(p.q.key(), '.') { // what reads it knows no dots in labels
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil {
			t.Fatalf("%x: answer %x: %v", b, answer, err)
		}
		if len(b) < headerLen || string(answer[:2]) != string(b[:2]) || !m.Response || b[2]&0x80 != 0 {
			t.Fatalf("%x: answer %x", b, answer)
		}
		if !stream && len(answer) > maxAnswer {
			t.Fatalf("%x: %d bytes", b, len(answer))
		}
	})
}

// FuzzAnswer: what an upstream sends never crashes: it is kept or not, and
// written for a client without a byte outside of it.
func FuzzAnswer(f *testing.F) {
	q := question(f, "a.example.", TypeA, 1232)
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, Response: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("a.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	m.Answers = gives("192.0.2.1", 60)(m, false).Answers
	whole, err := m.Pack()
	must(f, err)
	f.Add(q, whole)
	f.Add(q, parts(whole[:11], 1, whole[12:], opt[:10], 4, 0, 10, 0, 0))
	f.Add(q, parts(whole[:4], 0, 0, whole[6:]))
	f.Add(q, whole[:headerLen])
	s := New(Config{Names: world()})
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, asked, answer []byte) {
		var p query
		if v, _ := p.parse(asked[:min(len(asked), maxQuery)], false); v != accept || !matches(answer, p.raw, p.end) {
			return
		}
		now := time.Unix(1, 0)
		answer = withoutHop(slices.Clone(answer))
		s.cache.put("k", answer, &upstream{}, now)
		e := s.cache.get([]byte("k"), now)
		out := outcome{msg: answer, kept: e}
		if got := out.write(nil, &p, now); len(got) > p.limit() {
			t.Fatalf("%x: %d bytes", answer, len(got))
		}
		records(answer)
		s.cache.mu.Lock()
		s.cache.remove("k")
		s.cache.mu.Unlock()
	})
}
