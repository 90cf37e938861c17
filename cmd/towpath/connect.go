package main

import (
	"net/netip"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/towpath/towpath/api"
)

func (c *cli) connect() *cobra.Command {
	var spec api.EndpointSpec
	var dry bool
	cmd := &cobra.Command{
		Use: "connect NETWORK SANDBOX", Short: "Connect a sandbox to a network",
		Example: "  towpath network connect back web\n" +
			"  towpath network connect --ip 172.30.0.9 --alias db --ifname net0 back web",
		Args: words("NETWORK", "SANDBOX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec.Network = args[0]
			if dry {
				return c.ops(c.client().DryRun().Connect(cmd.Context(), args[1], spec))
			}
			e, err := c.client().Connect(cmd.Context(), args[1], spec)
			c.told(e.Warnings)
			return c.made("", e, err)
		},
	}
	endpointFlags(cmd.Flags(), &spec)
	dryRun(cmd, &dry)
	return c.output(c.completeArgs(cmd, c.networkNames, c.sandboxNames))
}

func endpointFlags(f *pflag.FlagSet, spec *api.EndpointSpec) {
	f.Var(&value[netip.Addr]{to: &spec.IP, parse: func(s string) (netip.Addr, error) { return parseFamily(s, true) }, kind: "IP"}, "ip", "IPv4 address")
	f.Var(&value[netip.Addr]{to: &spec.IP6, parse: func(s string) (netip.Addr, error) { return parseFamily(s, false) }, kind: "IP"}, "ip6", "IPv6 address")
	f.Var(&value[string]{to: &spec.MAC, parse: parseMAC, kind: "MAC"}, "mac-address", "MAC address of the interface")
	f.StringArrayVar(&spec.Aliases, "alias", nil, "another name of the sandbox on this network (repeatable)")
	f.StringVar(&spec.Ifname, "ifname", "", "name of the interface (default the next ethN)")
	f.Var(&pairs[string]{to: &spec.Sysctls, parse: verbatim, kind: "KEY=VALUE"}, "sysctl", "a sysctl of the interface, which its name calls IFNAME (repeatable)")
	f.IntVar(&spec.GwPriority, "gw-priority", 0, "the highest gives the default route")
}

func (c *cli) disconnect() *cobra.Command {
	var ifname string
	var force, dry bool
	cmd := &cobra.Command{
		Use: "disconnect NETWORK SANDBOX", Short: "Disconnect a sandbox from a network",
		Example: "  towpath network disconnect back web\n  towpath network disconnect --ifname eth1 back web",
		Args:    words("NETWORK", "SANDBOX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			network, sandbox := args[0], args[1]
			if dry {
				return c.ops(c.client().DryRun().Disconnect(cmd.Context(), sandbox, network, ifname, force))
			}
			err := c.client().Disconnect(cmd.Context(), sandbox, network, ifname, force)
			return c.made("", map[string]string{"network": network, "sandbox": sandbox}, err)
		},
	}
	cmd.Flags().StringVar(&ifname, "ifname", "", "only the interface of this name")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also if the sandbox is gone")
	dryRun(cmd, &dry)
	return c.output(c.completeArgs(cmd, c.networkNames, c.sandboxNames))
}
