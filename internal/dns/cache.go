package dns

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// Times of the cache.
const (
	maxTTL    = 24 * time.Hour
	maxNoTTL  = 3 * time.Hour    // of an answer that says no (RFC 2308, section 5)
	keepStale = 24 * time.Hour   // how long after its time an answer may still serve (RFC 8767)
	staleTTL  = 30 * time.Second // what is said then (RFC 8767, section 5.2)
)

// entryCost is what an answer costs besides its bytes and its key.
const entryCost = 200

// kept is an answer in the cache. It does not change.
type kept struct {
	msg     []byte
	ttls    []uint16 // where in msg the times are
	from    *upstream
	stored  time.Time
	expires time.Time
	used    atomic.Int64
}

// cache keeps answers of upstreams in bounded memory. What goes when it is full
// is the one used longest ago out of a few that chance picks.
type cache struct {
	limit   int
	mu      sync.RWMutex
	entries map[string]*kept
	size    int
}

func newCache(limit int) *cache { return &cache{limit: limit, entries: map[string]*kept{}} }

// get gives what is kept, also if its time is over.
func (c *cache) get(key []byte, now time.Time) *kept {
	c.mu.RLock()
	e := c.entries[string(key)]
	c.mu.RUnlock()
	if e == nil || now.Sub(e.expires) > keepStale {
		return nil
	}
	e.used.Store(now.UnixNano())
	return e
}

// put keeps an answer, if it may be kept.
func (c *cache) put(key string, msg []byte, from *upstream, now time.Time) {
	ttl, ttls := lifetime(msg)
	if ttl <= 0 || c.cost(key, msg) > c.limit/8 {
		return
	}
	e := &kept{msg: msg, ttls: ttls, from: from, stored: now, expires: now.Add(ttl)}
	e.used.Store(now.UnixNano())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(key)
	c.entries[key] = e
	c.size += c.cost(key, msg)
	for c.size > c.limit {
		c.evict(key)
	}
}

func (c *cache) cost(key string, msg []byte) int { return len(key) + len(msg) + entryCost }

func (c *cache) remove(key string) {
	if e := c.entries[key]; e != nil {
		c.size -= c.cost(key, e.msg)
		delete(c.entries, key)
	}
}

// evict takes one out, other than the newest. A range over a map begins at a
// random place.
func (c *cache) evict(newest string) {
	const sample = 8
	oldest, seen := "", 0
	for key, e := range c.entries {
		if key == newest {
			continue
		}
		if oldest == "" || e.used.Load() < c.entries[oldest].used.Load() {
			oldest = key
		}
		if seen++; seen == sample {
			break
		}
	}
	c.remove(oldest)
}

// appendKey writes what an answer depends on: whom it is asked, the question,
// and the flags that an upstream looks at. The size of the client's datagrams is
// not among it: what is kept is whole.
func appendKey(dst []byte, scope uint64, q *query) []byte {
	var flags byte
	for i, set := range [...]bool{q.edns, q.do, q.flags&flagCD != 0, q.flags&flagAD != 0, q.flags&flagRD != 0} {
		if set {
			flags |= 1 << i
		}
	}
	dst = binary.BigEndian.AppendUint64(dst, scope)
	dst = append(dst, byte(q.qtype>>8), byte(q.qtype), flags)
	return append(dst, q.key()...)
}

// lifetime says how long an answer may be kept, 0 for not at all, and where its
// times are. An answer that says no may be kept if it says how long, by the SOA
// record of the zone (RFC 2308).
func lifetime(msg []byte) (time.Duration, []uint16) {
	flags := binary.BigEndian.Uint16(msg[2:])
	code := RCode(flags & maskRCode)
	if flags&flagTC != 0 || code != NoError && code != NameError {
		return 0, nil
	}
	answers := int(binary.BigEndian.Uint16(msg[6:]))
	authority := int(binary.BigEndian.Uint16(msg[8:]))
	all := answers + authority + int(binary.BigEndian.Uint16(msg[10:]))
	least, soa := int64(maxTTL/time.Second), int64(-1)
	var ttls []uint16
	at := afterQuestion(msg)
	for i := range all {
		r, ok := recordAt(msg, at)
		if !ok {
			return 0, nil
		}
		at = r.end
		if r.typ == TypeOPT {
			continue
		}
		ttl := int64(int32(r.ttl)) // negative: none (RFC 2181, section 8)
		if i < answers {
			least = min(least, ttl)
		} else if i < answers+authority && r.typ == TypeSOA && r.end-r.data >= 22 {
			soa = min(ttl, int64(int32(binary.BigEndian.Uint32(msg[r.end-4:]))), int64(maxNoTTL/time.Second))
		}
		ttls = append(ttls, uint16(r.ttlAt))
	}
	if at != len(msg) {
		return 0, nil
	}
	if answers == 0 || code == NameError {
		least = min(least, soa)
	}
	return time.Duration(max(least, 0)) * time.Second, ttls
}

// afterQuestion is where the answers begin, len(msg) where that cannot be.
func afterQuestion(msg []byte) int {
	if binary.BigEndian.Uint16(msg[4:]) == 0 {
		return headerLen
	}
	end := skipName(msg, headerLen)
	if end < 0 || end+4 > len(msg) {
		return len(msg)
	}
	return end + 4
}

// age writes the times as they are now.
func (e *kept) age(msg []byte, now time.Time) {
	past := uint32(now.Sub(e.stored) / time.Second)
	stale := !now.Before(e.expires)
	for _, at := range e.ttls {
		ttl := binary.BigEndian.Uint32(e.msg[at:])
		switch {
		case stale:
			ttl = uint32(staleTTL / time.Second)
		case ttl > past:
			ttl -= past
		default:
			ttl = 0
		}
		binary.BigEndian.PutUint32(msg[at:], ttl)
	}
}

// withoutHop takes the options about the upstream's hop alone off an answer that
// is to serve others too: a cookie is for whoever sent its half. The answer is the
// caller's to change.
func withoutHop(msg []byte) []byte {
	at := afterQuestion(msg)
	all := int(binary.BigEndian.Uint16(msg[6:])) + int(binary.BigEndian.Uint16(msg[8:])) + int(binary.BigEndian.Uint16(msg[10:]))
	for range all {
		r, ok := recordAt(msg, at)
		if !ok {
			return msg
		}
		if at = r.end; r.typ == TypeOPT && r.end == len(msg) {
			return dropHop(msg, r)
		}
	}
	return msg
}

// dropHop does so in the OPT record, which is the last one.
func dropHop(msg []byte, opt record) []byte {
	out := msg[:opt.data]
	for at := opt.data; at+4 <= opt.end; {
		next := min(at+4+int(binary.BigEndian.Uint16(msg[at+2:])), opt.end)
		switch binary.BigEndian.Uint16(msg[at:]) {
		case optionNSID, optionCook, optionAlive, optionPad:
		default:
			out = append(out, msg[at:next]...)
		}
		at = next
	}
	binary.BigEndian.PutUint16(out[opt.data-2:], uint16(len(out)-opt.data))
	return out
}
