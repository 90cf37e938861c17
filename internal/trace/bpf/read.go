//go:build linux

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/trace"
)

// event is struct event of trace.bpf.c.
type event struct {
	At      uint64
	Packet  uint64
	NetNS   uint32
	In, Out uint32
	Reason  uint32
	Held    uint16
	Kind    uint8
	Hook    uint8
	Length  uint32
	InName  [unix.IFNAMSIZ]byte
	OutName [unix.IFNAMSIZ]byte
	Symbol  [48]byte
	Headers [128]byte
}

// sizeofEvent is how many bytes an event is.
const sizeofEvent = 248

// decode reads an event as the kernel has it. Floods come through here, and
// encoding/binary goes by reflection.
func (e *event) decode(b []byte) error {
	if len(b) < sizeofEvent {
		return fmt.Errorf("%d bytes of %d: %w", len(b), sizeofEvent, io.ErrUnexpectedEOF)
	}
	n := binary.NativeEndian
	e.At, e.Packet = n.Uint64(b), n.Uint64(b[8:])
	e.NetNS, e.In, e.Out, e.Reason = n.Uint32(b[16:]), n.Uint32(b[20:]), n.Uint32(b[24:]), n.Uint32(b[28:])
	e.Held, e.Kind, e.Hook, e.Length = n.Uint16(b[32:]), b[34], b[35], n.Uint32(b[36:])
	copy(e.InName[:], b[40:])
	copy(e.OutName[:], b[56:])
	copy(e.Symbol[:], b[72:])
	copy(e.Headers[:], b[120:])
	return nil
}

// Kinds of events.
const (
	received = 1 + iota
	sent
	entered
	left
	dropped
)

// FD is readable when there are events.
func (s *Session) FD() int { return s.programs.Maps["events"].FD() }

// Read notes what there is by now. Times count from start.
func (s *Session) Read(start time.Time, w *trace.Watch, most int) error {
	s.reader.SetDeadline(time.Unix(1, 0)) // it does not wait
	for len(w.Sightings)+len(w.Crossings)+len(w.Drops) < most {
		err := s.reader.ReadInto(&s.record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return s.left(w)
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		var e event
		if err := e.decode(s.record.RawSample); err != nil {
			return fmt.Errorf("read event: %w", err)
		}
		s.note(&e, start, w)
	}
	w.Lost = true
	return nil
}

// left notes whether events could not be told of since this was asked last.
func (s *Session) left(w *trace.Watch) error {
	var told []struct{ Second, Events, Lost uint64 }
	if err := s.programs.Maps["tellings"].Lookup(uint32(0), &told); err != nil {
		return fmt.Errorf("read how many events were lost: %w", err)
	}
	var lost uint64
	for _, t := range told {
		lost += t.Lost
	}
	w.Lost = w.Lost || lost > s.lost
	s.lost = lost
	return nil
}

// note puts one event among what was seen.
func (s *Session) note(e *event, start time.Time, w *trace.Watch) {
	p, ok := trace.ParsePacket(e.Headers[:min(int(e.Held), len(e.Headers))])
	if !ok {
		return
	}
	space, ok := s.space(e)
	if !ok {
		return
	}
	at := s.start.Add(time.Duration(e.At) - s.boot).Sub(start)
	switch e.Kind {
	case received, sent:
		w.Sightings = append(w.Sightings, trace.Sighting{At: at, Space: space, Link: text(e.InName[:]), Out: e.Kind == sent, Packet: p})
	case entered, left:
		w.Crossings = append(w.Crossings, trace.Crossing{
			At: at, Space: space, Hook: hook(e.Hook), Left: e.Kind == left, In: text(e.InName[:]), Out: text(e.OutName[:]), ID: e.Packet, Packet: p,
		})
	case dropped:
		w.Drops = append(w.Drops, trace.Drop{At: at, Space: space, Link: text(e.InName[:]), Reason: s.reason(e.Reason), Symbol: text(e.Symbol[:]), Packet: p})
	}
}

// mostPlaces is of how many packets it is known where they were last.
const mostPlaces = 4096

// space is the name of the namespace of an event. Where the kernel does not say
// which it is (a packet that its receiver drops belongs to no device any more), it
// is the one that the packet was in last. Not ok: it is none of those that are
// known.
func (s *Session) space(e *event) (name string, ok bool) {
	if e.NetNS == 0 {
		name, ok = s.places[e.Packet]
		return name, ok
	}
	name, ok = s.names[e.NetNS]
	switch {
	case e.Kind == dropped || !ok:
		delete(s.places, e.Packet)
		return name, ok
	case len(s.places) >= mostPlaces:
		clear(s.places)
	}
	s.places[e.Packet] = name
	return name, ok
}

// reason is the kernel's name for a reason; those of modules have numbers of
// their own behind the module's (SKB_DROP_REASON_SUBSYS_MASK).
func (s *Session) reason(n uint32) string {
	name, ok := s.reasons[n]
	switch {
	case ok && n != 0:
		return name
	case n == 0:
		return ""
	}
	return fmt.Sprintf("reason %#x", n)
}

// hook is the name of a hook of the packet filter (enum nf_inet_hooks).
func hook(n uint8) string {
	names := []string{"prerouting", "input", "forward", "output", "postrouting"}
	if int(n) >= len(names) {
		return ""
	}
	return names[n]
}

func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
