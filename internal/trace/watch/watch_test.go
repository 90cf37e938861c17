//go:build linux

package watch_test

import (
	"os"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/testnet"
	"github.com/towpath/towpath/internal/trace/taps"
	"github.com/towpath/towpath/internal/trace/watch"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

// open watches a namespace for the packets of a mark.
func open(t *testing.T, level api.PathLevel) (api.PathLevel, error) {
	t.Helper()
	ns := testnet.New(t, "ns")
	s, got, err := watch.Open(t.Context(), watch.Want{
		Level: level, Proto: 17, Mark: 40000,
		Machine: &machine.Host{Spaces: []machine.Space{{Name: "ns"}}}, Spaces: []taps.Space{{Name: "ns", File: ns.F}},
	})
	if err != nil {
		return "", err
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return got, nil
}

// TestLevels: each that is asked for is the one that is used, or refused with what
// it needs; the best is one that is not refused when asked for.
func TestLevels(t *testing.T) {
	testnet.Require(t, "netns")
	can := map[api.PathLevel]bool{}
	for _, level := range []api.PathLevel{api.LevelFull, api.LevelTracepoints, api.LevelTaps} {
		got, err := open(t, level)
		switch can[level] = err == nil; {
		case err == nil && got != level:
			t.Errorf("%s is asked for, and used is %s", level, got)
		case err != nil && (level == api.LevelTaps || api.CodeOf(err) != api.Unsupported || !strings.Contains(err.Error(), "level "+string(level)+" needs ")):
			t.Errorf("%s: %v", level, err)
		}
	}
	best, err := open(t, "")
	if err != nil || !can[best] || can[api.LevelFull] && best != api.LevelFull || can[api.LevelTracepoints] && best == api.LevelTaps {
		t.Errorf("the best is %s, %v; there are %v", best, err, can)
	}
	if _, err := open(t, "walk"); api.CodeOf(err) != api.Invalid {
		t.Errorf("walk: %v", err)
	}
}
