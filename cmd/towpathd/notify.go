package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// tell says something about the daemon to systemd, where systemd started it
// (sd_notify(3)).
func tell(state string, log *slog.Logger) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("notify systemd", "state", state, "err", err)
	}
}

// watchdog says as often as $WATCHDOG_USEC asks that the daemon is alive, until
// ctx ends. Each time it waits for alive, which hangs when the daemon does:
// then systemd hears nothing, ends the daemon, and starts another.
func watchdog(ctx context.Context, alive func(), log *slog.Logger) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("read watchdog interval", "err", err)
	}
	if limit == 0 {
		return
	}
	tick := time.NewTicker(limit / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			alive()
			tell(daemon.SdNotifyWatchdog, log)
		}
	}
}
