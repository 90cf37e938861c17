// Command towpath is Towpath's command line: it reads flags, asks the daemon,
// and prints what it answers. Only run and exec do more: they start a command
// as a child of their own.
package main

import (
	"context"
	"os"

	"github.com/towpath/towpath/internal/spawn"
)

func main() {
	args := os.Args[1:]
	c := &cli{out: os.Stdout, errs: os.Stderr}
	if len(args) > 0 {
		switch args[0] {
		case spawn.InitArg:
			os.Exit(spawn.Init(args[1:]))
		case spawn.DetachArg:
			c.detached, args = true, args[1:]
		}
	}
	os.Exit(c.execute(context.Background(), args))
}

// execute carries out one command line and returns the exit code.
func (c *cli) execute(ctx context.Context, args []string) int {
	c.args = args
	root := c.root()
	root.SetArgs(args)
	root.SetOut(c.out)
	root.SetErr(c.errs)
	if cmd, err := findCommand(root, args); err != nil {
		return c.finish(cmd, args, err)
	}
	cmd, err := root.ExecuteContextC(ctx)
	return c.finish(cmd, args, err)
}
