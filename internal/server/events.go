package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/towpath/towpath/api"
)

// heartbeat is how often a stream without events says that it lives, so that
// a reader which is gone is noticed.
const heartbeat = 30 * time.Second

// events sends events as they happen until the client goes: server-sent
// events, or one JSON document a line to who accepts application/x-ndjson.
// ?since=TIME (RFC 3339) begins with those remembered from that time on.
func (s *service) events(_ *http.Request, p params) (answer, error) {
	return answer{stream: func(w http.ResponseWriter, r *http.Request) { s.streamEvents(w, r, p.since) }}, nil
}

func (s *service) streamEvents(w http.ResponseWriter, r *http.Request, since time.Time) {
	r, end := streaming(r)
	defer end()
	last := s.Events.Last()
	var first []api.Event
	if !since.IsZero() {
		first = s.Events.Since(since)
	}
	lines := strings.Contains(r.Header.Get("Accept"), "application/x-ndjson")
	out := stream{w: w, flush: http.NewResponseController(w), lines: lines}
	out.begin()
	for err := out.send(first); err == nil; err = s.next(r, &out, &last) {
		if len(first) > 0 {
			last, first = max(last, first[len(first)-1].ID), nil
		}
	}
}

// next waits for events and sends them, or a heartbeat.
func (s *service) next(r *http.Request, out *stream, last *int64) error {
	ctx, cancel := context.WithTimeout(r.Context(), heartbeat)
	defer cancel()
	events, err := s.Events.After(ctx, *last)
	if err != nil && r.Context().Err() == nil {
		return out.beat()
	}
	if err != nil {
		return err
	}
	*last = events[len(events)-1].ID
	return out.send(events)
}

// stream writes events to one reader.
type stream struct {
	w     http.ResponseWriter
	flush *http.ResponseController
	lines bool
}

func (o *stream) begin() {
	media := "text/event-stream"
	if o.lines {
		media = "application/x-ndjson"
	}
	o.w.Header().Set("Content-Type", media)
	o.w.Header().Set("Cache-Control", "no-store")
	o.w.WriteHeader(http.StatusOK)
}

func (o *stream) send(events []api.Event) error {
	for _, e := range events {
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		format := "id: %d\nevent: %s\ndata: %s\n\n"
		args := []any{e.ID, e.Action, data}
		if o.lines {
			format, args = "%s\n", []any{data}
		}
		if _, err := fmt.Fprintf(o.w, format, args...); err != nil {
			return err
		}
	}
	return o.flush.Flush()
}

// beat is a comment to one kind of reader, an empty line to the other.
func (o *stream) beat() error {
	text := ": \n\n"
	if o.lines {
		text = "\n"
	}
	if _, err := fmt.Fprint(o.w, text); err != nil {
		return err
	}
	return o.flush.Flush()
}
