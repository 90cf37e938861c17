package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/draw"
)

// formatPath is a form in which a path is drawn.
type formatPath string

func parseFormatPath(s string) (formatPath, error) {
	switch s {
	case "text", "svg", "json":
		return formatPath(s), nil
	}
	return "", api.Errorf(api.Invalid, "format %q is not known", s).WithFix("use text, svg or json")
}

func (c *cli) explain() *cobra.Command {
	format := formatPath("text")
	var q api.PathQuery
	var v4, v6 bool
	cmd := &cobra.Command{
		Use: "explain SRC DST[:PORT[/PROTO]]", Short: "Tell the path that a packet should take; nothing is sent",
		Long: "Tell the path that a packet and its answer should take, hop by hop, by what is in the kernel now:\n" +
			"links, bridges, routes, rules of all programs, sockets. The rule that decides is named, with who\n" +
			"wrote it, and what to do when the packet would not arrive.\n\n" +
			"SRC and DST are a sandbox, a container of another engine, an address, host or outside[:ADDRESS];\n" +
			"DST may be a name that SRC can resolve. Without PORT the packet is an ICMP echo request; without\n" +
			"PROTO it is of TCP. An IPv6 address with a port stands in brackets.\n\n" +
			"A rule that cannot be evaluated is named, and then the verdict is undecided.",
		Example: "  towpath explain web db:80\n  towpath explain web 192.0.2.1:53/udp\n  towpath explain outside host:8080\n" +
			"  towpath explain web outside -o svg > path.svg",
		Args: words("SRC", "DST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.From, q.To = args[0], args[1]
			switch {
			case v4 && v6:
				return usagef(cmd, "-4 and -6 exclude each other")
			case v4:
				q.Family = 4
			case v6:
				q.Family = 6
			}
			p, err := c.client().Explain(cmd.Context(), q)
			if err != nil {
				return err
			}
			return c.path(p, format)
		},
	}
	cmd.Flags().BoolVarP(&v4, "ipv4", "4", false, "send to an IPv4 address of DST")
	cmd.Flags().BoolVarP(&v6, "ipv6", "6", false, "send to an IPv6 address of DST")
	cmd.Flags().IntVar(&q.Size, "size", 0, "bytes of the packet, which may not be cut up: finds what does not fit an MTU")
	cmd.Flags().BoolVar(&q.Desired, "desired", false, "walk what is desired of Towpath's own, not what is in the kernel")
	return c.pathOutput(cmd, &format)
}

// pathOutput adds -o for paths, and completes the two ends.
func (c *cli) pathOutput(cmd *cobra.Command, format *formatPath) *cobra.Command {
	cmd.Flags().VarP(&value[formatPath]{to: format, parse: parseFormatPath, kind: "format"}, "output", "o", "text, svg or json")
	completeFlag(cmd, "output", fixed("text", "svg", "json"), cobra.ShellCompDirectiveDefault)
	return c.completeArgs(cmd, c.endNames, c.endNames)
}

// path prints a path.
func (c *cli) path(p api.Path, format formatPath) error {
	if c.json || format == "json" {
		return c.printJSON(p)
	}
	drawing := map[formatPath]func(io.Writer, api.Path) error{"text": draw.PathText, "svg": draw.PathSVG}[format]
	if err := drawing(c.out, p); err != nil {
		return fmt.Errorf("print path: %w", err)
	}
	return nil
}
