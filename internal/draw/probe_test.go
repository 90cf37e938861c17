package draw

import (
	"encoding/xml"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
)

// lostProbe is a packet that should have arrived, and did not.
func lostProbe() api.Probe {
	f := api.Flow{Proto: "tcp", Src: netip.MustParseAddr("172.20.0.2"), Sport: 40000, Dst: netip.MustParseAddr("172.20.0.3"), Dport: 80}
	from, to := api.Party{Name: "web", NS: "web", Addr: f.Src}, api.Party{Name: "app", NS: "app", Addr: f.Dst}
	hops := []api.Hop{
		{Direction: api.Request, NS: "web", Device: "eth0", Layer: api.LayerRoute, Action: "sends", Detail: "172.20.0.2:40000 > 172.20.0.3:80", Certain: true},
		{Index: 1, Direction: api.Request, NS: "app", Device: "eth0", Layer: api.LayerLink, Action: "receives", Detail: "172.20.0.2:40000 > 172.20.0.3:80", Certain: true},
	}
	return api.Probe{
		Verdict: api.Lost, FirstDifference: new(1),
		Expected: api.Path{Kind: api.Expected, Complete: true, From: from, To: to, Flow: f, Verdict: api.Delivered, Hops: hops},
		Actual:   api.Path{Kind: api.Actual, From: from, To: to, Flow: f, Verdict: api.Lost, Reason: "it was seen last at eth0 of web", Hops: hops[:1]},
	}
}

// TestProbeText says where the two paths part, and what may be missing.
func TestProbeText(t *testing.T) {
	var b strings.Builder
	if err := ProbeText(&b, lostProbe()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"lost: it was seen last at eth0 of web\n", "hops may be missing\n",
		"not as expected: app eth0 should have: receives 172.20.0.2:40000 > 172.20.0.3:80, and was not seen to\n", "\ndelivered\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
	p := lostProbe()
	p.FirstDifference, p.RTTMicros, p.Expected.Verdict, p.Expected.Reason = nil, 12.4, api.Undecided, "a rule"
	b.Reset()
	if err := ProbeText(&b, p); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"round trip: 12 µs\n", "as expected\n", "as far as it could be known: a rule\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
}

// TestProbeSVG draws both paths where they differ, as one document of XML.
func TestProbeSVG(t *testing.T) {
	lanes := func(p api.Probe) int {
		var b strings.Builder
		if err := ProbeSVG(&b, p); err != nil {
			t.Fatal(err)
		}
		for d := xml.NewDecoder(strings.NewReader(b.String())); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				return strings.Count(b.String(), `class="lane"`)
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	p := lostProbe()
	both := lanes(p)
	p.FirstDifference = nil
	if one := lanes(p); both != 3 || one != 1 {
		t.Errorf("%d lanes with a difference and %d without, want 3 and 1", both, one)
	}
}
