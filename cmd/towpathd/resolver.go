package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/dns"
	"github.com/towpath/towpath/internal/engine"
	"github.com/towpath/towpath/internal/fdstore"
	"github.com/towpath/towpath/internal/linux"
	"github.com/towpath/towpath/internal/linux/netns"
)

// resolver is what answers for names in sandboxes: the names, who answers, and
// the host's own resolv.conf.
type resolver struct {
	*dns.Server
	names *dns.Names
	host  func() dns.Conf
	close func() error
	store *fdstore.Store
	log   *slog.Logger
}

// newResolver puts a resolver together. The path is where the namespace of a
// sandbox is bound.
func (c *config) newResolver(path func(sandbox string) string, store *fdstore.Store, say func(api.Event), log *slog.Logger) *resolver {
	r := &resolver{names: dns.NewNames(), close: func() error { return nil }, store: store, log: log}
	upstreams := r.watchHost(log)
	if len(c.upstreams) > 0 {
		fixed := dns.Conf{Nameservers: c.upstreams}.Upstreams()
		upstreams = func() []netip.AddrPort { return fixed }
	}
	r.Server = dns.New(dns.Config{
		Names: r.names, Upstreams: upstreams, TTL: c.ttl, Log: log,
		Tell: func(e dns.Event) { say(resolverEvent(e)) },
		Dial: func(ctx context.Context, sandbox, network string, addr netip.AddrPort) (net.Conn, error) {
			if sandbox == "" {
				return dns.DialHost(ctx, network, addr)
			}
			return dialFrom(ctx, path(sandbox), network, addr)
		},
	})
	return r
}

// watchHost follows the host's resolv.conf. Where it cannot be watched, it is
// as it was at the start.
func (r *resolver) watchHost(log *slog.Logger) (upstreams func() []netip.AddrPort) {
	watch, err := dns.WatchHostConf(dns.ResolvConf, dns.ResolvedConf, nil)
	if err == nil {
		r.host, r.close = watch.Conf, watch.Close
		return watch.Upstreams
	}
	log.Warn("the host's resolv.conf is read once: a change needs a new start", "err", err)
	text, err := os.ReadFile(dns.ResolvConf)
	if err != nil {
		log.Warn("read the host's resolv.conf", "err", err)
	}
	conf := dns.ParseConf(string(text))
	r.host = func() dns.Conf { return conf }
	list := conf.Upstreams()
	return func() []netip.AddrPort { return list }
}

// Close ends all of it.
func (r *resolver) Close() error { return errors.Join(r.Server.Close(), r.close()) }

// hostResolv is what the host's resolv.conf says besides its servers.
func (r *resolver) hostResolv() engine.Resolv {
	c := r.host()
	return engine.Resolv{Search: c.Search, Options: c.Options}
}

// dialFrom reaches an upstream from the namespace bound at path. The socket is
// opened there, and stays there.
func dialFrom(ctx context.Context, path, network string, addr netip.AddrPort) (net.Conn, error) {
	ns, err := netns.Open(path)
	if err != nil {
		return nil, err
	}
	defer ns.Close() //nolint:errcheck // only read
	var c net.Conn
	err = netns.Do(ns, func() error {
		c, err = dns.DialHost(ctx, network, addr)
		return err
	})
	return c, err
}

// resolverEvent is an event of the resolver as the others are told.
func resolverEvent(e dns.Event) api.Event {
	actions := map[dns.EventKind]string{
		dns.UpstreamFailing: "fail", dns.UpstreamBack: "recover", dns.UpstreamsNew: "upstreams", dns.LimitReached: "throttle",
	}
	return api.Event{Kind: "resolver", Name: e.Sandbox, Action: actions[e.Kind], Detail: e.Detail}
}

// Put says by what a sandbox is to be found.
func (r *resolver) Put(s *api.Sandbox, networks map[string]*api.Network) {
	r.names.Put(member(s, networks))
}

// Drop says that it is not to be found any more.
func (r *resolver) Drop(sandbox string) { r.names.Drop(sandbox) }

// member is a sandbox in the words of the resolver.
func member(s *api.Sandbox, networks map[string]*api.Network) dns.Member {
	m := dns.Member{Sandbox: s.Name, Hostname: s.HostnameOrName(), Upstreams: dns.Conf{Nameservers: s.DNS}.Upstreams()}
	for _, ep := range s.Endpoints {
		n := networks[ep.Network]
		if n == nil {
			continue
		}
		a := dns.Attachment{Network: n.Name, Ifname: ep.Ifname, Gateways: ep.Gateways, Aliases: ep.Aliases, Internal: !n.ForwardsNames()}
		for _, p := range ep.Addresses {
			a.Addrs = append(a.Addrs, p.Addr())
		}
		m.Attachments = append(m.Attachments, a)
		m.FromSandbox = m.FromSandbox || n.Options[api.OptionDNSFrom] == "sandbox"
	}
	for _, h := range s.ExtraHosts {
		for _, a := range s.ExtraAddresses(h) {
			m.Hosts = append(m.Hosts, dns.Host{Name: h.Name, Addr: a})
		}
	}
	for _, p := range s.Publications {
		for i := range p.Count {
			m.Services = append(m.Services, dns.Service{Port: p.Port + i, Proto: p.Proto})
		}
	}
	return m
}

// resolve answers a question as if a sandbox had asked it, once a type. An
// address is asked for its name; without a type, a name for both kinds of
// addresses.
func (r *resolver) resolve(ctx context.Context, sandbox, name, kind string) ([]api.Answer, error) {
	types := []dns.Type{dns.TypeA, dns.TypeAAAA}
	if kind != "" {
		t, err := dns.ParseType(kind)
		if err != nil {
			return nil, api.Errorf(api.Invalid, "%w", err).WithFix("use A, AAAA, PTR, SRV, MX, TXT, ... or a number")
		}
		types = []dns.Type{t}
	}
	if a, err := netip.ParseAddr(name); err == nil {
		name = dns.ReverseName(a)
		if kind == "" {
			types = []dns.Type{dns.TypePTR}
		}
	}
	var out []api.Answer
	for _, t := range types {
		res, err := r.Resolve(ctx, sandbox, name, t)
		switch {
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
			return nil, api.Errorf(api.Timeout, "no answer yet: %w", err)
		case errors.Is(err, net.ErrClosed):
			return nil, api.Errorf(api.Unavailable, "its resolver has no sockets now: %w", err).WithFix("see: towpath sandbox inspect %s", sandbox)
		case err != nil:
			return nil, api.Errorf(api.Invalid, "%w", err)
		}
		out = append(out, answer(t, res))
	}
	return out, nil
}

func answer(t dns.Type, res dns.Resolution) api.Answer {
	a := api.Answer{
		Type: t.String(), Code: res.Code.String(), Records: []api.Record{}, Source: string(res.Source),
		Network: res.Network, Upstream: res.Upstream, AgeSeconds: res.Age.Round(time.Millisecond).Seconds(), Stale: res.Stale, Why: res.Why,
	}
	for _, r := range res.Records {
		a.Records = append(a.Records, api.Record{Name: r.Name, Type: r.Type.String(), TTL: r.TTL, Data: r.Data})
	}
	return a
}

// counts are what the resolver has counted, by sandbox and result.
func (r *resolver) counts() map[string]map[string]uint64 {
	out := map[string]map[string]uint64{}
	for sandbox, s := range r.Stats() {
		out[sandbox] = map[string]uint64{
			"local": s.Local, "cached": s.Cached, "stale": s.Stale, "forwarded": s.Forwarded, "nxdomain": s.NXDomain,
			"internal": s.Internal, "refused": s.Refused, "dropped": s.Dropped, "failed": s.Failed, "timeout": s.TimedOut, "bad": s.Bad,
		}
	}
	return out
}

// The parts of the daemon that the resolver stands for.
var (
	_ linux.Resolver = (*resolver)(nil)
	_ engine.Names   = (*resolver)(nil)
)
