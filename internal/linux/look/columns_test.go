//go:build linux

package look

import (
	"maps"
	"testing"

	"github.com/towpath/towpath/internal/machine"
)

// TestColumns reads a table as /proc/net/stat/arp_cache, of two processors.
func TestColumns(t *testing.T) {
	r := reading{space: machine.Space{Counters: map[string]uint64{}}}
	r.columns("ArpCache", "entries  allocs   res_failed table_fulls\n0000002a 00000010 00000000 00000001\n0000002a 00000003 0000000a ffffffff\n")
	want := map[string]uint64{"ArpCacheAllocs": 0x13, "ArpCacheResFailed": 10, "ArpCacheTableFulls": 1 << 32}
	if !maps.Equal(r.space.Counters, want) {
		t.Errorf("%v, want %v", r.space.Counters, want)
	}
	r.columns("None", "")
	if len(r.space.Counters) != len(want) {
		t.Errorf("of a file that is not there: %v", r.space.Counters)
	}
}
