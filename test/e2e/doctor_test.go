package e2e

import (
	"regexp"
	"testing"
	"time"
)

// TestDoctorCountsLosses: what is lost while the doctor looks is told with the
// rule that drops it, and is no finding when nothing is sent any more.
func TestDoctorCountsLosses(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "front")
	w.must("network", "create", "back")
	w.must("sandbox", "create", "web", "--network", "front")
	w.must("sandbox", "create", "db", "--network", "back")
	web, _ := w.sandbox("web")
	_, db := w.sandbox("db")
	ping, err := web.EchoEvery(t.Context(), db.Endpoints[0].Addresses[0].Addr(), 5*time.Millisecond)
	w.check(err)
	r := w.towpath("doctor", "--over", "300ms")
	want := regexp.MustCompile(`(?m)^FAULT   drops: host loses packets now: rule .*isolation.* of towpath dropped [0-9]+ packets$`)
	if r.code != 1 || !want.MatchString(r.stdout) {
		t.Errorf("exit %d:\n%s", r.code, r.stdout)
	}
	ping.Stop(time.Millisecond)
	if r := w.towpath("doctor", "--over", "300ms"); r.code != 0 {
		t.Errorf("nothing is sent any more, exit %d:\n%s", r.code, r.stdout)
	}
}
