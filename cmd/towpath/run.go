package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/spawn"
)

func (c *cli) run() *cobra.Command {
	var spec api.SandboxSpec
	var networks []string
	var dry, detach bool
	cmd := &cobra.Command{
		Use: "run [flags] -- CMD [ARG]...", Short: "Run a command in a sandbox that goes with it",
		Long: "Run a command in a network namespace of its own, with its own /etc/resolv.conf, /etc/hosts and host name;\n" +
			"its files and rights are else the caller's. The sandbox is removed when the command ends, and\n" +
			"what still runs in it then is ended, that of exec and of --network container:NAME too.\n\n" +
			"With -d it runs in the background, in a session of its own; what it prints goes to a file that is named,\n" +
			"NAME.log in $XDG_STATE_HOME/towpath or ~/.local/state/towpath.\n\n" +
			"Exit code: the command's own; 128+n if signal n ended it; 125 if Towpath failed; 126 if the command\n" +
			"cannot be executed; 127 if it is not found. With -d 0 as soon as it runs.",
		Example: "  towpath run -- cat /etc/hosts\n" +
			"  towpath run --name web --network front,ip=172.30.0.9 -- grep web /etc/hosts\n" +
			"  towpath run --dns-search example.org --add-host box:192.0.2.9 -- cat /etc/resolv.conf /etc/hosts\n" +
			"  towpath run -d --name clock -- date\n" +
			"  towpath run --network none -- cat /proc/net/dev",
		Args: words("CMD..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			if detach && !dry && !c.detached {
				return c.detach()
			}
			p, err := parsePlacement(networks)
			if err != nil {
				return err
			}
			spec.Networks, spec.Run = p.networks, true
			if spec.Name == "" {
				spec.Name = newName()
			}
			if err := p.fits(spec); err != nil {
				return err
			}
			if dry && !p.host && p.join == "" {
				return c.ops(c.client().DryRun().CreateSandbox(cmd.Context(), spec, nil))
			}
			return c.runPlaced(cmd.Context(), p, spec, args, dry)
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVar(&spec.Name, "name", "", "name of the sandbox (default run- and a random number)")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "run it in the background, and print the name of the sandbox")
	sandboxFlags(cmd.Flags(), &spec, &networks)
	completeFlag(cmd, "network", c.placementNames, cobra.ShellCompDirectiveDefault)
	dryRun(cmd, &dry)
	return cmd
}

// newName is a name that no other run has.
func newName() string {
	var b [4]byte
	// crypto/rand.Read never fails: it ends the program instead.
	_, _ = rand.Read(b[:])
	return "run-" + hex.EncodeToString(b[:])
}

// runPlaced runs argv where p says. With dry there is nothing to do for the
// host's own and for another's namespace: no op is needed.
func (c *cli) runPlaced(ctx context.Context, p placement, spec api.SandboxSpec, argv []string, dry bool) error {
	switch {
	case dry:
		return c.ops(nil, nil)
	case p.host:
		return c.runOnHost(spec, argv)
	case p.join != "":
		return c.runIn(ctx, p.join, spec.Name, argv)
	}
	s, err := c.client().CreateSandbox(ctx, spec, nil)
	if err != nil {
		return err
	}
	c.told(s.Warnings)
	result := c.enter(s, s.Name, argv)
	err = c.client().RemoveSandbox(ctx, s.Name, false)
	if err != nil && api.CodeOf(err) != api.NotFound {
		c.warn("sandbox %s is still there: %v", s.Name, err)
	}
	return result
}

// fits refuses what belongs to a sandbox of its own, as Docker does: the names
// in another's namespace are the other's.
func (p placement) fits(spec api.SandboxSpec) error {
	if p.join != "" && (ownNaming(spec.Naming) || spec.Hostname != "") {
		return api.Errorf(api.Invalid, "--hostname, --dns, --dns-search, --dns-opt and --add-host do not go with --network container:%s, whose names they are", p.join).
			WithFix("leave them out")
	}
	if len(spec.Publish) == 0 {
		return nil
	}
	switch {
	case p.host:
		return api.Errorf(api.Invalid, "-p does not go with --network host: what listens there is at the host's own ports already").WithFix("leave it out")
	case p.join != "":
		return api.Errorf(api.Invalid, "-p does not go with --network container:%s, whose ports they are", p.join).WithFix("towpath publish %s %s", p.join, spec.Publish[0].String())
	}
	return nil
}

// runOnHost runs argv in the caller's own namespace, with the host's files
// unless something else was asked for.
func (c *cli) runOnHost(spec api.SandboxSpec, argv []string) error {
	cmd := spawn.Command{Argv: argv}
	if !ownNaming(spec.Naming) && spec.Hostname == "" {
		return c.start(spec.Name, cmd)
	}
	err := spec.Validate()
	if err != nil {
		return err
	}
	if cmd.Netns, err = spawn.OpenNetns("/proc/self/ns/net"); err != nil {
		return err
	}
	defer closeFile(cmd.Netns)
	if cmd.Hosts, cmd.Resolv, err = hostFiles(spec.Naming); err != nil {
		return err
	}
	if cmd.Hostname = spec.Hostname; cmd.Hostname == "" {
		if cmd.Hostname, err = os.Hostname(); err != nil {
			return fmt.Errorf("read host name: %w", err)
		}
	}
	return c.start(spec.Name, cmd)
}

// runIn runs argv, under a name, in a sandbox that is there already.
func (c *cli) runIn(ctx context.Context, sandbox, name string, argv []string) error {
	s, err := c.client().Sandbox(ctx, sandbox)
	if err != nil {
		return err
	}
	return c.enter(s, name, argv)
}

// enter runs argv, under a name, in the namespace of s.
func (c *cli) enter(s api.Sandbox, name string, argv []string) error {
	netns, err := spawn.OpenNetns(s.Netns)
	if err != nil {
		return err
	}
	defer closeFile(netns)
	return c.start(name, spawn.Command{
		Argv: argv, Netns: netns, Hostname: s.HostnameOrName(), Hosts: pageOf(s.Hosts), Resolv: pageOf(s.ResolvConf),
	})
}

// ended makes the exit code of towpath out of a command's.
func ended(code int, err error) error {
	if code == 0 && err == nil {
		return nil
	}
	return &outcome{code, err}
}
