package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (c *cli) completion() *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish", Short: "Print the script that lets a shell complete command lines",
		Long: "Print the script that lets a shell complete command lines, names of networks and sandboxes too. To load it:\n\n" +
			"  bash   towpath completion bash >/etc/bash_completion.d/towpath\n" +
			"  zsh    towpath completion zsh >\"${fpath[1]}/_towpath\"\n" +
			"  fish   towpath completion fish >~/.config/fish/completions/towpath.fish",
		Example:           "  towpath completion bash",
		Args:              words("bash|zsh|fish"),
		ValidArgsFunction: argsOf(false, fixed("bash", "zsh", "fish")),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(c.out, true)
			case "zsh":
				return root.GenZshCompletion(c.out)
			case "fish":
				return root.GenFishCompletion(c.out, true)
			}
			return notKnown("shell", args[0], []string{"bash", "zsh", "fish"})
		},
	}
}

// completionPatience bounds how long a shell waits for a daemon's names.
const completionPatience = 2 * time.Second

// choices are the words that something can be completed with. What cannot be
// known is left out: a shell has no place for an error.
type choices func(context.Context) []string

// fixed are choices that do not depend on the daemon.
func fixed(all ...string) choices { return func(context.Context) []string { return all } }

func (c *cli) networkNames(ctx context.Context) []string {
	all, err := c.client().Networks(ctx)
	if err != nil {
		return nil
	}
	var out []string
	for _, n := range all {
		out = append(out, n.Name)
	}
	return out
}

func (c *cli) sandboxNames(ctx context.Context) []string {
	all, err := c.client().Sandboxes(ctx)
	if err != nil {
		return nil
	}
	var out []string
	for _, s := range all {
		out = append(out, s.Name)
	}
	return out
}

// endNames are the ends that a path can have.
func (c *cli) endNames(ctx context.Context) []string {
	return append(c.sandboxNames(ctx), "host", "outside")
}

// placementNames are the values of --network where a command is run.
func (c *cli) placementNames(ctx context.Context) []string {
	out := append(c.networkNames(ctx), "none", "host")
	for _, name := range c.sandboxNames(ctx) {
		out = append(out, "container:"+name)
	}
	return out
}

// argsOf completes the arguments by their lists, in order; with more, the last
// list goes on, without what is there already.
func argsOf(more bool, lists ...choices) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		at := len(args)
		if more {
			at = min(at, len(lists)-1)
		}
		if at >= len(lists) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
		defer cancel()
		left := slices.DeleteFunc(slices.Clone(lists[at](ctx)), func(s string) bool {
			return !strings.HasPrefix(s, begun) || more && slices.Contains(args, s)
		})
		return left, cobra.ShellCompDirectiveNoFileComp
	}
}

// argsThenFiles completes the arguments by their lists, and those behind as
// the shell itself does.
func argsThenFiles(lists ...choices) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= len(lists) {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return argsOf(false, lists...)(cmd, args, begun)
	}
}

// completeArgs lets the arguments of cmd be completed; without lists there is
// nothing to complete, files neither.
func (c *cli) completeArgs(cmd *cobra.Command, lists ...choices) *cobra.Command {
	cmd.ValidArgsFunction = argsOf(len(lists) > 0 && strings.HasSuffix(cmd.Use, "..."), lists...)
	return cmd
}

// completeFlag lets the value of a flag be completed.
func completeFlag(cmd *cobra.Command, flag string, list choices, directive cobra.ShellCompDirective) {
	err := cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
		defer cancel()
		left := slices.DeleteFunc(slices.Clone(list(ctx)), func(s string) bool { return !strings.HasPrefix(s, begun) })
		return left, cobra.ShellCompDirectiveNoFileComp | directive
	})
	if err != nil {
		panic("complete flag: " + err.Error()) // there is no such flag, or it is registered twice
	}
}
