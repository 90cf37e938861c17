package metrics

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestNamesAreBounded: of many sandboxes some have counters of their own, the
// same each time, and of the rest the sum is told.
func TestNamesAreBounded(t *testing.T) {
	s := New("test", func(string) int { return 0 })
	all := map[string]map[string]uint64{}
	for i := range maxSandboxes + 50 {
		all[fmt.Sprintf("s%04d", i)] = map[string]uint64{"local": 2, "timeout": uint64(i)}
	}
	s.Names(func() map[string]map[string]uint64 { return all })
	for range 2 {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		page := w.Body.String()
		if n := strings.Count(page, "towpath_dns_queries_total{"); n != 2*(maxSandboxes+1) {
			t.Errorf("%d series, want two each of %d sandboxes and the rest", n, maxSandboxes)
		}
		for _, want := range []string{
			`towpath_dns_queries_total{result="local",sandbox="s0000"} 2`,
			`towpath_dns_queries_total{result="timeout",sandbox="s0199"} 199`,
			`towpath_dns_queries_total{result="local",sandbox=""} 100`,
		} {
			if !strings.Contains(page, want+"\n") {
				t.Errorf("no line %q", want)
			}
		}
		if strings.Contains(page, "s0200") {
			t.Error("a sandbox beyond the bound has a counter of its own")
		}
	}
}
