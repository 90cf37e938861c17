package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/fdstore"
	"github.com/towpath/towpath/internal/ipam"
	"github.com/towpath/towpath/internal/term"
)

// config is what the flags say.
type config struct {
	runDir, stateDir string
	group            string
	logFormat        string
	pools            []ipam.Pool
	publishAt        netip.Addr
	upstreams        []netip.Addr
	ttl              time.Duration
	protect          bool
	cooperate        bool
	cleanup, tryOut  bool
	// store keeps descriptors over a restart; kept are those of the life before.
	store *fdstore.Store
	kept  map[string][]*os.File
}

// parse reads the flags. Without a config the program ends with the code.
func parse(args []string, stdout, stderr io.Writer) (*config, int) {
	c := &config{}
	fs := pflag.NewFlagSet("towpathd", pflag.ContinueOnError)
	fs.SortFlags = false
	fs.SetOutput(stderr)
	fs.StringVar(&c.runDir, "run-dir", "/run/towpath", "directory of the socket and the namespaces")
	fs.StringVar(&c.stateDir, "state-dir", "/var/lib/towpath", "directory of the store")
	pools := fs.StringArray("pool", nil, "range to take subnets from, CIDR[,size=24]; repeatable (default two private IPv4 ranges and a ULA /48)")
	publishAt := fs.String("default-publish-address", "", "address of the host to publish ports at where none is given (default any)")
	upstreams := fs.StringArray("dns-upstream", nil, "server to ask for names of the world outside, instead of those in the host's resolv.conf; repeatable")
	fs.DurationVar(&c.ttl, "dns-ttl", 5*time.Second, "how long the answers for names of sandboxes may be kept")
	fs.StringVar(&c.group, "group", "", "group that may use the socket; that is root on the network")
	protect := fs.String("protect-tables", "auto", "auto: protect nftables tables from others where the kernel can (6.9); off: do not")
	cooperate := fs.String("cooperate", "auto", "auto: where firewalld, ufw or Docker would drop our traffic, use the doors they made for it (a zone, ufw's route chain, DOCKER-USER); off: only say so")
	fs.StringVar(&c.logFormat, "log-format", "text", "text or json")
	fs.BoolVar(&c.cleanup, "cleanup", false, "take everything of Towpath's down, put the host's settings back, and end")
	fs.BoolVar(&c.tryOut, "check", false, "print the ops a start would apply, one a line, change nothing, and end")
	file := fs.String("config", defaultFile, "file of YAML that says what flags say, without their dashes; flags win")
	show := fs.Bool("version", false, "print the version and end")
	fs.Usage = func() {
		fmt.Fprintf(stderr, "towpathd: the daemon of Towpath. It treats the network namespace it is started in as the host.\n\nFlags:\n%s", fs.FlagUsages())
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil, 0
		}
		fmt.Fprintf(stderr, "towpathd: %s\n", wrongFlag(fs, err))
		return nil, 2
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(stderr, "towpathd: argument %q is not expected; see --help\n", fs.Arg(0))
		return nil, 2
	}
	if *show {
		fmt.Fprintln(stdout, "towpathd "+version)
		return nil, 0
	}
	if err := readFile(fs, *file, fs.Changed("config")); err != nil {
		fmt.Fprintf(stderr, "towpathd: %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
		return nil, 1
	}
	if err := c.check(*pools, *upstreams, *protect, *cooperate, *publishAt); err != nil {
		fmt.Fprintf(stderr, "towpathd: %v\n", err)
		return nil, 1
	}
	return c, 0
}

// wrongFlag says what is wrong with a command line, and of an unknown flag which
// it may have been.
func wrongFlag(fs *pflag.FlagSet, err error) string {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		var known []string
		fs.VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		if near := term.Near(unknown.GetSpecifiedName(), known); len(near) > 0 {
			return fmt.Sprintf("%v; did you mean --%s? see --help", err, strings.Join(near, " or --"))
		}
	}
	return fmt.Sprintf("%v; see --help", err)
}

func (c *config) check(pools, upstreams []string, protect, cooperate, publishAt string) error {
	switch protect {
	case "auto":
		c.protect = true
	case "off":
	default:
		return fmt.Errorf("--protect-tables %q is not known; use auto or off", protect)
	}
	switch cooperate {
	case "auto":
		c.cooperate = true
	case "off":
	default:
		return fmt.Errorf("--cooperate %q is not known; use auto or off", cooperate)
	}
	if publishAt != "" {
		a, err := netip.ParseAddr(publishAt)
		if err != nil || a.IsMulticast() || a.Zone() != "" {
			return fmt.Errorf("--default-publish-address %q is not an address of the host; write it as 192.0.2.10 or 2001:db8::10", publishAt)
		}
		c.publishAt = a
	}
	if c.logFormat != "text" && c.logFormat != "json" {
		return fmt.Errorf("--log-format %q is not known; use text or json", c.logFormat)
	}
	if c.ttl < 0 || c.ttl > maxTTL {
		return fmt.Errorf("--dns-ttl %s is out of range; use 0s to %s", c.ttl, maxTTL)
	}
	if c.ttl < time.Second { // for the resolver, 0 is its default
		c.ttl = -1
	}
	for _, s := range upstreams {
		a, err := netip.ParseAddr(s)
		if err != nil || api.ValidServer(a) != nil {
			return fmt.Errorf("--dns-upstream %q is not the address of a DNS server; write it as 192.0.2.53", s)
		}
		c.upstreams = append(c.upstreams, a)
	}
	for _, s := range pools {
		p, err := parsePool(s)
		if err != nil {
			return err
		}
		c.pools = append(c.pools, p)
	}
	return nil
}

// maxTTL of names that may be another sandbox's a moment later.
const maxTTL = time.Hour

// parsePool reads CIDR[,size=N].
func parsePool(s string) (ipam.Pool, error) {
	cidr, opt, sized := strings.Cut(s, ",")
	base, err := netip.ParsePrefix(cidr)
	if err != nil || base != base.Masked() {
		return ipam.Pool{}, fmt.Errorf("--pool %q is not an address range; write it as 10.128.0.0/12,size=24", s)
	}
	p := ipam.Pool{Base: base, Size: 24}
	if base.Addr().Is6() {
		p.Size = 64
	}
	if sized {
		size, ok := strings.CutPrefix(opt, "size=")
		if p.Size, err = strconv.Atoi(size); err != nil || !ok {
			return p, fmt.Errorf("--pool %q: %q is not size=N; write it as 10.128.0.0/12,size=24", s, opt)
		}
	}
	if p.Size < base.Bits() || p.Size > base.Addr().BitLen()-2 {
		return p, fmt.Errorf("--pool %q: subnets of /%d do not fit into it; choose a size from %d to %d", s, p.Size, base.Bits(), base.Addr().BitLen()-2)
	}
	return p, nil
}

func (c *config) handler(w io.Writer) slog.Handler {
	if c.logFormat == "json" {
		return slog.NewJSONHandler(w, nil)
	}
	return slog.NewTextHandler(w, nil)
}
