package nft

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// priorities gives the names nft has for priorities on a hook (std_prios of
// nft's src/rule.c).
func priorities(f Family, hook string) []struct {
	name  string
	value int
} {
	type named = struct {
		name  string
		value int
	}
	switch f {
	case FamilyBridge:
		out := []named{{"filter", -200}}
		switch hook {
		case "prerouting":
			out = append(out, named{"dstnat", -300})
		case "output":
			out = append(out, named{"out", 100})
		case "postrouting":
			out = append(out, named{"srcnat", 300})
		}
		return out
	case FamilyARP, FamilyNetdev:
		return []named{{"filter", 0}}
	}
	out := []named{{"raw", -300}, {"mangle", -150}, {"filter", 0}, {"security", 50}}
	switch hook {
	case "prerouting":
		out = append(out, named{"dstnat", -100})
	case "postrouting":
		out = append(out, named{"srcnat", 100})
	}
	return out
}

// priorityReach is how far from a named priority nft still prints the name.
const priorityReach = 10

// FormatPriority writes a priority as nft does on that hook: "filter",
// "dstnat - 5", or a number.
func FormatPriority(f Family, hook string, priority int) string {
	for _, p := range priorities(f, hook) {
		switch d := priority - p.value; {
		case d == 0:
			return p.name
		case d > 0 && d <= priorityReach:
			return fmt.Sprintf("%s + %d", p.name, d)
		case d < 0 && -d <= priorityReach:
			return fmt.Sprintf("%s - %d", p.name, -d)
		}
	}
	return strconv.Itoa(priority)
}

// Header writes the line that makes a chain a base chain, as in
// `type filter hook forward priority filter; policy accept;`. It is empty for
// other chains.
func (c Chain) Header() string {
	if !c.Base() {
		return ""
	}
	return fmt.Sprintf("type %s hook %s%s priority %s; policy %s;",
		c.Type, c.Hook, c.devices(), FormatPriority(c.Family, c.Hook, c.Priority), c.Policy)
}

// devices writes the devices of a base chain; nft quotes a lone one only.
func (c Chain) devices() string {
	switch len(c.Devices) {
	case 0:
		return ""
	case 1:
		return " device " + quote(c.Devices[0])
	}
	return " devices = { " + strings.Join(c.Devices, ", ") + " }"
}

// ParseHeader reads what Header writes into a chain of the family. Without a
// policy it is accept.
func ParseHeader(f Family, text string) (Chain, error) {
	toks, err := tokenize(text)
	if err != nil {
		return Chain{}, fmt.Errorf("parse chain header %q: %w", text, err)
	}
	c := Chain{Family: f}
	for r := (&reader{toks: toks}); !r.done(); {
		if r.accept(";", "\n") {
			continue
		}
		if err := r.header(&c); err != nil {
			return Chain{}, fmt.Errorf("parse chain header %q: %w", text, err)
		}
	}
	return c, nil
}

// header reads "type ... priority N" or "policy P".
func (r *reader) header(c *Chain) error {
	if r.accept("policy") {
		if !r.peek().is("accept") && !r.peek().is("drop") {
			return r.unexpected("accept or drop")
		}
		c.Policy = r.next().text
		return nil
	}
	if err := r.expect("type"); err != nil {
		return err
	}
	c.Type, c.Policy = r.next().text, "accept"
	if err := r.expect("hook"); err != nil {
		return err
	}
	if c.Hook = r.next().text; c.Hook == "" || c.Type == "" {
		return r.unexpected("a hook")
	}
	if err := r.devices(c); err != nil {
		return err
	}
	if err := r.expect("priority"); err != nil {
		return err
	}
	return r.priority(c)
}

// devices reads `device "lo"` or `devices = { a, b }`.
func (r *reader) devices(c *Chain) error {
	if r.accept("device") {
		c.Devices = []string{r.next().text}
		return nil
	}
	if !r.accept("devices") {
		return nil
	}
	if err := r.expect("="); err != nil {
		return err
	}
	if err := r.expect("{"); err != nil {
		return err
	}
	for !r.accept("}") {
		if r.done() {
			return r.unexpected(`"}"`)
		}
		if !r.accept(",") {
			c.Devices = append(c.Devices, r.next().text)
		}
	}
	slices.Sort(c.Devices)
	return nil
}

// priority reads "filter", "filter - 10" or a number.
func (r *reader) priority(c *Chain) error {
	word := r.next().text
	for _, p := range priorities(c.Family, c.Hook) {
		if p.name != word {
			continue
		}
		c.Priority = p.value
		sign := 1
		switch {
		case r.accept("-"):
			sign = -1
		case !r.accept("+"):
			return nil
		}
		n, err := r.number(31)
		c.Priority += sign * int(n)
		return err
	}
	v, err := strconv.ParseInt(word, 10, 32)
	if err != nil {
		return fmt.Errorf("no priority %q on hook %s of family %s", word, c.Hook, c.Family)
	}
	c.Priority = int(v)
	return nil
}
