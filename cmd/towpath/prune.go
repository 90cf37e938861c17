package main

import (
	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
)

func (c *cli) prune() *cobra.Command {
	var only filter[api.Network]
	var dry, force bool
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove the networks that no sandbox is connected to",
		Long: "Remove the networks that no sandbox is connected to, and print their names. The default network stays.",
		Example: "  towpath network prune\n" +
			"  towpath network prune --filter label=tier=web --dry-run",
		Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := c.client()
			all, err := d.Networks(cmd.Context())
			if err != nil {
				return err
			}
			var names []string
			for _, n := range all {
				if unused(n) && only.keep(n) {
					names = append(names, n.Name)
				}
			}
			return c.each(names, dry, removal{
				remove: func(name string) error { return d.RemoveNetwork(cmd.Context(), name, false) },
				plan:   func(name string) ([]string, error) { return d.DryRun().RemoveNetwork(cmd.Context(), name, false) },
				pass:   overtaken,
			})
		},
	}
	filterFlag(cmd, "", networkView(), &only)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "for scripts written for Docker: nothing is asked either way")
	dryRun(cmd, &dry)
	return c.output(c.completeArgs(cmd))
}

// overtaken reports whether somebody else was faster: removed the network, or
// connected to it. Then it is no longer one to remove.
func overtaken(err error) bool {
	code := api.CodeOf(err)
	return code == api.NotFound || code == api.InUse
}
