//go:build linux

package dns

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Record is a record as people read it.
type Record struct {
	Name string
	Type Type
	TTL  uint32
	Data string
}

// Source is who has an answer.
type Source string

// The sources of answers.
const (
	FromNames    Source = "names"
	FromCache    Source = "cache"
	FromUpstream Source = "upstream"
	FromNobody   Source = "nobody"
)

// Resolution is an answer and where it comes from.
type Resolution struct {
	Code     RCode
	Records  []Record
	Source   Source
	Network  string        // of a local name
	Upstream string        // who gave it, also if it was kept since
	Age      time.Duration // of one from the cache
	Stale    bool          // its time is over, and no upstream answers
	Why      string        // in words: what the name is, or why there is no answer
}

// Lookup says what the names alone know; upstream tells whether others are asked
// for it. It changes nothing.
func (n *Names) Lookup(sandbox, name string, t Type, ttl time.Duration) (res Resolution, upstream bool, err error) {
	p := packet{}
	size, err := p.ask(name, t)
	if err != nil {
		return res, false, err
	}
	p.q.parse(p.in[:size], true)
	res, m := n.lookup(sandbox, &p, uint32(ttl/time.Second), 0)
	return res, m != nil && res.Source == FromNobody && m.external, nil
}

// lookup is Lookup of a packet.
func (n *Names) lookup(sandbox string, p *packet, ttl, turn uint32) (Resolution, *member) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	m := n.sandboxes[sandbox]
	if m == nil {
		return Resolution{Source: FromNobody, Code: ServerFailure, Why: fmt.Sprintf("sandbox %q is not connected to a resolver", sandbox)}, nil
	}
	found := n.match(m, p.q.key(), p.q.qtype)
	if found.kind == nobody {
		return Resolution{Source: FromNobody, Code: NameError, Why: "internal networks have local names only, and this is none"}, m
	}
	msg := n.answer(nil, &p.q, &found, ttl, turn)
	res := Resolution{Source: FromNames, Network: found.network, Code: found.code, Records: records(msg)}
	res.Why = found.words(len(res.Records) == 0, p.q.qtype)
	return res, m
}

// words says what a name is.
func (m *match) words(empty bool, t Type) string {
	text := map[kind]string{
		known:    "a name on network " + m.network,
		itself:   "the sandbox itself, which is on no network",
		byHand:   "a name given with --add-host",
		gateway:  "the host, by the gateway of network " + m.network,
		loopback: "this machine, always",
		reverse:  "the address of a local name",
		service:  "a published port of a name on network " + m.network,
		outside:  "all names in " + Domain + " are local, and this is none",
	}[m.kind]
	switch {
	case m.kind == gateway && m.network == "":
		text = "the host, and no network of the sandbox has a gateway of this family"
	case m.kind == service && m.code == NameError:
		text = "a name on network " + m.network + ", which publishes no such port"
	case empty && m.code == NoError:
		text += "; it has no " + t.String() + " record"
	}
	return text
}

// Resolve answers a query as if it came from a sandbox, and says how.
func (s *Server) Resolve(ctx context.Context, sandbox, name string, t Type) (Resolution, error) {
	p := s.packet()
	size, err := p.ask(name, t)
	if err != nil {
		s.release(p)
		return Resolution{}, fmt.Errorf("resolve %q: %w", name, err)
	}
	p.q.parse(p.in[:size], true)
	res, m := s.cfg.Names.lookup(sandbox, p, s.ttl, rand.Uint32())
	if m == nil || res.Source != FromNobody || !m.external {
		s.release(p)
		return res, nil
	}
	p.q.stream = false // ask as most do
	sc := s.scope(m)
	if len(sc.list) == 0 {
		s.release(p)
		return Resolution{Source: FromNobody, Code: ServerFailure, Why: "no upstream resolver is known: give one with --dns, or in the host's /etc/resolv.conf"}, nil
	}
	p.key = appendKey(p.key[:0], sc.id, &p.q)
	return s.resolve(ctx, sc, p)
}

// resolve asks the cache and upstreams, on behalf of those who own the asking,
// and so goes on for them when ctx ends.
func (s *Server) resolve(ctx context.Context, sc *scope, p *packet) (Resolution, error) {
	if e := s.cache.get(p.key, time.Now()); e != nil && time.Now().Before(e.expires) {
		defer s.release(p)
		return outcome{msg: e.msg, kept: e}.told(p), nil
	}
	s.mu.Lock()
	k, closed := s.open[sc.sandbox], s.closed
	if k == nil && sc.sandbox != "" || closed {
		s.mu.Unlock()
		s.release(p)
		return Resolution{}, fmt.Errorf("resolve for sandbox %s: %w", sc.sandbox, net.ErrClosed)
	}
	owner, wg := s.owner(k, sc)
	done := make(chan Resolution, 1)
	wg.Go(func() {
		defer s.release(p)
		done <- s.obtain(owner, wg, sc, &p.q, p.key).told(p)
	})
	s.mu.Unlock()
	select {
	case res := <-done:
		return res, nil
	case <-ctx.Done():
		return Resolution{}, ctx.Err()
	}
}

// told says where an outcome comes from.
func (o outcome) told(p *packet) Resolution {
	now := time.Now()
	p.q.stream = true // whole
	p.out = o.write(p.out, &p.q, now)
	res := Resolution{Code: codeOf(p.out), Records: records(p.out), Source: FromUpstream}
	switch {
	case o.msg == nil:
		res.Source, res.Why = FromNobody, fmt.Sprintf("no upstream resolver has an answer: %v", o.err)
		if errors.Is(o.err, context.Canceled) {
			res.Why = "the resolver is being closed"
		}
	case o.kept != nil:
		res.Source, res.Upstream, res.Age = FromCache, o.kept.from.String(), now.Sub(o.kept.stored)
		res.Why = "kept from an answer of " + res.Upstream
		if res.Stale = !now.Before(o.kept.expires); res.Stale {
			res.Why += "; its time is over, but no upstream resolver answers now"
		}
	default:
		res.Upstream, res.Why = o.from.String(), "answered by "+o.from.String()
	}
	return res
}

// ask writes a query for a name into the packet, and returns its size.
func (p *packet) ask(name string, t Type) (int, error) {
	if name == "" {
		return 0, errors.New("name is empty")
	}
	if err := CheckName(name); err != nil && name != "." {
		return 0, err
	}
	b := append(p.in[:0], byte(rand.Uint32()), byte(rand.Uint32()), flagRD>>8, 0, 0, 1, 0, 0, 0, 0, 0, 1)
	if name != "." {
		b = appendName(b, name)
	}
	b = append(b, 0, byte(t>>8), byte(t), 0, classIN)
	b = append(b, 0, 0, byte(TypeOPT), maxQuery>>8, maxQuery&0xff, 0, 0, 0, 0, 0, 0)
	return len(b), nil
}

// ReverseName is the name that is asked for the name of an address.
func ReverseName(a netip.Addr) string {
	a = a.Unmap()
	if a.Is4() {
		b := a.As4()
		return fmt.Sprintf("%d.%d.%d.%d.in-addr.arpa", b[3], b[2], b[1], b[0])
	}
	var text strings.Builder
	b := a.As16()
	for i := 15; i >= 0; i-- {
		fmt.Fprintf(&text, "%x.%x.", b[i]&0xf, b[i]>>4)
	}
	return text.String() + "ip6.arpa"
}

// records reads the answers of a message. What is behind a bad one is left out.
func records(msg []byte) []Record {
	var p dnsmessage.Parser
	if _, err := p.Start(msg); err != nil || p.SkipAllQuestions() != nil {
		return nil
	}
	var out []Record
	for {
		r, err := p.Answer()
		if err != nil {
			return out
		}
		out = append(out, Record{
			Name: strings.TrimSuffix(r.Header.Name.String(), "."), Type: Type(r.Header.Type), TTL: r.Header.TTL, Data: dataText(r.Body),
		})
	}
}

// dataText writes a record's data as in a zone file.
func dataText(body dnsmessage.ResourceBody) string {
	switch d := body.(type) {
	case *dnsmessage.AResource:
		return netip.AddrFrom4(d.A).String()
	case *dnsmessage.AAAAResource:
		return netip.AddrFrom16(d.AAAA).String()
	case *dnsmessage.CNAMEResource:
		return d.CNAME.String()
	case *dnsmessage.NSResource:
		return d.NS.String()
	case *dnsmessage.PTRResource:
		return d.PTR.String()
	case *dnsmessage.MXResource:
		return fmt.Sprintf("%d %s", d.Pref, d.MX)
	case *dnsmessage.SRVResource:
		return fmt.Sprintf("%d %d %d %s", d.Priority, d.Weight, d.Port, d.Target)
	case *dnsmessage.SOAResource:
		return fmt.Sprintf("%s %s %d %d %d %d %d", d.NS, d.MBox, d.Serial, d.Refresh, d.Retry, d.Expire, d.MinTTL)
	case *dnsmessage.TXTResource:
		var parts []string
		for _, text := range d.TXT {
			parts = append(parts, fmt.Sprintf("%q", text))
		}
		return strings.Join(parts, " ")
	case *dnsmessage.UnknownResource:
		return fmt.Sprintf(`\# %d %s`, len(d.Data), hex.EncodeToString(d.Data)) // RFC 3597
	}
	return ""
}

// Stats gives the counts of the sandboxes that have sockets.
func (s *Server) Stats() map[string]Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]Stats, len(s.open))
	for name, k := range s.open {
		out[name] = k.count.read()
	}
	return out
}

// Upstreams tells how the upstreams do that are remembered.
func (s *Server) Upstreams() map[Upstream]UpstreamStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[Upstream]UpstreamStats, len(s.upstreams))
	for at, u := range s.upstreams {
		out[at] = u.stats()
	}
	return out
}
