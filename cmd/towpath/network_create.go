package main

import (
	"net/netip"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/towpath/towpath/api"
)

func (c *cli) networkCreate() *cobra.Command {
	var spec api.NetworkSpec
	var options map[string]string
	var dry bool
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a network",
		Long: "Make a network. Gateways, ranges and auxiliary addresses belong to the subnet that contains them;\n" +
			"what is not given is chosen once and kept.",
		Example: "  towpath network create front\n" +
			"  towpath network create --subnet 172.30.0.0/24 --gateway 172.30.0.1 --ip-range 172.30.0.128/25 front\n" +
			"  towpath network create --ipv6 --internal --mtu 1400 -o com.docker.network.bridge.name=br-back back",
		Args: words("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec.Name = args[0]
			if err := applyOptions(cmd, &spec, options); err != nil {
				return err
			}
			if dry {
				return c.ops(c.client().DryRun().CreateNetwork(cmd.Context(), spec))
			}
			n, err := c.client().CreateNetwork(cmd.Context(), spec)
			c.told(n.Warnings)
			return c.made(n.Name, n, err)
		},
	}
	networkFlags(cmd.Flags(), &spec, &options)
	completeFlag(cmd, "driver", fixed(api.DriverBridge), cobra.ShellCompDirectiveDefault)
	completeFlag(cmd, "gateway-mode", fixed(api.GatewayNAT, api.GatewayRouted, api.GatewayIsolated), cobra.ShellCompDirectiveDefault)
	completeFlag(cmd, "opt", optionWords, cobra.ShellCompDirectiveNoSpace)
	dryRun(cmd, &dry)
	return c.completeArgs(cmd)
}

// networkFlags are Docker's, and Podman's where it has another word.
func networkFlags(f *pflag.FlagSet, spec *api.NetworkSpec, options *map[string]string) {
	spec.IPv4, spec.ICC = new(bool), new(bool)
	f.StringVarP(&spec.Driver, "driver", "d", api.DriverBridge, "what the network is made of")
	f.Var(&list[netip.Prefix]{to: &spec.Subnets, parse: parsePrefix, kind: "CIDR"}, "subnet", "an address range of the network (repeatable)")
	f.Var(&list[netip.Addr]{to: &spec.Gateways, parse: parseAddr, kind: "IP"}, "gateway", "the host's own address in a subnet (repeatable)")
	f.Var(&list[netip.Prefix]{to: &spec.IPRanges, parse: parsePrefix, kind: "CIDR"}, "ip-range", "the part of a subnet that addresses are chosen from (repeatable)")
	f.Var(&pairs[netip.Addr]{to: &spec.AuxAddresses, parse: parseAddr, kind: "NAME=IP", once: true}, "aux-address", "an address kept for a machine Towpath does not run (repeatable)")
	f.BoolVar(spec.IPv4, "ipv4", true, "give the network IPv4")
	f.BoolVar(&spec.IPv6, "ipv6", false, "give the network IPv6")
	f.BoolVar(&spec.Internal, "internal", false, "no way out of the host")
	f.BoolVar(spec.ICC, "icc", true, "let containers of the network talk to each other")
	f.StringVar(&spec.GatewayMode, "gateway-mode", api.GatewayNAT, "nat, routed (own addresses outside), or isolated (internal, without the host)")
	f.IntVar(&spec.MTU, "mtu", 0, "largest packet in bytes (default that of the host's uplink)")
	f.StringVar(&spec.Device, "interface-name", "", "name of the bridge (default tp-NAME)")
	f.Var(&pairs[string]{to: &spec.Labels, parse: verbatim, kind: "KEY=VALUE", bare: true}, "label", "a label (repeatable)")
	f.VarP(&pairs[string]{to: options, parse: verbatim, kind: "KEY=VALUE"}, "opt", "o", "an option by Docker's or Podman's name (repeatable)")
}
