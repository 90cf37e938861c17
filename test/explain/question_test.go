package explain

import (
	"errors"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
)

// TestBadQuestions are answered with what is wrong and what to do.
func TestBadQuestions(t *testing.T) {
	w := newWorld(t)
	m := w.machine()
	for _, c := range []struct{ from, to, want, fix string }{
		{"nobody", "web", `there is no sandbox or container "nobody"`, "there are app, cage, db"},
		{"web", "nobody:80", `there is no sandbox or container "nobody"`, "outside"},
		{"web", "app:0", `port "0"`, "db:5432"},
		{"web", "app:http", `port "http"`, "db:5432"},
		{"web", "app:80/gre", `protocol "gre"`, "use tcp, udp or sctp"},
		{"web", "app/tcp", "has a protocol and no port", "db:5432"},
		{"web", ":80", "has no name or address", "db:5432"},
		{"outside:x", "web", `"x" is no address outside`, "outside:192.0.2.1"},
		{"203.0.113.5", "web", "no namespace of this machine has the address 203.0.113.5", "outside:203.0.113.5"},
		{"outside:192.0.2.9", "fd00::2", "two families", ""},
	} {
		_, err := m.Explain(api.PathQuery{From: c.from, To: c.to})
		var e *api.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || !strings.Contains(e.Fix, c.fix) {
			t.Errorf("%s -> %s: %v, %+v; want %q", c.from, c.to, err, e, c.want)
		}
	}
}
