package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/term"
)

func (c *cli) network() *cobra.Command {
	cmd := group("network", "Make, show and remove networks; connect sandboxes to them")
	cmd.AddCommand(
		c.networkCreate(), c.networkList(), c.networkInspect(), c.networkRemove(), c.prune(),
		c.connect(), c.disconnect(),
	)
	return cmd
}

func (c *cli) networkList() *cobra.Command {
	var l listing[api.Network]
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List networks",
		Long: "List networks. A --format sees of each: " + strings.Join(term.Fields(networkRow{}), ", ") + ", and Label \"KEY\".",
		Example: "  towpath network ls\n  towpath network ls -q --filter label=tier=web\n" +
			"  towpath network ls --format 'table {{.Name}}\\t{{.Subnets}}'",
		Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.client().Networks(cmd.Context())
			return show(c, networkView(), l, all, err)
		},
	}
	return listFlags(c, cmd, networkView(), &l)
}

// networkRow is a network as a row of a list. ID and Scope are for formats
// written for Docker.
type networkRow struct {
	ID, Name, Driver, Scope, Subnets, Device, Internal, IPv4, IPv6, Options, State string
	labelled
}

func newNetworkRow(n api.Network) any {
	var subnets []string
	for _, s := range n.Subnets {
		subnets = append(subnets, s.Subnet.String())
	}
	return networkRow{
		ID: n.Name, Name: n.Name, Driver: n.Driver, Scope: "local", Subnets: strings.Join(subnets, ","), Device: n.Device,
		Internal: strconv.FormatBool(n.Internal), IPv4: strconv.FormatBool(n.Has4()), IPv6: strconv.FormatBool(n.Has6()),
		Options: networkTraits(n), State: stateOf(n.Status), labelled: newLabelled(n.Labels),
	}
}

func networkView() view[api.Network] {
	name := func(n api.Network) string { return n.Name }
	labels := func(n api.Network) map[string]string { return n.Labels }
	return view[api.Network]{
		table: `table {{.Name}}\t{{.Driver}}\t{{.Subnets}}\t{{.Device}}\t{{.Options}}\t{{.State}}`,
		heading: networkRow{
			"NETWORK ID", "NAME", "DRIVER", "SCOPE", "SUBNETS", "DEVICE", "INTERNAL", "IPV4", "IPV6", "OPTIONS", "STATE",
			labelled{Labels: "LABELS", heading: true},
		},
		row: newNetworkRow, name: name,
		filters: criteria[api.Network]{
			"name": byName(name), "id": byID(name),
			"label": byLabel(labels, true), "label!": byLabel(labels, false),
			"driver":   byWord("driver", func(n api.Network) []string { return []string{n.Driver} }),
			"type":     byWord("type", func(n api.Network) []string { return []string{typeOf(n)} }, "builtin", "custom"),
			"dangling": byWord("value", func(n api.Network) []string { return []string{strconv.FormatBool(unused(n))} }, "true", "false"),
		},
	}
}

// typeOf is Docker's word for who made a network.
func typeOf(n api.Network) string {
	if n.Name == api.DefaultNetwork {
		return "builtin"
	}
	return "custom"
}

// unused reports whether prune would remove n.
func unused(n api.Network) bool { return len(n.Endpoints) == 0 && n.Name != api.DefaultNetwork }

// networkTraits is what of a network is not as usual.
func networkTraits(n api.Network) string {
	var traits []string
	if n.Internal {
		traits = append(traits, "internal")
	}
	if !n.ICC {
		traits = append(traits, "icc=false")
	}
	if n.MTU != 0 {
		traits = append(traits, "mtu="+strconv.Itoa(n.MTU))
	}
	return strings.Join(traits, ",")
}

// stateOf is the state with its message, if the daemon told it.
func stateOf(s *api.Status) string {
	switch {
	case s == nil:
		return ""
	case s.Message == "":
		return s.State
	}
	return s.State + ": " + s.Message
}

func (c *cli) networkInspect() *cobra.Command {
	var format term.Format
	cmd := &cobra.Command{
		Use: "inspect NAME...", Short: "Show networks with their endpoints, as a JSON array",
		Long: "Show networks with their endpoints, as a JSON array. A --format sees of each: " +
			strings.Join(term.Fields(api.Network{}), ", ") + ".",
		Example: "  towpath network inspect bridge front\n" +
			"  towpath network inspect --format '{{range .Endpoints}}{{println .Sandbox .Addresses}}{{end}}' front",
		Args: words("NAME..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			return inspect(cmd.Context(), c, args, format, c.client().Network)
		},
	}
	inspectFormatFlag(cmd, &format)
	return c.output(c.completeArgs(cmd, c.networkNames))
}

func (c *cli) networkRemove() *cobra.Command {
	var force, dry bool
	cmd := &cobra.Command{
		Use: "rm NAME...", Aliases: []string{"remove"}, Short: "Remove networks",
		Example: "  towpath network rm front back\n  towpath network rm -f front",
		Args:    words("NAME..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			d := c.client()
			return c.each(args, dry, removal{
				remove: func(name string) error { return d.RemoveNetwork(cmd.Context(), name, force) },
				plan:   func(name string) ([]string, error) { return d.DryRun().RemoveNetwork(cmd.Context(), name, force) },
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "disconnect what is connected first")
	dryRun(cmd, &dry)
	return c.output(c.completeArgs(cmd, c.networkNames))
}
