package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
)

// versions is what `version --json` prints.
type versions struct {
	Client string       `json:"client"`
	Daemon *api.Version `json:"daemon"`
}

func (c *cli) version() *cobra.Command {
	return c.output(c.completeArgs(&cobra.Command{
		Use: "version", Short: "Print the versions of towpath and of the daemon",
		Example: "  towpath version --json",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Client: ownVersion()}
			daemon, err := c.client().Version(cmd.Context())
			if err == nil {
				v.Daemon = &daemon
			}
			if printErr := c.printVersions(v); printErr != nil {
				return printErr
			}
			return err
		},
	}))
}

func (c *cli) printVersions(v versions) error {
	if c.json {
		return c.printJSON(v)
	}
	if err := c.println("towpath " + v.Client); err != nil || v.Daemon == nil {
		return err
	}
	line := "towpathd " + v.Daemon.Version
	if v.Daemon.Kernel != "" {
		line += fmt.Sprintf(" on Linux %s", v.Daemon.Kernel)
	}
	return c.println(line)
}

// ownVersion is the version this program was built as.
func ownVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "dev"
	}
	return info.Main.Version
}
