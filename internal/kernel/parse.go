package kernel

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Parse reads the page that State.String prints.
func Parse(page string) (State, error) {
	p := &parser{state: State{}}
	for n, line := range strings.Split(page, "\n") {
		if err := p.line(strings.TrimSpace(line)); err != nil {
			return nil, fmt.Errorf("parse state: line %d: %w", n+1, err)
		}
	}
	if p.block != blockNone {
		return nil, fmt.Errorf("parse state: the block of %s %s is not closed", p.table.Family, p.table.Name)
	}
	return p.state, nil
}

type block int

const (
	blockNone block = iota
	blockTable
	blockSet
	blockElements
	blockChain
)

// parser is the place on the page.
type parser struct {
	state State
	ns    string
	block block
	table Table
	set   Set
	chain Chain
}

func (p *parser) line(line string) error {
	if line == "" {
		return nil
	}
	if p.block != blockNone {
		return p.inTable(line)
	}
	if ns, ok := strings.CutPrefix(line, "netns "); ok && strings.HasSuffix(ns, ":") {
		p.ns = strings.TrimSuffix(ns, ":")
		return nil
	}
	if p.ns == "" {
		return fmt.Errorf("%q stands before the first namespace", line)
	}
	if rest, ok := strings.CutPrefix(line, "table "); ok && strings.HasSuffix(rest, " {") {
		f := strings.Fields(rest)
		if len(f) != 3 {
			return fmt.Errorf("%q is not `table FAMILY NAME {`", line)
		}
		p.table, p.block = Table{NS: p.ns, Family: f[0], Name: f[1]}, blockTable
		return nil
	}
	o, err := ParseObject(p.ns, line)
	if err != nil {
		return err
	}
	return p.state.Add(o)
}

func (p *parser) inTable(line string) error {
	switch p.block {
	case blockTable:
		return p.inTableBody(line)
	case blockSet, blockElements:
		return p.inSet(line)
	default:
		return p.inChain(line)
	}
}

func (p *parser) inTableBody(line string) error {
	f := strings.Fields(line)
	switch {
	case line == "}":
		p.block = blockNone
		return p.state.Add(p.table)
	case f[0] == "flags" && len(f) == 2:
		p.table.Flags = f[1]
	case len(f) == 3 && f[2] == "{" && (f[0] == "set" || f[0] == "map"):
		p.set, p.block = Set{NS: p.ns, Family: p.table.Family, Table: p.table.Name, Name: f[1]}, blockSet
	case len(f) == 3 && f[2] == "{" && f[0] == "chain":
		p.chain, p.block = Chain{NS: p.ns, Family: p.table.Family, Table: p.table.Name, Name: f[1]}, blockChain
	default:
		return fmt.Errorf("%q is no part of a table", line)
	}
	return nil
}

func (p *parser) inSet(line string) error {
	if elems, ok := strings.CutPrefix(line, "elements = { "); ok {
		p.block, line = blockElements, elems
	}
	if p.block == blockElements {
		text := strings.TrimSuffix(strings.TrimSuffix(line, " }"), ",")
		if strings.HasSuffix(line, " }") {
			p.block = blockSet
		}
		return p.state.Add(p.element(text))
	}
	switch {
	case line == "}" && p.set.Type == "":
		return fmt.Errorf("set %s has no type", p.set.Name)
	case line == "}":
		p.block = blockTable
		return p.state.Add(p.set)
	case strings.HasPrefix(line, "type "):
		p.set.Type = strings.TrimPrefix(line, "type ")
	case strings.HasPrefix(line, "flags "):
		p.set.Flags = strings.TrimPrefix(line, "flags ")
	default:
		return fmt.Errorf("%q is no part of a set", line)
	}
	return nil
}

func (p *parser) element(text string) Element {
	elem, value, _ := strings.Cut(text, " : ")
	return Element{NS: p.ns, Family: p.set.Family, Table: p.set.Table, Set: p.set.Name, Elem: elem, Value: value}
}

func (p *parser) inChain(line string) error {
	switch {
	case line == "}":
		p.block = blockTable
		return p.state.Add(p.chain)
	case strings.HasPrefix(line, "type ") && strings.Contains(line, " hook ") && p.chain.Rules == "":
		return p.header(line)
	default:
		p.chain.Rules += line + "\n"
	}
	return nil
}

// header reads the line of a base chain. Whether the kernel goes by the names
// of its devices is not written.
func (p *parser) header(line string) error {
	var devices []string
	p.chain.Base, devices = cutDevices(line)
	for _, dev := range devices {
		c := p.chain
		if err := p.state.Add(Hook{NS: c.NS, Family: c.Family, Table: c.Table, Chain: c.Name, Dev: dev}); err != nil {
			return err
		}
	}
	return nil
}

// ParseObject reads the String of an object other than nftables', in namespace ns.
func ParseObject(ns, line string) (Object, error) {
	f, err := fields(line)
	if err != nil {
		return nil, err
	}
	if len(f) < 2 {
		return nil, fmt.Errorf("%q names no object", line)
	}
	opts := options(f[2:])
	o, err := object(ns, f, opts)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", line, err)
	}
	if o == nil || o.String() != line {
		return nil, fmt.Errorf("%q is not an object in its usual form", line)
	}
	return o, nil
}

func object(ns string, f []string, opts map[string]string) (Object, error) {
	name := f[1]
	switch f[0] {
	case "netns":
		cookie, err := number(opts["cookie"], 64)
		return Namespace{Name: name, Cookie: cookie}, err
	case "link":
		mtu, err := number(opts["mtu"], 31)
		return Link{
			NS: ns, Name: name, Type: opts["type"], MAC: opts["address"], MTU: int(mtu), Master: opts["master"], Peer: opts["peer"],
			PeerNS: opts["netns"], PeerOf: opts["peer-of"], Hairpin: opts["hairpin"] == "on", Isolated: opts["isolated"] == "on", Locked: opts["locked"] == "on", Mark: opts["alias"],
		}, err
	case "up":
		return Up{NS: ns, Dev: name}, nil
	case "addr":
		p, err := netip.ParsePrefix(name)
		return Address{NS: ns, Dev: opts["dev"], Prefix: p}, err
	case "route":
		return route(ns, name, opts)
	case "rule":
		return rule(ns, options(f[1:]))
	case "neigh":
		ip, err := netip.ParseAddr(name)
		return Neighbour{NS: ns, Dev: opts["dev"], IP: ip, MAC: opts["lladdr"]}, err
	case "fdb":
		return Neighbour{NS: ns, Dev: opts["dev"], MAC: name, Master: opts["master"]}, nil
	case "sysctl":
		s := Sysctl{NS: ns, Name: DottedSysctl(name), Value: opts["="], Dev: opts["dev"]}
		return s, nil
	case "entry":
		if len(f) < 5 {
			return nil, nil
		}
		opts = options(f[4:])
		return Entry{NS: ns, Family: name, Table: f[2], Chain: f[3], In: opts["iifname"], Out: opts["oifname"], States: opts["ctstate"]}, nil
	case "zone":
		return Zone{NS: ns, Dev: name, Zone: opts["in"]}, nil
	case "flows":
		return flows(ns, f)
	case "socket":
		return socket(ns, f)
	}
	return nil, nil
}

// socket reads "socket PROTO ADDRESS [to ADDRESS] [from PREFIX,...]".
func socket(ns string, f []string) (Object, error) {
	if len(f) < 3 {
		return nil, nil
	}
	opts := options(f[3:])
	addr, count, err := parseSocket(f[2])
	s := Socket{NS: ns, Proto: f[1], Addr: addr, Count: count, From: opts["from"]}
	if to, passed := opts["to"]; err == nil && passed {
		s.To, err = netip.ParseAddrPort(to)
	}
	return s, err
}

// flows reads "flows of ADDRESS" and "flows PROTO ADDRESS to ADDRESS".
func flows(ns string, f []string) (Object, error) {
	switch {
	case len(f) == 3 && f[1] == "of":
		addr, err := netip.ParseAddr(f[2])
		return Flows{NS: ns, Addr: addr}, err
	case len(f) == 5:
		at, err := netip.ParseAddrPort(f[2])
		if err != nil {
			return nil, err
		}
		to, err := netip.ParseAddrPort(f[4])
		return Misled{NS: ns, Proto: f[1], At: at, To: to}, err
	}
	return nil, nil
}

func route(ns, dst string, opts map[string]string) (Object, error) {
	r := Route{NS: ns, Dev: opts["dev"], Local: opts["type"] == "local"}
	var err error
	if dst == "default" {
		dst = "0.0.0.0/0"
	}
	if r.Dst, err = netip.ParsePrefix(dst); err != nil {
		return nil, err
	}
	if via, ok := opts["via"]; ok {
		if r.Via, err = netip.ParseAddr(via); err != nil {
			return nil, err
		}
	}
	table, err := number(opts["table"], 32)
	if err != nil {
		return nil, err
	}
	metric, err := number(opts["metric"], 32)
	r.Table, r.Metric = uint32(table), uint32(metric)
	return r, err
}

func rule(ns string, opts map[string]string) (Object, error) {
	from, err := netip.ParsePrefix(opts["from"])
	if err != nil {
		return nil, err
	}
	table, err := number(opts["lookup"], 32)
	if err != nil {
		return nil, err
	}
	priority, err := number(opts["priority"], 32)
	return Rule{NS: ns, From: from, Table: uint32(table), Priority: uint32(priority)}, err
}

func number(s string, bits int) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	return strconv.ParseUint(s, 10, bits)
}

// options pairs up names and values; a word without a value stands alone.
func options(f []string) map[string]string {
	m := map[string]string{}
	for i := 0; i+1 < len(f); i += 2 {
		m[f[i]] = f[i+1]
	}
	return m
}

// fields splits at spaces, except within Go-quoted strings, which it unquotes.
func fields(line string) ([]string, error) {
	var out []string
	for line = strings.TrimLeft(line, " "); line != ""; line = strings.TrimLeft(line, " ") {
		if line[0] != '"' {
			word, rest, _ := strings.Cut(line, " ")
			out, line = append(out, word), rest
			continue
		}
		quoted, err := strconv.QuotedPrefix(line)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		word, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		out, line = append(out, word), line[len(quoted):]
	}
	return out, nil
}
