// Command towpath is Towpath's command line: it reads flags, asks the daemon,
// and prints what it answers. Only run and exec do more: they start a command
// as a child of their own.
package main

import (
	"context"
	"io"
	"os"

	"github.com/towpath/towpath/internal/spawn"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == spawn.InitArg {
		os.Exit(spawn.Init(os.Args[2:]))
	}
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// execute carries out one command line and returns the exit code.
func execute(ctx context.Context, args []string, out, errs io.Writer) int {
	c := &cli{out: out, errs: errs}
	root := c.root()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errs)
	if cmd, err := findCommand(root, args); err != nil {
		return c.finish(cmd, args, err)
	}
	cmd, err := root.ExecuteContextC(ctx)
	return c.finish(cmd, args, err)
}
