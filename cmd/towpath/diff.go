package main

import "github.com/spf13/cobra"

func (c *cli) diff() *cobra.Command {
	return c.output(c.completeArgs(&cobra.Command{
		Use: "diff", Short: "Print the ops that would be applied now; nothing when there are none",
		Long: "Print the ops that would make the kernel what is desired, one a line.\n\n" +
			"Exit code: 0 if there are none, 1 if there are some, 3 if it could not be determined.",
		Example: "  towpath diff && echo clean",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ops, err := c.client().Diff(cmd.Context())
			switch {
			case lost(err):
				return err
			case err != nil:
				return &outcome{exitUnknown, err}
			}
			if err := c.ops(ops, nil); err != nil || len(ops) == 0 {
				return err
			}
			return &outcome{code: exitRefused}
		},
	}))
}
