//go:build linux

package taps_test

import (
	"os"
	"testing"

	"github.com/towpath/towpath/internal/testnet"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }
