package explain

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
)

// table puts tables of somebody else's into a namespace.
func (w *world) table(ns, text string) {
	w.Helper()
	tables, err := rules.ParseTables(text)
	w.must(err)
	c, err := nft.Dial(w.spaces[ns].FD())
	w.must(err)
	w.Cleanup(func() { c.Close() })
	var b nft.Batch
	for _, t := range tables {
		b.AddTableDef(t)
	}
	w.must(c.Commit(w.Context(), &b))
}

// iptables runs a program of that name on the host.
func (w *world) iptables(argv ...string) {
	w.Helper()
	testnet.Require(w, argv[0]+"-binary")
	_, err := w.spaces["host"].Output(w.Context(), argv...)
	w.must(err)
}

func (w *world) noDefault(ns, dst string) {
	w.Helper()
	w.must(w.spaces[ns].Conn(w).DelRoute(w.Context(), rt.Route{Dst: netip.MustParsePrefix(dst)}))
}

func (w *world) mtu(ns, dev string, n int) {
	w.Helper()
	w.must(w.spaces[ns].Conn(w).SetLink(w.Context(), w.index(ns, dev), rt.LinkChange{MTU: &n}))
}

func (w *world) down(ns, dev string) {
	w.Helper()
	w.must(w.spaces[ns].Conn(w).SetLink(w.Context(), w.index(ns, dev), rt.LinkChange{Up: new(false)}))
}

// entries are the addresses that are known behind a port.
func (w *world) entries(port string) []rt.Neighbour {
	w.Helper()
	c := w.spaces["host"].Conn(w)
	list, err := c.Neighbours(w.Context(), rt.NeighbourFilter{Family: unix.AF_BRIDGE, Index: w.index("host", port)}, 0)
	w.must(err)
	return slices.DeleteFunc(list, func(n rt.Neighbour) bool { return n.State&unix.NUD_PERMANENT != 0 || n.Master == 0 })
}

// bridgeNF says whether frames within bridges of the host pass the packet filter,
// where the kernel can do that at all: where it cannot, they do not.
func (w *world) bridgeNF(on string) {
	w.Helper()
	for _, name := range []string{"iptables", "ip6tables"} {
		if _, err := sysctl.Read(w.spaces["host"].F, "net/bridge/bridge-nf-call-"+name); err == nil {
			w.sysctl("host", "net/bridge/bridge-nf-call-"+name, on)
		}
	}
}
