package main

import (
	"encoding/csv"
	"net/netip"
	"strconv"
	"strings"

	"github.com/towpath/towpath/api"
)

// parseNetworkSpec reads the value of --network, in any of its spellings:
//
//	NET
//	NET,ip=172.20.0.9,...
//	name=NET,ip=172.20.0.9,mac-address=02:...,alias=db,gw-priority=1    Docker's
//	name=NET,"driver-opt=com.docker.network.endpoint.sysctls=A=1,B=2"   too: in quotes, as CSV has them
//	NET:ip=172.20.0.9,mac=02:...,interface_name=net0,alias=db           Podman's
func parseNetworkSpec(s string) (api.EndpointSpec, error) {
	var e api.EndpointSpec
	rest := s
	// A name has none of the three in it: the first decides on the spelling.
	if i := strings.IndexAny(s, ":,="); i < 0 {
		e.Network, rest = s, ""
	} else if s[i] != '=' {
		e.Network, rest = s[:i], s[i+1:]
		if rest == "" {
			return e, api.Errorf(api.Invalid, "network %q ends where its options should be", s).WithFix("leave out its last character, or write KEY=VALUE behind it")
		}
	}
	seen := map[string]bool{"name": e.Network != ""}
	fields, err := splitFields(rest)
	if err != nil {
		return e, err
	}
	for _, field := range fields {
		if err := setField(&e, field, seen); err != nil {
			return e, err
		}
	}
	if e.Network == "" {
		return e, api.Errorf(api.Invalid, "network %q has no name", s).WithFix("write NET,KEY=VALUE,... or name=NET,KEY=VALUE,...")
	}
	return e, api.ValidName("network", e.Network)
}

// splitFields cuts at commas, but for those in quotes.
func splitFields(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return nil, api.Errorf(api.Invalid, "network options %s: %w", s, err).WithFix(`put a whole KEY=VALUE into quotes: front,"KEY=A,B"`)
	}
	return fields, nil
}

// canonicalKey is the one word for what Docker, Podman and ip(8) call by several.
func canonicalKey(key string) string {
	switch key = strings.ReplaceAll(strings.ToLower(strings.TrimSpace(key)), "_", "-"); key {
	case "mac-address":
		return "mac"
	case "interface-name":
		return "ifname"
	case "network-alias":
		return "alias"
	}
	return key
}

// setField reads one KEY=VALUE into e. A key that takes one value may be there once.
func setField(e *api.EndpointSpec, field string, seen map[string]bool) error {
	raw, text, ok := strings.Cut(field, "=")
	if !ok {
		return api.Errorf(api.Invalid, "network option %q has no value", field).
			WithFix("write KEY=VALUE; for another network give --network again")
	}
	key := canonicalKey(raw)
	if key == "driver-opt" {
		return driverOption(e, text, seen)
	}
	if key == "ip" && strings.Contains(text, ":") {
		// Podman takes either family by one key.
		key = "ip6"
	}
	if seen[key] && key != "alias" && key != "sysctl" {
		return api.Errorf(api.Invalid, "network option %s is given twice", raw).WithFix("leave one out; for another endpoint give --network again")
	}
	seen[key] = true
	return setKey(e, key, raw, text)
}

// setKey sets what a canonical key means.
func setKey(e *api.EndpointSpec, key, raw, text string) (err error) {
	switch key {
	case "name":
		e.Network = text
	case "ip":
		e.IP, err = parseFamily(text, true)
	case "ip6":
		e.IP6, err = parseFamily(text, false)
	case "mac":
		e.MAC, err = parseMAC(text)
	case "ifname":
		e.Ifname, err = text, api.ValidIfname(text)
	case "alias":
		e.Aliases, err = append(e.Aliases, text), notEmpty(raw, text)
	case "sysctl":
		return addSysctl(e, text)
	case "gw-priority":
		e.GwPriority, err = parsePriority(text)
	default:
		return api.Errorf(api.Invalid, "network option %q is not known", raw).
			WithFix("known: name, ip, ip6, mac, alias, ifname, gw-priority, sysctl")
	}
	return err
}

func parseFamily(text string, v4 bool) (netip.Addr, error) {
	a, err := parseAddr(text)
	if err == nil && a.Is4() != v4 {
		return a, api.Errorf(api.Invalid, "%s is not of the family its option is for", a).WithFix("use ip for IPv4 and ip6 for IPv6")
	}
	return a, err
}

func parsePriority(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, api.Errorf(api.Invalid, "gateway priority %q is not a number", text).WithFix("write it in digits")
	}
	return n, nil
}

func notEmpty(key, text string) error {
	if text == "" {
		return api.Errorf(api.Invalid, "network option %s is empty", key).WithFix("give it a value, or leave it out")
	}
	return nil
}

// driverOption understands those that Docker has for the name of an interface
// and for its sysctls.
func driverOption(e *api.EndpointSpec, text string, seen map[string]bool) error {
	const ifname, sysctls = "com.docker.network.endpoint.ifname", "com.docker.network.endpoint.sysctls"
	key, value, _ := strings.Cut(text, "=")
	switch key {
	case ifname:
		return setField(e, "ifname="+value, seen)
	case sysctls:
		for pair := range strings.SplitSeq(value, ",") {
			if err := addSysctl(e, pair); err != nil {
				return err
			}
		}
		return nil
	}
	return notKnown("driver option", key, []string{ifname, sysctls})
}

// addSysctl adds one that is written as KEY=VALUE.
func addSysctl(e *api.EndpointSpec, pair string) error {
	return (&pairs[string]{to: &e.Sysctls, parse: verbatim, kind: "KEY=VALUE"}).Set(pair)
}

// placement is what the values of --network mean together.
type placement struct {
	// host: the caller's own namespace.
	host bool
	// join is the sandbox whose namespace is meant; "" is a new one.
	join string
	// networks to connect to; nil is the default, empty is none at all.
	networks []api.EndpointSpec
}

// parsePlacement reads all values of --network. host, none and container:NAME
// are as in Docker, and go with no other.
func parsePlacement(values []string) (placement, error) {
	var p placement
	for _, v := range values {
		name, joins := strings.CutPrefix(v, "container:")
		special := v == "host" || v == "none" || joins
		switch {
		case special && len(values) > 1:
			return p, api.Errorf(api.Invalid, "network %s goes with no other network", v).WithFix("leave out the one or the other")
		case v == "host":
			return placement{host: true}, nil
		case v == "none":
			return placement{networks: []api.EndpointSpec{}}, nil
		case joins:
			return placement{join: name}, api.ValidName("sandbox", name)
		}
		e, err := parseNetworkSpec(v)
		if err != nil {
			return p, err
		}
		p.networks = append(p.networks, e)
	}
	return p, nil
}
