package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
)

// drain is how long after --until the events from before may still come in.
const drain = 250 * time.Millisecond

func (c *cli) events() *cobra.Command {
	var since, until value[time.Time]
	var from, to time.Time
	since = value[time.Time]{to: &from, parse: parseTime, kind: "TIME"}
	until = value[time.Time]{to: &to, parse: parseTime, kind: "TIME"}
	cmd := &cobra.Command{
		Use: "events", Short: "Print what happens: verbs, repairs, failures",
		Long: "Print what happens as it happens, a line each: verbs that were carried out, what was put right\n" +
			"after others changed it, and what could not be. TIME is RFC 3339, or a duration before now.",
		Example: "  towpath events --since 10m --until 0s\n  towpath events --since 2026-01-02T15:04:05Z --until 0s --json",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if !to.IsZero() {
				limited, cancel := context.WithDeadline(ctx, to.Add(drain))
				defer cancel()
				ctx = limited
			}
			err := c.client().Events(ctx, from, c.printEvent)
			if !to.IsZero() && ctx.Err() != nil && cmd.Context().Err() == nil {
				return nil
			}
			return err
		},
	}
	cmd.Flags().Var(&since, "since", "begin with what is remembered from this time on")
	cmd.Flags().Var(&until, "until", "end at this time")
	return c.output(cmd)
}

func (c *cli) printEvent(e api.Event) error {
	if c.json {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.out, "%s\n", line)
		return err
	}
	line := fmt.Sprintf("%s %s %s %s %s", e.Time.Local().Format(time.RFC3339), e.Kind, e.Action, e.Name, e.Detail)
	_, err := fmt.Fprintln(c.out, strings.TrimRight(line, " "))
	return err
}

// parseTime reads RFC 3339, or a duration before now as Docker does.
func parseTime(s string) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, api.Errorf(api.Invalid, "%q is not a time", s).WithFix("write it as 2006-01-02T15:04:05Z, or as a duration before now: 10m")
	}
	return t, nil
}
