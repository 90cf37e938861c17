package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/client"
)

// cli is what the commands share: where to print, and the global flags.
type cli struct {
	out, errs io.Writer
	// args is the command line.
	args []string
	// detached says that this process is the background part of run -d.
	detached bool

	socket string
	json   bool
	// parsed says that the command line was read to its end.
	parsed bool
}

// root is the whole tree of commands.
func (c *cli) root() *cobra.Command {
	root := group("towpath", "Networks for containers, and the path of every packet")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(flagError)
	socket := os.Getenv("TOWPATH_SOCKET")
	if socket == "" {
		socket = client.DefaultSocket
	}
	root.PersistentFlags().StringVar(&c.socket, "socket", socket, "the daemon's socket (also $TOWPATH_SOCKET)")
	root.PersistentFlags().BoolVar(&c.json, "json", false, "print JSON; errors as problem documents")
	root.AddCommand(
		c.network(), c.sandbox(), c.run(), c.exec(), c.publish(), c.unpublish(), c.port(), c.resolve(),
		c.plan(), c.diff(), c.explain(), c.probe(), c.trace(), c.topology(), c.reach(), c.doctor(), c.events(), c.version(), c.completion(),
	)
	root.SetHelpCommand(helpCommand())
	root.InitDefaultHelpCmd()
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentPreRun = func(*cobra.Command, []string) { c.parsed = true }
	return root
}

// client speaks to the daemon the flags name.
func (c *cli) client() *client.Client { return client.New(c.socket) }

// group is a command that only holds others.
func group(use, short string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
}

// helpCommand is `help COMMAND`. Cobra's own ends with 0 if there is no such
// command.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]...", Short: "Print the help of a command",
		Example: "  towpath help network create",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := findCommand(cmd.Root(), args)
			if err != nil {
				return err
			}
			return found.Help()
		},
	}
}

// findCommand finds the command args mean. It is asked before flags are
// parsed, so that a misspelt command is not reported as an unknown flag of the
// command before it.
func findCommand(root *cobra.Command, args []string) (*cobra.Command, error) {
	cmd, rest, err := root.Find(args)
	if err != nil {
		return root, usagef(root, "%v", err)
	}
	if !cmd.HasSubCommands() || len(rest) == 0 || strings.HasPrefix(rest[0], "-") || strings.HasPrefix(rest[0], "__") {
		return cmd, nil
	}
	return cmd, unknownCommand(cmd, rest[0])
}

func unknownCommand(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return usagef(cmd, "unknown command %q; did you mean %s?", name, strings.Join(near, " or "))
	}
	return usagef(cmd, "unknown command %q", name)
}

// words makes the check of a command's arguments: as many as there are names,
// or more if the last ends in "...", or one less if it is in brackets.
func words(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		many := len(names) > 0 && strings.HasSuffix(names[len(names)-1], "...")
		least := len(names)
		if least > 0 && strings.HasPrefix(names[least-1], "[") {
			least--
		}
		switch {
		case len(args) < least:
			return usagef(cmd, "%s is missing", names[len(args)])
		case len(args) > len(names) && len(names) == 0:
			return usagef(cmd, "takes no arguments, got %q", args)
		case len(args) > len(names) && !many:
			return usagef(cmd, "wants %s, got %d arguments", strings.Join(names, " "), len(args))
		}
		return nil
	}
}

// output adds -o json, for commands where -o means nothing else.
func (c *cli) output(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().VarP(&value[bool]{to: &c.json, parse: parseOutput, kind: "format"}, "output", "o", "print in another format: json")
	completeFlag(cmd, "output", fixed("json"), cobra.ShellCompDirectiveDefault)
	return cmd
}

func parseOutput(s string) (bool, error) {
	if s != "json" {
		return false, api.Errorf(api.Invalid, "format %q is not known", s).WithFix("use json")
	}
	return true, nil
}

// dryRun adds --dry-run.
func dryRun(cmd *cobra.Command, to *bool) {
	cmd.Flags().BoolVar(to, "dry-run", false, "check, choose addresses and print the ops, one a line; change nothing")
}

// warn prints a line that is not an error.
func (c *cli) warn(format string, args ...any) {
	fmt.Fprintf(c.errs, "towpath: warning: "+format+"\n", args...)
}
