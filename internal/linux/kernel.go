//go:build linux

// Package linux is the edge to the kernel: it observes what is there as plain
// state, applies ops, and watches for changes that others make. Everything else
// of the daemon that touches the kernel's network configuration goes through it.
package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/xt"
	rules "github.com/towpath/towpath/internal/nft"
)

// Marks of what is ours.
const (
	// linkGroup is IFLA_GROUP of our links ("tow" and a digit in ASCII): unlike
	// ifalias it is set in the message that makes the link, so that no link of
	// ours is ever without a mark.
	linkGroup = 0x746f7700
	// trashGroup is what links are put into to be removed by one message.
	trashGroup = 0x746f7701
	// protocol is the mark of addresses (IFA_PROTO), routes (RTA_PROTOCOL) and
	// neighbours (NDA_PROTOCOL). Values from 5 up are free for routing daemons
	// (linux/rtnetlink.h); iproute2's rt_protos gives 80 to nobody.
	protocol = 80
	// AliasPrefix begins the ifalias of links that are ours.
	AliasPrefix = "towpath "
)

// tableName is the name of our nftables tables in each namespace.
const tableName = "towpath"

// Config says how to open a Kernel.
type Config struct {
	RunDir string
	// Protect asks for table flags owner and persist where the kernel has them.
	Protect bool
	// Cooperate asks for the use of the doors that other firewalls made.
	Cooperate bool
	// Zones are those of firewalld. Without it there is no firewalld.
	Zones Zones
	// Ports holds ports of the host; it lives as long as the daemon. Without it
	// sockets of the host are opened like those of sandboxes.
	Ports Ports
	// Resolver answers on the sockets of sandboxes, which are its own; without it
	// they are opened and nobody reads them.
	Resolver Resolver
	// Pass is told before and after each op, so that a test can kill the daemon there.
	Pass func(point string)
	Log  *slog.Logger
}

// Ports keeps ports of the host from other programs.
type Ports interface {
	// Hold takes all of the ports or, when one cannot be had, none.
	Hold(ports []kernel.Socket) error
	Release(port kernel.Socket) error
	Holds(port kernel.Socket) bool
}

// Resolver answers for names in sandboxes.
type Resolver interface {
	// Attach takes over the sockets of a sandbox, also when it fails.
	Attach(sandbox string, udp *net.UDPConn, tcp net.Listener) error
	// Detach closes them: when it returns, they do not keep the namespace any more.
	Detach(sandbox string) error
	Attached(sandbox string) bool
}

// Kernel is the kernel seen from one network namespace, "the host".
type Kernel struct {
	Config
	self  *os.File // the host's namespace
	rt    *rt.Conn
	nft   *nft.Conn
	xt    *xt.Reader
	rules foreign
	flags string // table flags the kernel takes
	hooks kernel.HookSupport
	sets  map[tableID][]rules.Set // of the host's tables, as Apply knows them
	ipv6  bool                    // the kernel runs with IPv6

	// judged says that the connections of former lives have been looked at.
	judged bool

	ready    readyStore
	foreseen *foreseen // while somebody said what is coming
	passing  atomic.Bool

	rtBuffers  rt.Buffers
	nftBuffers nft.Buffers

	mu      sync.Mutex
	offered map[uint64]*os.File        // namespaces to adopt, by cookie
	nsids   map[int]string             // sandboxes by the id the host's namespace knows them under
	known   map[linkID]seenLink        // links, as they were last heard of
	wrote   map[string]uint32          // the netlink port of our last transaction in a sandbox
	sockets map[kernel.Key][]io.Closer // that nobody else keeps
}

// Open opens the kernel in the namespace of the calling process.
func Open(c Config) (*Kernel, error) {
	if err := checkCapabilities(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(c.RunDir, "netns"), 0o755); err != nil {
		return nil, fmt.Errorf("make run directory: %w; give another --run-dir", err)
	}
	self, err := netns.Self()
	if err != nil {
		return nil, fmt.Errorf("open own namespace: %w", err)
	}
	k := &Kernel{
		Config: c, self: self, xt: xt.New(self),
		sets: map[tableID][]rules.Set{}, offered: map[uint64]*os.File{}, nsids: map[int]string{}, known: map[linkID]seenLink{},
		wrote: map[string]uint32{}, sockets: map[kernel.Key][]io.Closer{},
	}
	if k.rt, err = rt.Dial(int(self.Fd())); err != nil {
		return nil, errors.Join(err, self.Close())
	}
	if k.nft, err = dialRules(int(self.Fd())); err != nil {
		return nil, errors.Join(err, k.rt.Close(), self.Close())
	}
	_, k.ipv6 = k.number("net/ipv6/conf/all/disable_ipv6")
	k.hooks, err = k.probeHooks()
	if err == nil && c.Protect {
		k.flags, err = k.probeFlags()
	}
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// dialRules connects to nftables, which every container depends on.
func dialRules(nsfd int) (*nft.Conn, error) {
	c, err := nft.Dial(nsfd)
	if err == nil {
		if _, err = c.Generation(context.Background()); err == nil {
			return c, nil
		}
		err = errors.Join(err, c.Close())
	}
	// Without nfnetlink there is no such socket, without nf_tables no such
	// subsystem of it (nfnetlink_rcv_msg).
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		err = &kernel.MissingError{What: "nf_tables", Option: "CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET", Err: err}
	}
	return nil, err
}

// Close closes what the Kernel holds. What it made stays.
func (k *Kernel) Close() error {
	k.ready.close()
	k.mu.Lock()
	defer k.mu.Unlock()
	errs := []error{k.xt.Close(), k.nft.Close(), k.rt.Close(), k.self.Close()}
	for _, f := range k.offered {
		errs = append(errs, f.Close())
	}
	for _, list := range k.sockets {
		for _, s := range list {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// Path is where the namespace of a sandbox is bound.
func (k *Kernel) Path(sandbox string) string { return filepath.Join(k.RunDir, "netns", sandbox) }

// space is one namespace opened for the length of a pass. Handles cost
// descriptors, and one that stays open would keep its namespace alive.
type space struct {
	file    *os.File
	rt      *rt.Conn
	nft     *nft.Conn    // nil: not opened yet
	buffers *nft.Buffers // for when it is
	news    *rt.Monitor  // of IPv6 addresses; nil: not opened yet, or taken
	err     error
	index   map[string]int          // of links, as far as known
	conf6   map[string]*rt.IPv6Conf // of links that were read
	// masters are the indices of bridges that are known to be ours.
	masters map[string]int
}

// close lets go of what is open of the namespace.
func (sp *space) close() {
	if sp.news != nil {
		_ = sp.news.Close()
	}
	if sp.nft != nil {
		_ = sp.nft.Close()
	}
	if sp.rt != nil {
		_ = sp.rt.Close()
	}
	_ = sp.file.Close()
}

// read notes what was read of a link.
func (sp *space) read(l rt.Link) {
	sp.know(l.Name, l.Index)
	if sp.conf6 == nil {
		sp.conf6 = map[string]*rt.IPv6Conf{}
	}
	sp.conf6[l.Name] = l.IPv6
}

// parameter is the value of a parameter of a link as it was read with the link;
// not known is one that does not come with it.
func parameter(s kernel.Sysctl, c *rt.IPv6Conf) (value string, known bool) {
	if c == nil || s.Dev == "" {
		return "", false
	}
	switch s.Name {
	case "net/ipv6/conf/" + s.Dev + "/accept_ra":
		return strconv.Itoa(c.AcceptRA), true
	case "net/ipv6/conf/" + s.Dev + "/disable_ipv6":
		return strconv.Itoa(c.Disable), true
	}
	return "", false
}

// rules connects to the nftables of the namespace, once a call.
func (sp *space) rules() (*nft.Conn, error) {
	if sp.nft != nil {
		return sp.nft, nil
	}
	c, err := nft.DialUnlike(int(sp.file.Fd()), sp.buffers) // the monitor is to know it again
	if err != nil {
		return nil, err
	}
	c.LimitDumps(sandboxDump)
	sp.nft = c
	return c, nil
}

// indexOf gives the index of a link. It asks the kernel once a pass: nobody but
// us makes the links that ops are about, and one that was exchanged meanwhile
// is an error of the op and the next pass's work.
func (sp *space) indexOf(ctx context.Context, name string) (int, error) {
	if i, known := sp.index[name]; known {
		return i, nil
	}
	l, err := sp.rt.LinkByName(ctx, name)
	if err != nil {
		return 0, err
	}
	sp.know(name, l.Index)
	return l.Index, nil
}

// masterOf gives the index of a bridge to plug a link into. It must be ours:
// a foreign one that has the name would join the container to who knows what.
func (sp *space) masterOf(ctx context.Context, name string) (int, error) {
	if i, known := sp.masters[name]; known {
		return i, nil
	}
	l, err := sp.rt.LinkByName(ctx, name)
	if err != nil {
		return 0, err
	}
	if !ours(l) {
		return 0, &kernel.TakenError{Name: l.Name, Kind: l.Kind, Alias: l.Alias}
	}
	sp.know(name, l.Index)
	if sp.masters == nil {
		sp.masters = map[string]int{}
	}
	sp.masters[name] = l.Index
	return l.Index, nil
}

// know notes the index of a link, 0 that it is not known any more.
func (sp *space) know(name string, index int) {
	delete(sp.masters, name)
	if sp.index == nil {
		sp.index = map[string]int{}
	}
	if sp.index[name] = index; index == 0 {
		delete(sp.index, name)
	}
}

// spaces are the namespaces a pass or a reading has opened.
type spaces struct {
	k    *Kernel
	host *space
	open map[string]*space
}

func (k *Kernel) spaces() *spaces {
	return &spaces{k: k, host: &space{file: k.self, rt: k.rt, nft: k.nft}, open: map[string]*space{}}
}

// at opens a namespace, once.
func (s *spaces) at(ns string) (*space, error) {
	if ns == kernel.Host {
		return s.host, nil
	}
	if sp, ok := s.open[ns]; ok {
		return sp, sp.err
	}
	sp := &space{buffers: &s.k.nftBuffers}
	sp.file, sp.err = netns.Open(s.k.Path(ns))
	if sp.err == nil {
		if sp.rt, sp.err = rt.DialWith(int(sp.file.Fd()), &s.k.rtBuffers); sp.err != nil {
			sp.close()
		} else {
			sp.rt.LimitLists(sandboxRoutes)
		}
	}
	s.open[ns] = sp
	return sp, sp.err
}

// forget closes a namespace before it is let go.
func (s *spaces) forget(ns string) {
	if sp, ok := s.open[ns]; ok && sp.err == nil {
		sp.close()
	}
	delete(s.open, ns)
}

func (s *spaces) close() {
	for ns := range s.open {
		s.forget(ns)
	}
}

// LetGo removes the directory of namespaces with its mount, when nothing is
// bound in it any more.
func (k *Kernel) LetGo() error {
	dir := k.Path("")
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}
