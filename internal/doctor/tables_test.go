package doctor

import (
	"slices"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
)

// said are the findings of a check, a line each.
func said(in *Input, check string) string {
	var out []string
	for _, f := range Examine(in).Findings {
		if f.Check == check {
			out = append(out, string(f.Severity)+" "+f.Summary)
		}
	}
	return strings.Join(out, "\n")
}

// TestConntrackCounters: the kernel counts what clashes as drop, too, which is no
// full table; what was counted before the first look is worth knowing and no
// finding, since nothing but a boot makes it zero.
func TestConntrackCounters(t *testing.T) {
	type counters = map[string]uint64
	for _, tt := range []struct {
		what        string
		before, now counters
		want        string
	}{
		{"nothing", counters{}, counters{}, ""},
		{"a clash", counters{}, counters{"ConntrackDrop": 1, "ConntrackInsertFailed": 1}, "fault 1 connection could not be tracked in host while it was looked at, since another one has the same addresses and ports"},
		{
			"an old clash",
			counters{"ConntrackDrop": 2, "ConntrackInsertFailed": 2},
			counters{"ConntrackDrop": 2, "ConntrackInsertFailed": 2},
			"remark 2 connections could not be tracked in host, since another one has the same addresses and ports",
		},
		{
			"no room, and a long chain, which is no drop",
			counters{"ConntrackDrop": 4},
			counters{"ConntrackDrop": 5, "ConntrackInsertFailed": 1, "ConntrackChainlength": 1},
			"fault the table of tracked connections of host turns connections away now, 1 of them while it was looked at: 10 of 1000 are taken\n" +
				"fault 1 connection could not be tracked in host while it was looked at, since another one has the same addresses and ports",
		},
		{"no room before", counters{"ConntrackEarlyDrop": 7}, counters{"ConntrackEarlyDrop": 7}, "remark the table of tracked connections of host has turned 7 connections away: 10 of 1000 are taken"},
		{"counters of a processor that is gone", counters{"ConntrackDrop": 9}, counters{"ConntrackDrop": 3}, "remark the table of tracked connections of host has turned 3 connections away: 10 of 1000 are taken"},
	} {
		in := healthy(t)
		in.Earlier.Spaces[0].Counters, in.host().Counters = tt.before, tt.now
		if got := said(in, "conntrack"); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
		}
		if got := said(in, "drops"); got != "" {
			t.Errorf("%s: told again: %q", tt.what, got)
		}
	}
}

// TestReadOnce: without an earlier look nothing is said to be happening now.
func TestReadOnce(t *testing.T) {
	in := healthy(t)
	in.Earlier = nil
	in.host().Counters = map[string]uint64{"ConntrackDrop": 2, "ConntrackInsertFailed": 1, "ArpCacheTableFulls": 4, "IpExtInNoRoutes": 5}
	var got []string
	for _, f := range Examine(in).Findings {
		if f.Severity != api.Remark || len(f.Set) > 0 || f.Settable {
			t.Errorf("%+v", f)
		}
		got = append(got, f.Evidence[len(f.Evidence)-1].What+" "+f.Summary)
	}
	want := []string{
		"1 the table of tracked connections of host has turned 1 connection away: 10 of 1000 are taken",
		"0 1 connection could not be tracked in host, since another one has the same addresses and ports",
		"4 the neighbour table of IPv4 was full: 1 of 10",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestNeighbourTable: what is permanent takes no room; the kernel's own count of
// addresses that found none tells more than what is there at the moment.
func TestNeighbourTable(t *testing.T) {
	in := healthy(t)
	for i := range 20 {
		in.web().Neighbours = append(in.web().Neighbours, machine.Neighbour{Dev: "eth0", IP: addr("172.18.2.1"), MAC: "02:00:00:00:00:01", State: machine.NeighbourPermanent})
		if i < 7 {
			in.web().Neighbours = append(in.web().Neighbours, machine.Neighbour{Dev: "eth0", IP: addr("172.18.2.2"), State: machine.NeighbourStale})
		}
	}
	if got := said(in, "neighbours"); got != "risk the neighbour table of IPv4 is nearly full: 8 of 10" {
		t.Errorf("nearly full: %q", got)
	}
	in.web().Neighbours = nil
	in.host().Counters["ArpCacheTableFulls"] = 2
	if got := said(in, "neighbours"); got != "fault the neighbour table of IPv4 has no room now, 2 addresses found none while it was looked at: 1 of 10" {
		t.Errorf("full: %q", got)
	}
	in.host().Sysctls["net/ipv6/neigh/default/gc_thresh3"] = "1"
	in.web().Neighbours = []machine.Neighbour{{Dev: "eth0", IP: addr("fd00::9"), State: machine.NeighbourReachable}}
	if got := said(in, "neighbours"); !strings.Contains(got, "fault the neighbour table of IPv6 is full: 1 of 1") {
		t.Errorf("IPv6: %q", got)
	}
}

// TestLossesHaveWords: each reason says what comes of it, and its fix is a command
// that says more than what to look at.
func TestLossesHaveWords(t *testing.T) {
	for _, l := range losses {
		in := healthy(t)
		in.host().Counters[l.counter] = 3
		found := Examine(in).Findings
		if len(found) != 1 || found[0].Check != "drops" || found[0].Severity != api.Fault || !strings.Contains(found[0].Summary, l.reason+": 3 packets") ||
			found[0].Evidence[0] != (api.Evidence{Where: "nstat -az " + l.counter, What: "0, then 3"}) || found[0].Consequence == "" {
			t.Errorf("%s: %+v", l.counter, found)
			continue
		}
		if f := found[0].Fix; !strings.Contains(f, " -w ") && !strings.Contains(f, "   # ") {
			t.Errorf("%s: fix %q", l.counter, f)
		}
	}
}
