package reconcile

import (
	"context"
	"strings"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/kernel"
)

// suspect is a sandbox in which something happened. What is in a sandbox
// belongs to its tenant, who may take our things away for ever; so sandboxes
// are looked at one at a time, after all other work, and each repair makes the
// next one wait longer.
type suspect struct {
	open    bool // to be looked at
	due     time.Time
	why     string
	repairs int // in a row
	last    time.Time
}

// The first repairs of a sandbox come at once. Then each waits twice as long as
// the one before, up to maxPatience, until it has been quiet for calm.
const (
	freeRepairs = 3
	patience    = 250 * time.Millisecond
	maxPatience = 30 * time.Second
	calm        = time.Minute
)

// wait is how long the next repair has to wait after the last.
func (s *suspect) wait() time.Duration {
	if s.repairs < freeRepairs {
		return 0
	}
	return min(patience<<min(s.repairs-freeRepairs, 10), maxPatience)
}

// note turns an event into work.
func (l *Loop) note(e kernel.Event) {
	if len(e.Keys) == 0 && !e.Host && e.NS == "" {
		l.log.Warn("look at everything", "why", e.Why)
		l.mark(work{full: true, why: e.Why})
		return
	}
	w := work{recheck: map[driver.Unit]bool{}, why: e.Why}
	if e.Host {
		w.recheck[driver.HostUnit] = true
	}
	sandboxes := map[string]bool{}
	if e.NS != "" {
		sandboxes[e.NS] = true
	}
	l.passing.Lock()
	for _, k := range e.Keys {
		u, ok := l.owner[k]
		switch kind, name, _ := strings.Cut(string(u), "/"); {
		case !ok:
		case kind == "sandbox", kind == "endpoint":
			sandbox, _, _ := strings.Cut(name, "/")
			sandboxes[sandbox] = true
		default:
			w.recheck[u] = true
		}
	}
	l.passing.Unlock()
	for name := range sandboxes {
		l.suspicion(name, e.Why)
	}
	if len(w.recheck) > 0 {
		l.log.Info("look again", "units", len(w.recheck), "why", e.Why)
		l.mark(w)
	}
}

// suspicion asks for a look at a sandbox, as soon as it is due.
func (l *Loop) suspicion(name, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.suspect[name]
	if s == nil {
		s = &suspect{}
		l.suspect[name] = s
	}
	if !s.open {
		s.open, s.why, s.due = true, why, s.last.Add(s.wait())
	}
}

// passSuspect looks at the one sandbox that has been due for longest.
func (l *Loop) passSuspect(ctx context.Context) {
	name, why := l.takeSuspect(time.Now())
	if name == "" {
		return
	}
	view, _ := l.source.View()
	w := work{recheck: map[driver.Unit]bool{}, why: why}
	l.passing.Lock()
	for _, u := range driver.TouchedBySandbox(view, name) {
		if _, ok := l.owned[u]; ok {
			w.recheck[u] = true
		}
	}
	l.passing.Unlock()
	if len(w.recheck) == 0 {
		return
	}
	start := time.Now()
	l.mark(w)
	repaired := l.pass(ctx) > 0
	l.looked(name, why, repaired || time.Since(start) > patience)
	l.poke() // there may be more
}

func (l *Loop) takeSuspect(now time.Time) (name, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var due time.Time
	for n, s := range l.suspect {
		if s.open && !s.due.After(now) && (name == "" || s.due.Before(due)) {
			name, why, due = n, s.why, s.due
		}
		if !s.open && now.Sub(s.last) > calm {
			delete(l.suspect, n)
		}
	}
	if name != "" {
		l.suspect[name].open = false
	}
	return name, why
}

// looked counts a look that cost something against the sandbox.
func (l *Loop) looked(name, why string, cost bool) {
	l.mu.Lock()
	s := l.suspect[name]
	if s == nil || !cost {
		l.mu.Unlock()
		return
	}
	now := time.Now()
	if now.Sub(s.last) > calm {
		s.repairs = 0
	}
	s.repairs++
	s.last = now
	repairs, wait := s.repairs, s.wait()
	l.mu.Unlock()
	if repairs == freeRepairs {
		l.log.Warn("sandbox keeps changing what is ours; repairs slow down", "sandbox", name, "why", why)
		l.Tell(api.Event{Kind: "sandbox", Name: name, Action: "throttle", Detail: "it keeps changing what is Towpath's (" + why + "); the next repair waits " + wait.String() + ", further ones longer"})
	}
}

// untilRetry is how long until a failing unit or a suspect is due.
func (l *Loop) untilRetry() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := fullInterval
	for _, f := range l.failed {
		d = min(d, time.Until(f.next))
	}
	for _, s := range l.suspect {
		if s.open {
			d = min(d, time.Until(s.due))
		}
	}
	return max(d, 0)
}

func (l *Loop) markRetries() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	due := map[driver.Unit]bool{}
	for u, f := range l.failed {
		if !f.next.After(now) {
			due[u] = true
		}
	}
	l.pending.recheck = merge(l.pending.recheck, due)
}
