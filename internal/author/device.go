package author

import (
	"regexp"
	"slices"
	"strings"
)

// device is an interface that a rule asks for, in the text of nft.
var device = regexp.MustCompile(`\b(iifname|oifname) (?:!= )?"([^"]+)"`)

// bridges are the devices that programs make for their networks.
var bridges = []struct {
	name   *regexp.Regexp
	author string
}{
	{regexp.MustCompile(`^(docker0|docker_gwbridge|br-[0-9a-f]{12})$`), Docker},
	{regexp.MustCompile(`^(cni-)?podman[0-9]+$`), Podman},
	{regexp.MustCompile(`^virbr[0-9]+$`), Libvirt},
	{regexp.MustCompile(`^cni0$`), CNI},
}

// ofText knows the rules that programs put into the chains of iptables which
// all share, by the bridge that they ask for. A program lets its own networks
// pass there, and translates them; what drops is the user's, unless it is within
// one bridge, which Docker has for networks without inter-container
// communication.
func ofText(r Rule) string {
	if !slices.Contains([]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}, r.Chain) {
		return ""
	}
	at := map[string]string{}
	for _, m := range device.FindAllStringSubmatch(r.Text, -1) {
		at[m[1]] = m[2]
	}
	passes := strings.HasSuffix(r.Text, " accept") || strings.Contains(r.Text, `"MASQUERADE"`) || strings.HasSuffix(r.Text, " masquerade")
	if in, out := at["iifname"], at["oifname"]; !passes && (in == "" || in != out) {
		return ""
	}
	for _, name := range at {
		for _, b := range bridges {
			if b.name.MatchString(name) {
				return b.author
			}
		}
	}
	if src, dst := word(r.Text, "ip saddr "), word(r.Text, "ip daddr "); src != "" && src == dst && passes && slices.Contains(r.Chains, "DOCKER") {
		return Docker // a published port, for the container itself
	}
	return ""
}

// word is what follows a term in a text.
func word(text, term string) string {
	_, rest, _ := strings.Cut(text, term)
	w, _, _ := strings.Cut(rest, " ")
	return w
}
