package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/draw"
)

// formatMap is a form in which a map is drawn.
type formatMap string

func parseFormatMap(s string) (formatMap, error) {
	switch s {
	case "text", "svg", "dot", "json":
		return formatMap(s), nil
	}
	return "", api.Errorf(api.Invalid, "format %q is not known", s).WithFix("use text, svg, dot or json")
}

func (c *cli) topology() *cobra.Command {
	format := formatMap("text")
	cmd := &cobra.Command{
		Use: "map", Short: "Draw the topology, from the kernel",
		Long: "Draw what is on this machine, from its kernel: namespaces and whose they are, networks and\n" +
			"who is on them, published ports, and who talks to whom. Networks of Docker, Podman and\n" +
			"CNI are drawn like Towpath's own.\n\n" +
			"What two on one bridge say to each other is tracked only where br_netfilter is on.",
		Example: "  towpath map\n  towpath map -o svg > map.svg\n  towpath map -o dot > map.dot",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := c.client().Map(cmd.Context())
			if err != nil {
				return err
			}
			if c.json || format == "json" {
				return c.printJSON(m)
			}
			drawing := map[formatMap]func(io.Writer, api.Map) error{"text": draw.MapText, "svg": draw.MapSVG, "dot": draw.MapDOT}[format]
			if err := drawing(c.out, m); err != nil {
				return fmt.Errorf("print map: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().VarP(&value[formatMap]{to: &format, parse: parseFormatMap, kind: "format"}, "output", "o", "text, svg, dot or json")
	completeFlag(cmd, "output", fixed("text", "svg", "dot", "json"), cobra.ShellCompDirectiveDefault)
	return c.completeArgs(cmd)
}
