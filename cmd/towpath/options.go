package main

import (
	"context"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
)

// option is what an option of Docker's bridge driver or of netavark means here.
type option struct {
	// flag says the same.
	flag string
	// only are the values that ask for what is so in any case.
	only []string
	// kept says that the option is Towpath's own, and the daemon knows its values.
	kept bool
}

// knownOptions are those of --opt. What is not among them is refused, and so
// is a value that would ask for something else than what is done: an option
// that is kept and does nothing is found out too late.
func knownOptions() map[string]option {
	return map[string]option{
		"com.docker.network.bridge.name":                 {flag: "interface-name"},
		"com.docker.network.bridge.enable_icc":           {flag: "icc"},
		"com.docker.network.driver.mtu":                  {flag: "mtu"},
		"com.docker.network.enable_ipv4":                 {flag: "ipv4"},
		"com.docker.network.enable_ipv6":                 {flag: "ipv6"},
		"com.docker.network.bridge.enable_ip_masquerade": {only: []string{"true"}},
		"com.docker.network.bridge.gateway_mode_ipv4":    {flag: "gateway-mode"},
		"com.docker.network.bridge.gateway_mode_ipv6":    {flag: "gateway-mode"},
		"com.docker.network.bridge.inhibit_ipv4":         {only: []string{"false"}},
		"com.docker.network.bridge.host_binding_ipv4":    {only: []string{"0.0.0.0"}},
		"com.docker.network.container_iface_prefix":      {only: []string{"eth"}},
		api.OptionDNSFrom:                                {kept: true},
		api.OptionDNSForward:                             {kept: true},
		api.OptionSpoofGuard:                             {kept: true},
		"mtu":                                            {flag: "mtu"},
		"isolate":                                        {only: []string{"true", "strict"}},
		"mode":                                           {only: []string{"managed"}},
		"no_default_route":                               {only: []string{"false"}},
	}
}

// optionWords completes --opt.
func optionWords(context.Context) []string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(knownOptions())) {
		out = append(out, key+"=")
	}
	return out
}

// applyOptions reads options that have a flag as that flag, and keeps the rest.
func applyOptions(cmd *cobra.Command, spec *api.NetworkSpec, options map[string]string) error {
	all := knownOptions()
	for _, key := range slices.Sorted(maps.Keys(options)) {
		known, ok := all[key]
		switch {
		case !ok:
			return notKnown("option", key, slices.Sorted(maps.Keys(all)))
		case known.flag != "":
			if err := optionFlag(cmd, known.flag, key, options[key]); err != nil {
				return err
			}
		case !known.kept && !slices.Contains(known.only, options[key]):
			return api.Errorf(api.Unsupported, "option %s=%s is not supported", key, options[key]).WithFix("leave it out, or say %s=%s", key, known.only[0])
		default:
			if spec.Options == nil {
				spec.Options = map[string]string{}
			}
			spec.Options[key] = options[key]
		}
	}
	return nil
}

// optionFlag reads an option as the flag that says the same.
func optionFlag(cmd *cobra.Command, name, key, text string) error {
	flag := cmd.Flags().Lookup(name)
	given, before := flag.Changed, flag.Value.String()
	if err := cmd.Flags().Set(name, text); err != nil {
		return valueError("option "+key, err)
	}
	if given && flag.Value.String() != before {
		return api.Errorf(api.Invalid, "option %s=%s says other than --%s=%s", key, text, name, before).WithFix("give one of them")
	}
	return nil
}
