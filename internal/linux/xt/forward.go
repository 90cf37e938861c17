//go:build linux

package xt

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/nft"
)

// A table of more bytes than long, some four hundred rules, is long. rest bounds
// what the reading of those costs: having read one, Forward leaves it alone for
// so many times as long as that took, unless its size or the places of its chains
// are others. 5 000 rules take 4 ms, most of which the kernel needs to copy them
// out.
const (
	long = 1 << 16
	rest = 20
)

// seen is a table as it was read last. There is no notification of a change, and
// no generation to ask for, so that it is read again; but bytes are compared
// much sooner than understood.
type seen struct {
	in    info
	b     []byte // as fetch gave it
	spare []byte // that of the read before, for the next one
	def   nft.TableDef
	until time.Time // it is long, and not read again before
	there bool      // in the list that is being read
}

// Forward reads those that have a chain at hook forward, and says whether any
// differs from what it gave last.
func (r *Reader) Forward(ipv6 bool) (tables []nft.TableDef, changed bool, err error) {
	l := layoutOf(ipv6)
	all := &r.seen[l.index()]
	if *all == nil {
		*all = map[string]*seen{}
	}
	for _, s := range *all {
		s.there = false
	}
	err = r.each(l, forwards, func(fd int, name string) error {
		s := (*all)[name]
		if s == nil {
			s = &seen{}
		}
		differs, err := s.read(fd, l, name)
		if err != nil {
			return err
		}
		(*all)[name], s.there = s, true
		changed = changed || differs
		return nil
	})
	if err != nil {
		*all = nil // what was told last is not known any more
		return nil, true, err
	}
	for _, name := range slices.Sorted(maps.Keys(*all)) {
		if s := (*all)[name]; s.there {
			tables = append(tables, s.def)
			continue
		}
		delete(*all, name)
		changed = true
	}
	return tables, changed, nil
}

func forwards(table string) bool {
	return table == "filter" || table == "mangle" || table == "security"
}

// read reads the table, and decodes it when it is another one than before.
func (s *seen) read(fd int, l layout, name string) (differs bool, err error) {
	began := time.Now()
	if began.Before(s.until) {
		if in, err := ask(fd, l, name); err != nil || in == s.in {
			return false, err
		}
	}
	busy := processorTime()
	in, b, err := fetch(fd, l, name, s.spare)
	if err != nil {
		return false, err
	}
	if in.Size > long {
		s.until = began.Add(rest * (processorTime() - busy))
	}
	if in == s.in && s.b != nil && l.same(s.b[entriesAt:], b[entriesAt:]) {
		s.spare = b
		return false, nil
	}
	def, err := l.table(name, in, b[entriesAt:])
	if err != nil {
		return false, err
	}
	s.in, s.b, s.spare, s.def = in, b, s.b, def
	return true, nil
}

// processorTime is what the calling thread has used, which does not grow while
// others have the processor.
func processorTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// same says whether two tables are the same but for the counters, which are the
// last in struct ipt_entry and ip6t_entry.
func (l layout) same(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	counters := uint32(l.matchesAt()) - 16
	for at := uint32(0); int(at) < len(b); {
		_, next, ok := l.offsets(b, at)
		end := uint64(at) + uint64(next)
		if !ok || next < counters+16 || end > uint64(len(b)) ||
			!bytes.Equal(a[at:at+counters], b[at:at+counters]) || !bytes.Equal(a[at+counters+16:end], b[at+counters+16:end]) {
			return false
		}
		at += next
	}
	return true
}
