package main

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/towpath/towpath/api"
)

// namingFlags are those that say how names are resolved in a sandbox, in the
// spellings of Docker and of Podman.
func namingFlags(f *pflag.FlagSet, n *api.Naming) {
	f.Var(&list[netip.Addr]{to: &n.DNS, parse: parseServer, kind: "IP"}, "dns", "server to ask for what is no sandbox's name (repeatable; default the host's)")
	f.Var(&list[string]{to: &n.DNSSearch, parse: verbatim, kind: "DOMAIN"}, "dns-search", "domain to try short names in (repeatable; . is none; default the host's)")
	f.Var(&list[string]{to: &n.DNSOptions, parse: verbatim, kind: "OPTION"}, "dns-opt", "option of resolv.conf (repeatable; default the host's)")
	f.Var(&list[string]{to: &n.DNSOptions, parse: verbatim, kind: "OPTION"}, "dns-option", "the same as --dns-opt")
	_ = f.MarkHidden("dns-option") // fails only where there is no such flag
	f.Var(&extraHosts{to: &n.ExtraHosts}, "add-host", "a line of /etc/hosts, as NAME:IP or NAME:host-gateway (repeatable)")
}

func parseServer(s string) (netip.Addr, error) {
	a, err := parseAddr(s)
	if err != nil {
		return a, err
	}
	return a, api.ValidServer(a)
}

// extraHosts is the flag --add-host, one value of which may be several hosts.
type extraHosts struct {
	to    *[]api.ExtraHost
	texts []string
}

// Set adds hosts.
func (e *extraHosts) Set(s string) error {
	hosts, err := api.ParseExtraHosts(s)
	if err != nil {
		return err
	}
	*e.to = append(*e.to, hosts...)
	e.texts = append(e.texts, s)
	return nil
}

// String is the hosts as they were written.
func (e *extraHosts) String() string { return strings.Join(e.texts, ",") }

// Type is the form of a host in the help text.
func (e *extraHosts) Type() string { return "NAME:IP" }

// told prints the warnings of an answer, each once, unless they are in the document that
// is printed.
func (c *cli) told(warnings []string) {
	if c.json {
		return
	}
	for i, w := range warnings {
		if !slices.Contains(warnings[:i], w) {
			c.warn("%s", w)
		}
	}
}

// pageOf is the text of a file out of its lines.
func pageOf(lines []string) string { return strings.Join(lines, "\n") + "\n" }

// ownNaming reports whether something of it was asked for.
func ownNaming(n api.Naming) bool {
	return len(n.DNS)+len(n.DNSSearch)+len(n.DNSOptions)+len(n.ExtraHosts) > 0
}

// hostFiles are /etc/hosts and /etc/resolv.conf of a command in the host's own
// namespace that is to see some names differently, as in Docker: the host's
// files, with what was asked for in place of the host's.
func hostFiles(n api.Naming) (hosts, resolv string, err error) {
	text, err := os.ReadFile("/etc/hosts")
	if err != nil && !os.IsNotExist(err) {
		return "", "", fmt.Errorf("read hosts: %w", err)
	}
	hosts = string(text)
	if hosts != "" && !strings.HasSuffix(hosts, "\n") {
		hosts += "\n"
	}
	for _, h := range n.ExtraHosts {
		addr := h.Address
		if addr == api.HostGateway {
			addr = "127.0.0.1" // it is on the host
		}
		hosts += addr + "\t" + h.Name + "\n"
	}
	text, err = os.ReadFile("/etc/resolv.conf")
	if err != nil && !os.IsNotExist(err) {
		return "", "", fmt.Errorf("read resolv.conf: %w", err)
	}
	return hosts, hostResolv(string(text), n), nil
}

// hostResolv replaces those lines of a resolv.conf that n has its own for.
func hostResolv(text string, n api.Naming) string {
	var servers []string
	for _, a := range n.DNS {
		servers = append(servers, "nameserver "+a.String())
	}
	own := map[string][]string{"nameserver": servers}
	if search := slices.DeleteFunc(slices.Clone(n.DNSSearch), func(d string) bool { return d == "." }); len(search) > 0 {
		own["search"] = []string{"search " + strings.Join(search, " ")}
	}
	if len(n.DNSOptions) > 0 {
		own["options"] = []string{"options " + strings.Join(n.DNSOptions, " ")}
	}
	var out []string
	for line := range strings.Lines(text) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "domain" { // the older word for a search list of one
			word = "search"
		}
		if replaced := len(own[word]) > 0 || word == "search" && len(n.DNSSearch) > 0; !replaced {
			out = append(out, strings.TrimRight(line, "\n"))
		}
	}
	for _, word := range []string{"nameserver", "search", "options"} {
		out = append(out, own[word]...)
	}
	return pageOf(out)
}
