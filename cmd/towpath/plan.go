package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
)

func (c *cli) plan() *cobra.Command {
	return c.output(c.completeArgs(&cobra.Command{
		Use: "plan", Short: "Print the desired kernel state, one object a line",
		Example: "  towpath plan | grep tp-front",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := c.client().Plan(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(api.State{Text: text})
			}
			_, err = fmt.Fprint(c.out, text)
			return err
		},
	}))
}
