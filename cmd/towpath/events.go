package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/term"
)

// drain is how long after --until the events from before may still come in.
const drain = 250 * time.Millisecond

func (c *cli) events() *cobra.Command {
	var since, until value[time.Time]
	var from, to time.Time
	var only filter[api.Event]
	var format term.Format
	since = value[time.Time]{to: &from, parse: parseTime, kind: "TIME"}
	until = value[time.Time]{to: &to, parse: parseTime, kind: "TIME"}
	cmd := &cobra.Command{
		Use: "events", Short: "Print what happens: verbs, repairs, failures",
		Long: "Print what happens as it happens, a line each: verbs that were carried out, what was put right\n" +
			"after others changed it, and what could not be. TIME is RFC 3339, or a duration before now.",
		Example: "  towpath events --since 10m --until 0s\n  towpath events --since 2026-01-02T15:04:05Z --until 0s --json\n" +
			"  towpath events --since 1h --until 0s --filter kind=endpoint --filter action=heal --format '{{.Time}} {{.Name}}'",
		Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if !to.IsZero() {
				limited, cancel := context.WithDeadline(ctx, to.Add(drain))
				defer cancel()
				ctx = limited
			}
			err := c.client().Events(ctx, from, func(e api.Event) error {
				if !only.keep(e) {
					return nil
				}
				return c.printEvent(e, format)
			})
			if !to.IsZero() && ctx.Err() != nil && cmd.Context().Err() == nil {
				return nil
			}
			return err
		},
	}
	cmd.Flags().Var(&since, "since", "begin with what is remembered from this time on")
	cmd.Flags().Var(&until, "until", "end at this time")
	filterFlag(cmd, "f", eventView(), &only)
	plainFormatFlag(cmd, "", "what happens", &format)
	return c.output(cmd)
}

// eventView has the keys of --filter, with Docker's words for kind and action.
func eventView() view[api.Event] {
	kind := byWord("kind", func(e api.Event) []string { return []string{e.Kind} }, "network", "sandbox", "endpoint", "publication", "resolver", "host")
	action := byWord[api.Event]("action", func(e api.Event) []string { return []string{e.Action} },
		"create", "remove", "connect", "disconnect", "publish", "unpublish", "heal", "fail", "recover", "upstreams", "throttle")
	return view[api.Event]{filters: criteria[api.Event]{
		"kind": kind, "type": kind, "action": action, "event": action,
		"name": byName(func(e api.Event) string { return e.Name }),
	}}
}

func (c *cli) printEvent(e api.Event, format term.Format) error {
	if format.IsTemplate() {
		return format.Print(c.out, nil, []any{e})
	}
	if c.json || format.IsJSON() {
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
