package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/draw"
)

// errEnough ends a trace that has told what was asked for.
var errEnough = errors.New("enough")

func (c *cli) trace() *cobra.Command {
	var q api.TraceQuery
	var count int
	var duration time.Duration
	var level string
	cmd := &cobra.Command{
		Use: "trace", Short: "Tell the paths of packets as they begin flows, whoever sends them",
		Long: "Tell the path of the first packet of every flow that begins, and of its answer, as links,\n" +
			"hooks and rules of the kernel tell it: of sandboxes, of containers of other engines, of the host.\n" +
			"It goes on until it is interrupted, or to the end that is given. Only headers are looked at.\n\n" +
			"With --json it is one JSON document a line.",
		Example: "  towpath trace --duration 1s\n  towpath trace --from web --port 443 --count 1 --duration 1s --json\n" +
			"  towpath trace --drops --duration 1s",
		Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q.Level = api.PathLevel(level)
			return c.watch(cmd, q, count, duration)
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.From, "from", "", "only what this sandbox, container or address sends, or host, or outside")
	f.StringVar(&q.To, "to", "", "only what is sent to this one")
	f.Var(&value[uint16]{to: &q.Port, parse: parseTracePort, kind: "port"}, "port", "only what is for this port, before or after translation")
	f.StringVar(&q.Proto, "proto", "", "only tcp, udp or icmp")
	f.BoolVar(&q.Drops, "drops", false, "only what does not arrive, or is refused here; what is alike is counted")
	f.IntVar(&count, "count", 0, "end after so many paths")
	f.DurationVar(&duration, "duration", 0, "end after this time")
	levelFlag(cmd, &level)
	completeFlag(cmd, "from", c.endNames, cobra.ShellCompDirectiveNoFileComp)
	completeFlag(cmd, "to", c.endNames, cobra.ShellCompDirectiveNoFileComp)
	completeFlag(cmd, "proto", fixed("tcp", "udp", "icmp"), cobra.ShellCompDirectiveNoFileComp)
	return c.output(cmd)
}

func parseTracePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, api.Errorf(api.Invalid, "%q is not a port, 1 to 65535", s).WithFix("write it in digits")
	}
	return uint16(n), nil
}

// watch prints paths until it is enough.
func (c *cli) watch(cmd *cobra.Command, q api.TraceQuery, count int, duration time.Duration) error {
	ctx := cmd.Context()
	if count < 0 || duration < 0 {
		return api.Errorf(api.Invalid, "--count and --duration are not below zero").WithFix("leave them out to go on until it is interrupted")
	}
	if duration > 0 {
		limited, cancel := context.WithTimeout(ctx, duration)
		defer cancel()
		ctx = limited
	}
	seen := 0
	err := c.client().Trace(ctx, q, c.tracing, func(p api.Path) error {
		if err := c.tracedPath(p); err != nil {
			return err
		}
		if seen++; seen == count {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) || duration > 0 && ctx.Err() != nil && cmd.Context().Err() == nil {
		return nil
	}
	return err
}

// tracing says that it is watched, and how, where it disturbs nobody.
func (c *cli) tracing(how string) {
	_, _ = fmt.Fprintf(c.errs, "tracing: %s\n", strings.ReplaceAll(how, "=", " "))
}

func (c *cli) tracedPath(p api.Path) error {
	if c.json {
		line, err := json.Marshal(p)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.out, "%s\n", line)
		return err
	}
	if err := draw.PathText(c.out, p); err != nil {
		return fmt.Errorf("print path: %w", err)
	}
	_, err := fmt.Fprintln(c.out)
	return err
}
