package main

import (
	"context"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/spawn"
	"github.com/towpath/towpath/internal/term"
)

func (c *cli) sandbox() *cobra.Command {
	cmd := group("sandbox", "Make, adopt, show and remove sandboxes")
	cmd.AddCommand(c.sandboxCreate(), c.sandboxList(), c.sandboxInspect(), c.sandboxRemove())
	return cmd
}

// sandboxFlags are those that sandbox create and run share. The networks are
// read when the command runs.
func sandboxFlags(f *pflag.FlagSet, spec *api.SandboxSpec, networks *[]string) {
	f.StringArrayVar(networks, "network", nil, "a network, as NET, NET,ip=IP,..., name=NET,ip=IP,... or NET:ip=IP,... (repeatable; default bridge)")
	publishFlag(f, &spec.Publish)
	f.StringVar(&spec.Hostname, "hostname", "", "host name (default the name of the sandbox)")
	namingFlags(f, &spec.Naming)
	f.Var(&pairs[string]{to: &spec.Labels, parse: verbatim, kind: "KEY=VALUE", bare: true}, "label", "a label (repeatable)")
}

func (c *cli) sandboxCreate() *cobra.Command {
	var spec api.SandboxSpec
	var networks []string
	var from source
	var dry bool
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a sandbox, or adopt a network namespace",
		Example: "  towpath sandbox create web --network front,ip=172.30.0.9 --network back\n" +
			"  towpath sandbox create web --dns 192.0.2.53 --dns-search example.org --add-host box:host-gateway\n" +
			"  towpath sandbox create web --netns /run/netns/web",
		Args: words("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec.Name = args[0]
			netns, err := from.prepare(cmd, &spec, networks)
			if err != nil {
				return err
			}
			defer closeFile(netns)
			if dry {
				return c.ops(c.client().DryRun().CreateSandbox(cmd.Context(), spec, netns))
			}
			s, err := c.client().CreateSandbox(cmd.Context(), spec, netns)
			c.told(s.Warnings)
			return c.made(s.Name, s, err)
		},
	}
	sandboxFlags(cmd.Flags(), &spec, &networks)
	cmd.Flags().StringVar(&from.path, "netns", "", "adopt the network namespace at this path")
	cmd.Flags().IntVar(&from.pid, "pid", 0, "adopt the network namespace of this process")
	completeFlag(cmd, "network", c.networkNames, cobra.ShellCompDirectiveDefault)
	dryRun(cmd, &dry)
	return c.output(c.completeArgs(cmd))
}

// source is where the namespace of a sandbox comes from.
type source struct {
	path string
	pid  int
}

// prepare reads the networks into spec and opens the namespace to adopt; nil
// if there is none.
func (s source) prepare(cmd *cobra.Command, spec *api.SandboxSpec, networks []string) (*os.File, error) {
	p, err := parsePlacement(networks)
	if err != nil {
		return nil, err
	}
	if p.host || p.join != "" {
		return nil, api.Errorf(api.Invalid, "network %s is for run: a sandbox has a namespace of its own", networks[0]).
			WithFix("use towpath run, or another network")
	}
	spec.Networks = p.networks
	path, pid := cmd.Flags().Changed("netns"), cmd.Flags().Changed("pid")
	switch {
	case path && pid:
		return nil, usagef(cmd, "--netns and --pid exclude each other")
	case path && s.path == "":
		return nil, api.Errorf(api.Invalid, "--netns is empty").WithFix("name a network namespace, as in /run/netns/NAME")
	case path:
		return spawn.OpenNetns(s.path)
	case pid:
		return spawn.OpenPIDNetns(s.pid)
	}
	return nil, nil
}

// closeFile closes what was only read.
func closeFile(f *os.File) {
	if f != nil {
		_ = f.Close()
	}
}

func (c *cli) sandboxList() *cobra.Command {
	var l listing[api.Sandbox]
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List sandboxes",
		Long: "List sandboxes. A --format sees of each: " + strings.Join(term.Fields(sandboxRow{}), ", ") + ", and Label \"KEY\".",
		Example: "  towpath sandbox ls\n  towpath sandbox ls -q --filter network=front\n" +
			"  towpath sandbox ls --format '{{.Name}} {{.Addresses}}'",
		Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.client().Sandboxes(cmd.Context())
			return show(c, sandboxView(), l, all, err)
		},
	}
	return listFlags(c, cmd, sandboxView(), &l)
}

// sandboxRow is a sandbox as a row of a list. ID is for formats written for
// Docker.
type sandboxRow struct {
	ID, Name, Origin, Networks, Addresses, Netns, State string
	labelled
}

func newSandboxRow(s api.Sandbox) any {
	var addresses []string
	for _, e := range s.Endpoints {
		for _, a := range e.Addresses {
			addresses = append(addresses, a.Addr().String())
		}
	}
	return sandboxRow{
		ID: s.Name, Name: s.Name, Origin: s.Origin, Networks: strings.Join(networksOf(s), ","), Addresses: strings.Join(addresses, ","),
		Netns: s.Netns, State: stateOf(s.Status), labelled: newLabelled(s.Labels),
	}
}

func networksOf(s api.Sandbox) []string {
	var out []string
	for _, e := range s.Endpoints {
		out = append(out, e.Network)
	}
	return out
}

func sandboxView() view[api.Sandbox] {
	name := func(s api.Sandbox) string { return s.Name }
	labels := func(s api.Sandbox) map[string]string { return s.Labels }
	return view[api.Sandbox]{
		table: `table {{.Name}}\t{{.Origin}}\t{{.Networks}}\t{{.Addresses}}\t{{.State}}`,
		heading: sandboxRow{
			"SANDBOX ID", "NAME", "ORIGIN", "NETWORKS", "ADDRESSES", "NETNS", "STATE", labelled{Labels: "LABELS", heading: true},
		},
		row: newSandboxRow, name: name,
		filters: criteria[api.Sandbox]{
			"name": byName(name), "id": byID(name),
			"label": byLabel(labels, true), "label!": byLabel(labels, false),
			"network": byWord("network", networksOf),
			"origin": byWord("origin", func(s api.Sandbox) []string { return []string{s.Origin} },
				api.OriginMade, api.OriginRun, api.OriginAdopted),
		},
	}
}

func (c *cli) sandboxInspect() *cobra.Command {
	var format term.Format
	var resolv string
	cmd := &cobra.Command{
		Use: "inspect NAME...", Short: "Show sandboxes and what the kernel holds of them, as a JSON array",
		Long: "Show sandboxes and what the kernel holds of them now, as a JSON array. A --format sees of each: " +
			strings.Join(term.Fields(api.Sandbox{}), ", ") + ".\n\n" +
			"resolvConf and hosts are the lines that belong into /etc/resolv.conf and /etc/hosts of a container around an adopted\n" +
			"namespace. --resolv-conf writes the former to a file, which is exchanged as a whole.",
		Example: "  towpath sandbox inspect web\n" +
			"  towpath sandbox inspect --format '{{(index .Endpoints 0).Addresses}}' web\n" +
			"  towpath sandbox inspect --resolv-conf resolv.conf web",
		Args: words("NAME..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			if resolv == "" {
				return inspect(cmd.Context(), c, args, format, c.client().Sandbox)
			}
			if len(args) > 1 {
				return usagef(cmd, "--resolv-conf goes with one sandbox")
			}
			return inspect(cmd.Context(), c, args, format, func(ctx context.Context, name string) (api.Sandbox, error) {
				s, err := c.client().Sandbox(ctx, name)
				if err == nil {
					err = spawn.WriteFile(resolv, pageOf(s.ResolvConf))
				}
				return s, err
			})
		},
	}
	inspectFormatFlag(cmd, &format)
	cmd.Flags().StringVar(&resolv, "resolv-conf", "", "write the lines of resolv.conf to this file")
	return c.output(c.completeArgs(cmd, c.sandboxNames))
}

func (c *cli) sandboxRemove() *cobra.Command {
	var force, dry bool
	cmd := &cobra.Command{
		Use: "rm NAME...", Aliases: []string{"remove"}, Short: "Remove sandboxes",
		Long: "Remove sandboxes. That of a command that run has started is refused while the command runs; -f ends the command,\n" +
			"and all that runs in the sandbox.",
		Example: "  towpath sandbox rm web db",
		Args:    words("NAME..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			d := c.client()
			return c.each(args, dry, removal{
				remove: func(name string) error { return d.RemoveSandbox(cmd.Context(), name, force) },
				plan:   func(name string) ([]string, error) { return d.DryRun().RemoveSandbox(cmd.Context(), name, force) },
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "end the command that runs in it first")
	dryRun(cmd, &dry)
	return c.output(c.completeArgs(cmd, c.sandboxNames))
}
