package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/towpath/towpath/api"
)

// publishFlag is -p of sandbox create and run.
func publishFlag(f *pflag.FlagSet, specs *[]api.Publication) {
	f.VarP(&list[api.Publication]{to: specs, parse: api.ParsePublication, kind: "SPEC", whole: true}, "publish", "p",
		"publish a port, as [HOSTIP:][HOSTPORT:]PORT[/PROTO][,from=CIDR] (repeatable)")
}

func (c *cli) publish() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use: "publish SANDBOX SPEC...", Short: "Make ports of a sandbox reachable at ports of the host",
		Long: "Make ports of a sandbox reachable at ports of the host, all of them or none.\n" +
			"SPEC = [HOSTIP:][HOSTPORT[-END]:]PORT[-END][/tcp|udp|sctp][,from=CIDR]...\n" +
			"Without HOSTIP at any address, without HOSTPORT at a free port, which is printed.",
		Example: "  towpath publish web 8080:80 127.0.0.1:8443:443 53/udp",
		Args:    words("SANDBOX", "SPEC..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			specs, err := parsePublications(args[1:])
			if err != nil {
				return err
			}
			if dry {
				return c.ops(c.client().DryRun().Publish(cmd.Context(), args[0], specs))
			}
			made, err := c.client().Publish(cmd.Context(), args[0], specs)
			if err != nil {
				return err
			}
			return c.printPublications(made)
		},
	}
	dryRun(cmd, &dry)
	return c.output(cmd)
}

func (c *cli) unpublish() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use: "unpublish SANDBOX SPEC...", Short: "Take published ports of a sandbox back",
		Long:    "Take published ports of a sandbox back. SPEC is as for publish; without a host port all that lead to the port.",
		Example: "  towpath unpublish web 8080:80",
		Args:    words("SANDBOX", "SPEC..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			specs, err := parsePublications(args[1:])
			if err != nil {
				return err
			}
			if dry {
				return c.ops(c.client().DryRun().Unpublish(cmd.Context(), args[0], specs))
			}
			return c.client().Unpublish(cmd.Context(), args[0], specs)
		},
	}
	dryRun(cmd, &dry)
	return c.output(cmd)
}

func parsePublications(args []string) ([]api.Publication, error) {
	var specs []api.Publication
	for _, arg := range args {
		p, err := api.ParsePublication(arg)
		if err != nil {
			return nil, err
		}
		specs = append(specs, p)
	}
	return specs, nil
}

func (c *cli) port() *cobra.Command {
	cmd := &cobra.Command{
		Use: "port SANDBOX [PORT[/PROTO]]", Short: "Print where the ports of a sandbox are published",
		Example: "  towpath port web\n  towpath port web 80/tcp",
		Args:    words("SANDBOX", "[PORT]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := c.client().Publications(cmd.Context(), args[0])
			if err != nil || len(args) == 1 {
				return errors.Join(err, c.printPublications(all))
			}
			port, proto, _ := strings.Cut(args[1], "/")
			n, perr := strconv.ParseUint(port, 10, 16)
			if perr != nil {
				return api.Errorf(api.Invalid, "%q is not a port", args[1]).WithFix("write it as PORT[/PROTO], as 80/tcp")
			}
			var found []api.Publication
			for _, p := range all {
				if uint16(n) >= p.Port && uint16(n)-p.Port < p.Count && (proto == "" || proto == p.Proto) {
					found = append(found, p)
				}
			}
			if len(found) == 0 {
				return api.Errorf(api.NotFound, "sandbox %s does not publish %s", args[0], args[1]).WithFix("see: towpath port %s", args[0])
			}
			return c.printPublications(found)
		},
	}
	return c.output(cmd)
}

// printPublications prints one line a publication, in the form of docker port.
func (c *cli) printPublications(all []api.Publication) error {
	var warnings []string
	for _, p := range all {
		warnings = append(warnings, p.Warnings...)
	}
	c.told(warnings)
	if c.json {
		return c.printJSON(all)
	}
	for _, p := range all {
		host := "*"
		if p.HostIP.IsValid() {
			host = netip.AddrPortFrom(p.HostIP, 0).String()
			host = strings.TrimSuffix(host, ":0")
		}
		line := fmt.Sprintf("%s/%s -> %s:%s", ports(p.Port, p.Count), p.Proto, host, ports(p.HostPort, p.Count))
		if len(p.From) > 0 {
			line += fmt.Sprintf(" from %v", p.From)
		}
		if p.State != "ready" {
			line += " (" + p.State + ": " + p.Message + ")"
		}
		if _, err := fmt.Fprintln(c.out, line); err != nil {
			return err
		}
	}
	return nil
}

func ports(first, count uint16) string {
	if count <= 1 {
		return strconv.Itoa(int(first))
	}
	return fmt.Sprintf("%d-%d", first, int(first)+int(count)-1)
}
