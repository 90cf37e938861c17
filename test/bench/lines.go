package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/linux/netns"
	linuxnft "github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
	"github.com/towpath/towpath/internal/nft"
)

const (
	pairLeft, pairRight = "198.51.100.1/24", "198.51.100.2/24"
	// thePort is published, and what the servers listen on.
	thePort    = 8080
	serverPort = 80
	// manyPorts is how many more are published, or translated by iptables.
	firstOfMany = 10001
	manyPorts   = 9999
)

// space is a namespace and a connection to it.
type space struct {
	f    *os.File
	conn *rt.Conn
}

func newSpace(ctx context.Context) (space, error) {
	f, err := netns.New()
	if err != nil {
		return space{}, err
	}
	return openSpace(ctx, f)
}

// openSpace takes f over.
func openSpace(ctx context.Context, f *os.File) (space, error) {
	c, err := rt.Dial(int(f.Fd()))
	if err != nil {
		return space{}, errors.Join(err, f.Close())
	}
	return space{f, c}, setUp(ctx, c, loopback)
}

func (s space) close() error { return errors.Join(s.conn.Close(), s.f.Close()) }

// address gives a link an address and sets it up.
func (s space) address(ctx context.Context, dev, prefix string) error {
	l, err := s.conn.LinkByName(ctx, dev)
	if err == nil && prefix != "" {
		err = s.conn.AddAddress(ctx, rt.Address{Index: l.Index, Prefix: netip.MustParsePrefix(prefix), NoDAD: true})
	}
	if err != nil {
		return err
	}
	return setUp(ctx, s.conn, l.Index)
}

// join makes a pair of links, eth0 in the namespaces of outside things.
func (s space) join(ctx context.Context, dev, prefix string, master int, far space, farPrefix string) error {
	err := s.conn.AddVeth(ctx, rt.VethSpec{
		LinkSpec: rt.LinkSpec{Name: dev, Master: master},
		Peer:     rt.LinkSpec{Name: "eth0", NSFD: int(far.f.Fd())},
	})
	if err == nil {
		err = s.address(ctx, dev, prefix)
	}
	if err == nil {
		err = far.address(ctx, "eth0", farPrefix)
	}
	return err
}

// route sends a destination to a gateway.
func (s space) route(ctx context.Context, dst, via string) error {
	gw := netip.MustParsePrefix(via).Addr()
	l, err := s.conn.LinkByName(ctx, "eth0")
	if err != nil {
		return err
	}
	return s.conn.AddRoute(ctx, rt.Route{Dst: netip.MustParsePrefix(dst).Masked(), Gateway: gw, OIF: l.Index, Onlink: true})
}

// line is a client, a server, and what is between them.
type line struct {
	name   string
	to     netip.AddrPort // what the client connects to
	to6    netip.AddrPort // the same over IPv6; not valid: not measured
	client *peer
	made   []space
	ends   []func() error
	times  map[string][]float64 // of each kind of measurement, in nanoseconds, a round each
}

// close ends its peers and lets its namespaces go.
func (l *line) close() {
	for _, end := range l.ends {
		_ = end() // throw-away namespaces
	}
}

// populate starts the peers: a server for each family.
func (l *line) populate(ctx context.Context, client, server *os.File, port uint16) error {
	for _, role := range []string{roleServer, roleServer6} {
		s, err := newServer(ctx, server, role, port)
		if err != nil {
			return err
		}
		l.ends = append(l.ends, s.close)
	}
	c, err := newPeer(ctx, client, "client")
	if err != nil {
		return err
	}
	l.client, l.ends = c, append(l.ends, c.close)
	return nil
}

// spaces makes namespaces that go with the line.
func (l *line) spaces(ctx context.Context, n int) ([]space, error) {
	var out []space
	for range n {
		s, err := newSpace(ctx)
		if err != nil {
			return nil, err
		}
		out, l.ends = append(out, s), append(l.ends, s.close)
	}
	l.made = append(l.made, out...)
	return out, nil
}

// newPair is a bare veth pair.
func newPair(ctx context.Context) (*line, error) {
	l := &line{name: "a bare veth pair"}
	s, err := l.spaces(ctx, 2)
	if err == nil {
		err = s[0].join(ctx, "eth0", pairLeft, 0, s[1], pairRight)
	}
	if err == nil {
		l.to = at(pairRight, serverPort)
		err = l.populate(ctx, s[0].f, s[1].f, serverPort)
	}
	return l, err
}

// newRouted is a host that routes to a bridge with one container, and does
// nothing else.
func newRouted(ctx context.Context) (*line, space, error) {
	l := &line{name: "plain routing"}
	s, err := l.spaces(ctx, 3)
	if err != nil {
		return l, space{}, err
	}
	outside, host, inside := s[0], s[1], s[2]
	if err := callsOff(host.f); err != nil {
		return l, host, err
	}
	err = host.conn.AddBridge(ctx, rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: bareBridge}})
	if err == nil {
		err = host.address(ctx, bareBridge, "")
	}
	if err != nil {
		return l, host, err
	}
	bridge, err := host.conn.LinkByName(ctx, bareBridge)
	if err == nil {
		err = host.join(ctx, "v-inside", "", bridge.Index, inside, "")
	}
	if err == nil {
		err = host.join(ctx, "eth0", "", 0, outside, "")
	}
	for _, a := range []addressing{over4(), over6()} {
		if err == nil {
			err = a.route(ctx, outside, host, inside)
		}
	}
	if err == nil {
		l.to, l.to6 = at(over4().routedInside, serverPort), at(over6().routedInside, serverPort)
		err = l.populate(ctx, outside.f, inside.f, serverPort)
	}
	return l, host, err
}

// callsOff takes the packets that bridges forward out of the hooks of IP, where
// the kernel has them there.
func callsOff(host *os.File) error {
	for _, name := range []string{"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"} {
		if err := sysctl.Write(host, name, "0"); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return nil
}

// tracked makes the kernel follow connections, as whoever translates addresses
// or lets answers through must, and nothing else.
const tracked = `table inet tracked {
	chain forward {
		type filter hook forward priority filter; policy accept;
		ct state established accept
	}
}
`

// newTracked is the same with connection tracking.
func newTracked(ctx context.Context) (*line, error) {
	l, host, err := newRouted(ctx)
	if err != nil {
		return l, err
	}
	l.name = "plain routing, connections tracked"
	def, err := nft.ParseTable(tracked)
	if err != nil {
		return l, err
	}
	c, err := linuxnft.Dial(int(host.f.Fd()))
	if err != nil {
		return l, err
	}
	l.ends = append(l.ends, c.Close)
	var b linuxnft.Batch
	b.AddTableDef(def)
	return l, c.Commit(ctx, &b)
}

// newTables is the same with a rule a port, as iptables has them; nil without
// iptables.
func newTables(ctx context.Context) (*line, error) {
	program, err := exec.LookPath("iptables-restore")
	if err != nil {
		return nil, nil //nolint:nilnil // a line beside the others, not one of them
	}
	l, host, err := newRouted(ctx)
	if err != nil {
		return l, err
	}
	l.name = fmt.Sprintf("iptables, the last of %d rules", manyPorts+1)
	l.to, l.to6 = at(over4().uplinkHost, thePort), netip.AddrPort{}
	to := netip.MustParsePrefix(over4().routedInside).Addr()
	var text strings.Builder
	text.WriteString("*nat\n")
	for i := range manyPorts {
		fmt.Fprintf(&text, "-A PREROUTING -p tcp --dport %d -j DNAT --to-destination %s:%d\n", firstOfMany+i, to, serverPort)
	}
	fmt.Fprintf(&text, "-A PREROUTING -p tcp --dport %d -j DNAT --to-destination %s:%d\nCOMMIT\n", thePort, to, serverPort)
	cmd := exec.CommandContext(ctx, program)
	cmd.Stdin = strings.NewReader(text.String())
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := netns.Do(host.f, cmd.Start); err != nil {
		return l, err
	}
	if err := cmd.Wait(); err != nil {
		return l, fmt.Errorf("%s: %w: %s", program, err, said.String())
	}
	return l, nil
}

// newPublished is a daemon with a container of which a port is published, and
// so many more besides.
func newPublished(ctx context.Context, bin, name string, more int) (l *line, d *daemon, err error) {
	l = &line{name: name}
	run, err := os.MkdirTemp("/run", "bench")
	if err != nil {
		return l, nil, err
	}
	// In memory, unlike a real store: what a commit costs on a disk is not asked here.
	if d, err = newDaemon(ctx, bin, run, filepath.Join(run, "state")); err != nil {
		return l, nil, err
	}
	l.ends = append(l.ends, d.close)
	if err := callsOff(d.host); err != nil {
		return l, d, err
	}
	web, err := d.create(ctx, d.clients[0], "web")
	if err != nil {
		return l, d, err
	}
	if err := publishMany(ctx, d, more); err != nil {
		return l, d, err
	}
	outside, err := l.spaces(ctx, 1)
	if err != nil {
		return l, d, err
	}
	host := space{f: d.host}
	if host.conn, err = rt.Dial(int(d.host.Fd())); err != nil {
		return l, d, err
	}
	l.ends = append(l.ends, host.conn.Close)
	if err := host.join(ctx, "eth0", "", 0, outside[0], ""); err != nil {
		return l, d, err
	}
	for _, a := range []addressing{over4(), over6()} {
		if err := errors.Join(host.address(ctx, "eth0", a.uplinkHost), outside[0].address(ctx, "eth0", a.uplinkOutside)); err != nil {
			return l, d, err
		}
	}
	inside, err := netns.Open(web.Netns)
	if err != nil {
		return l, d, err
	}
	defer inside.Close()
	l.to = at(over4().uplinkHost, thePort)
	if more == 0 {
		l.to6 = at(over6().uplinkHost, thePort)
	}
	return l, d, l.populate(ctx, outside[0].f, inside, serverPort)
}

// publishMany publishes thePort, and more behind it.
func publishMany(ctx context.Context, d *daemon, more int) error {
	specs := []api.Publication{{HostPort: thePort, Port: serverPort, Count: 1, Proto: "tcp"}}
	for i := range more {
		specs = append(specs, api.Publication{HostPort: uint16(firstOfMany + i), Port: serverPort, Count: 1, Proto: "tcp"})
	}
	_, err := d.clients[0].Publish(ctx, "web", specs)
	return err
}

// newMates is two containers of one network of a daemon, which checks what they
// send or does not.
func newMates(ctx context.Context, d *daemon, guard string) (*line, error) {
	l := &line{name: "two containers of a network, spoof guard " + guard}
	spec := api.NetworkSpec{Name: "guard-" + guard, Options: map[string]string{api.OptionSpoofGuard: guard}}
	if _, err := d.clients[0].CreateNetwork(ctx, spec); err != nil {
		return l, err
	}
	var ns [2]*os.File
	for i, name := range []string{"left-" + guard, "right-" + guard} {
		s, err := d.clients[0].CreateSandbox(ctx, api.SandboxSpec{Name: name, Networks: []api.EndpointSpec{{Network: spec.Name}}}, nil)
		if err != nil {
			return l, err
		}
		if ns[i], err = netns.Open(s.Netns); err != nil {
			return l, err
		}
		defer ns[i].Close()
		l.to = netip.AddrPortFrom(s.Endpoints[0].Addresses[0].Addr(), serverPort)
	}
	if err := isGuarded(ctx, d, "left-"+guard, guard == "on"); err != nil {
		return l, err
	}
	return l, l.populate(ctx, ns[0], ns[1], serverPort)
}

// isGuarded fails unless what a sandbox sends is checked in the kernel, or is not.
func isGuarded(ctx context.Context, d *daemon, sandbox string, want bool) error {
	s, err := d.clients[0].Sandbox(ctx, sandbox)
	if err != nil {
		return err
	}
	is := slices.ContainsFunc(s.Live.Chains, func(rule string) bool { return strings.Contains(rule, " netdev towpath guard_") })
	if is != want {
		return fmt.Errorf("sandbox %s: its frames are checked: %t, want %t", sandbox, is, want)
	}
	return nil
}

// raise makes room for a descriptor a published port; the daemon inherits it.
func raise() error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	l.Cur = l.Max
	return os.NewSyscallError("setrlimit", unix.Setrlimit(unix.RLIMIT_NOFILE, &l))
}
