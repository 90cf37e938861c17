package explain

import (
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/testnet"
)

// allLevels are the ways in which packets are watched.
func allLevels() []api.PathLevel {
	return []api.PathLevel{api.LevelTaps, api.LevelTracepoints, api.LevelFull}
}

// requireLevel skips where packets cannot be watched in that way.
func requireLevel(t *testing.T, level api.PathLevel) {
	t.Helper()
	switch level {
	case api.LevelFull:
		testnet.Require(t, "bpf-hooks")
	case api.LevelTracepoints:
		testnet.Require(t, "bpf-types")
	}
}
