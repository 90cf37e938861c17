package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
)

func (c *cli) network() *cobra.Command {
	cmd := group("network", "Make, show and remove networks; connect sandboxes to them")
	cmd.AddCommand(c.networkCreate(), c.networkList(), c.networkInspect(), c.networkRemove(), c.connect(), c.disconnect())
	return cmd
}

func (c *cli) networkList() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List networks",
		Example: "  towpath network ls\n  towpath network ls -q",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.client().Networks(cmd.Context())
			return show(c, networkView(), quiet, all, err)
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names only")
	return c.output(cmd)
}

func networkView() view[api.Network] {
	return view[api.Network]{
		header: []string{"NAME", "DRIVER", "SUBNETS", "DEVICE", "OPTIONS", "STATE"},
		name:   func(n api.Network) string { return n.Name },
		row: func(n api.Network) []string {
			var subnets []string
			for _, s := range n.Subnets {
				subnets = append(subnets, s.Subnet.String())
			}
			return []string{n.Name, n.Driver, strings.Join(subnets, ","), n.Device, networkTraits(n), stateOf(n.Status)}
		},
	}
}

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
	return c.output(&cobra.Command{
		Use: "inspect NAME...", Short: "Show networks with their endpoints, as a JSON array",
		Example: "  towpath network inspect bridge front",
		Args:    words("NAME..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			return inspect(cmd.Context(), c, args, c.client().Network)
		},
	})
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
	return c.output(cmd)
}
