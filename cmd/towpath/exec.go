package main

import "github.com/spf13/cobra"

func (c *cli) exec() *cobra.Command {
	cmd := &cobra.Command{
		Use: "exec SANDBOX -- CMD [ARG]...", Short: "Run a command in a sandbox that is there already",
		Long: "Run a command in the network namespace of a sandbox, as a child of the caller. Exit codes are those of run.",
		Example: "  towpath exec web -- cat /etc/hosts /proc/net/dev\n" +
			"  towpath exec web -- sh",
		Args: words("SANDBOX", "CMD..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			argv := args[1:]
			if argv[0] == "--" {
				argv = argv[1:]
			}
			if len(argv) == 0 {
				return usagef(cmd, "CMD... is missing")
			}
			return c.runIn(cmd.Context(), args[0], args[0], argv)
		},
	}
	// What follows the sandbox are the command's own flags.
	cmd.Flags().SetInterspersed(false)
	cmd.ValidArgsFunction = argsThenFiles(c.sandboxNames)
	return cmd
}
