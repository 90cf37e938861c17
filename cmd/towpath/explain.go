package main

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"

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
	var family familyFlags
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
			var err error
			if q.From, q.To, err = ends(args); err != nil {
				return err
			}
			if q.Family, err = family.family(cmd); err != nil {
				return err
			}
			p, err := c.client().Explain(cmd.Context(), q)
			if err != nil {
				return err
			}
			return c.path(p, format)
		},
	}
	family.add(cmd)
	packetFlags(cmd, &q)
	cmd.Flags().BoolVar(&q.Desired, "desired", false, "walk what is desired of Towpath's own, not what is in the kernel")
	return c.pathOutput(cmd, &format)
}

// familyFlags are -4 and -6.
type familyFlags struct{ v4, v6 bool }

func (f *familyFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&f.v4, "ipv4", "4", false, "send to an IPv4 address of DST")
	cmd.Flags().BoolVarP(&f.v6, "ipv6", "6", false, "send to an IPv6 address of DST")
}

// family is 4 or 6, 0 for either.
func (f *familyFlags) family(cmd *cobra.Command) (int, error) {
	switch {
	case f.v4 && f.v6:
		return 0, usagef(cmd, "-4 and -6 exclude each other")
	case f.v4:
		return 4, nil
	case f.v6:
		return 6, nil
	}
	return 0, nil
}

// ends are the two of a packet's way.
func ends(args []string) (from, to string, err error) {
	for i, noun := range []string{"SRC", "DST"} {
		if args[i] == "" {
			return "", "", api.Errorf(api.Invalid, "%s is empty", noun).WithFix("give a sandbox, a container, an address, host or outside")
		}
	}
	return args[0], args[1], nil
}

// parseFrom reads a number that may not be less than another: 0 is how the
// daemon is told of none. What is too much, it says itself.
func parseFrom(least int, noun string) func(string) (int, error) {
	return func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < least {
			return 0, api.Errorf(api.Invalid, "%q is no %s", s, noun).WithFix("write a number from %d", least)
		}
		return n, nil
	}
}

// packetFlags are those that say what the packet is like.
func packetFlags(cmd *cobra.Command, q *api.PathQuery) {
	cmd.Flags().Var(&value[int]{to: &q.Size, parse: parseFrom(1, "number of bytes"), kind: "int"}, "size", "bytes of the packet, which may not be cut up: finds what does not fit an MTU")
	cmd.Flags().Var(&value[int]{to: &q.TTL, parse: parseFrom(1, "time to live"), kind: "int"}, "ttl", "time to live, or hop limit, of the packet")
	cmd.Flags().Var(&value[netip.Addr]{to: &q.Source, parse: parseAddr, kind: "ip"}, "source", "address that the packet says it comes from, whether SRC has it or not")
	completeFlag(cmd, "size", fixed("1280", "1500"), cobra.ShellCompDirectiveNoFileComp)
	completeFlag(cmd, "ttl", fixed("1", "2", "64"), cobra.ShellCompDirectiveNoFileComp)
	completeFlag(cmd, "source", fixed(), cobra.ShellCompDirectiveNoFileComp)
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
