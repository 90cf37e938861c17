package kernel

import (
	"slices"
	"strings"
)

// HookSupport is what the kernel can do with hooks of family netdev.
type HookSupport int

// NoHooks: a kernel without CONFIG_NETFILTER_INGRESS or CONFIG_NF_TABLES_NETDEV,
// or before 6.4, where a chain keeps the links it was made with.
const (
	NoHooks HookSupport = iota
	HooksOnLinks
	HooksByName
)

// Hook is a link whose frames pass a base chain of family netdev: one of the
// devices in the chain's header. It is an object of its own because links come
// and go, and the chain stays.
type Hook struct {
	NS, Family, Table, Chain, Dev string
	// ByName: the kernel (6.16) keeps the name, so that the hook may be there
	// before the link and outlives it. Others take only links that are there,
	// and forget those that go.
	ByName bool
}

// Key is the link at its chain.
func (h Hook) Key() Key {
	return Key{h.NS, KindHook, h.Family + " " + h.Table + " " + h.Chain + " " + h.Dev}
}

// Parents is the chain.
func (h Hook) Parents() []Key {
	return []Key{Chain{NS: h.NS, Family: h.Family, Table: h.Table, Name: h.Chain}.Key()}
}

// Needs is the link, where the kernel does not go by the name. The loopback is
// the namespace's own.
func (h Hook) Needs() []Key {
	if h.ByName || h.Dev == "lo" {
		return nil
	}
	return []Key{linkKey(h.NS, h.Dev)}
}

// String is "hook netdev towpath guard { v-web-eth0 }".
func (h Hook) String() string {
	return "hook " + h.Family + " " + h.Table + " " + h.Chain + " { " + h.Dev + " }"
}

// withDevices puts the devices of a base chain into its header, as nft prints
// them: sorted, and a lone one in quotes.
func withDevices(base string, devices []string) string {
	slices.Sort(devices)
	text := ""
	switch len(devices) {
	case 0:
		return base
	case 1:
		text = `device "` + devices[0] + `"`
	default:
		text = "devices = { " + strings.Join(devices, ", ") + " }"
	}
	before, after, _ := strings.Cut(base, " priority ")
	return before + " " + text + " priority " + after
}

// cutDevices is the inverse of withDevices.
func cutDevices(header string) (base string, devices []string) {
	before, rest, found := strings.Cut(header, " device")
	if !found {
		return header, nil
	}
	list, after, found := strings.Cut(rest, " priority ")
	if !found {
		return header, nil
	}
	list = strings.Trim(strings.TrimPrefix(list, "s = "), `{} "`)
	for _, dev := range strings.Split(list, ",") {
		if dev = strings.TrimSpace(dev); dev != "" {
			devices = append(devices, dev)
		}
	}
	return before + " priority " + after, devices
}
