package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/draw"
)

func (c *cli) probe() *cobra.Command {
	format := formatPath("text")
	var q api.ProbeQuery
	var family familyFlags
	var level string
	cmd := &cobra.Command{
		Use: "probe SRC DST[:PORT[/PROTO]]", Short: "Send one packet, and tell the path that it took",
		Long: "Send one packet and tell the path that it and its answer took, hop by hop, as links, hooks and\n" +
			"rules of the kernel tell it, beside the path that was expected. Without PORT it is an ICMP echo\n" +
			"request; without PROTO a SYN of TCP, of which no connection comes unless --connect makes one; with\n" +
			"/udp an empty datagram. SRC and DST are as those of explain.\n\n" +
			"From outside, or outside:ADDRESS, it is put in at the uplink as if it had come over the wire; its\n" +
			"answer is stopped where it would leave, and told. That needs Linux 5.18 and a daemon with CAP_BPF.\n\n" +
			"Exit code: 0 it was answered, 1 it was not, 3 that could not be determined.",
		Example: "  towpath probe web db\n  towpath probe web 192.0.2.1 -o svg > probe.svg\n" +
			"  towpath probe web db:80 --connect || echo nobody answers\n" +
			"  towpath probe outside host:8080 || echo not reached from outside",
		Args: words("SRC", "DST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Level = api.PathLevel(level)
			var err error
			if q.From, q.To, err = ends(args); err != nil {
				return err
			}
			if q.Family, err = family.family(cmd); err != nil {
				return err
			}
			p, err := c.client().Probe(cmd.Context(), q)
			if err != nil {
				return undetermined(err)
			}
			if err := c.printProbe(p, format); err != nil {
				return err
			}
			return probed(p)
		},
	}
	family.add(cmd)
	packetFlags(cmd, &q.PathQuery)
	cmd.Flags().BoolVar(&q.Connect, "connect", false, "make a whole TCP handshake, and end the connection at once")
	levelFlag(cmd, &level)
	return c.pathOutput(cmd, &format)
}

// levelFlag is by what means packets are watched.
func levelFlag(cmd *cobra.Command, level *string) {
	cmd.Flags().StringVar(level, "level", "", "by what means it is watched: full, tracepoints or taps (default: the best that this kernel has)")
	completeFlag(cmd, "level", fixed("full", "tracepoints", "taps"), cobra.ShellCompDirectiveNoFileComp)
}

func (c *cli) printProbe(p api.Probe, format formatPath) error {
	if c.json || format == "json" {
		return c.printJSON(p)
	}
	drawing := map[formatPath]func(io.Writer, api.Probe) error{"text": draw.ProbeText, "svg": draw.ProbeSVG}[format]
	if err := drawing(c.out, p); err != nil {
		return fmt.Errorf("print probe: %w", err)
	}
	return nil
}

// probed turns the answer of a probe into an exit code.
func probed(p api.Probe) error {
	if p.Verdict == api.Answered {
		return nil
	}
	return &outcome{code: exitRefused}
}

// undetermined are failures for which nothing was found out, as opposed to
// questions that make no sense.
func undetermined(err error) error {
	if lost(err) || api.CodeOf(err) == api.Invalid || api.CodeOf(err) == api.NotFound {
		return err
	}
	return &outcome{exitUnknown, err}
}
