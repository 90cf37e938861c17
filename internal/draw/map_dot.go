package draw

import (
	"fmt"
	"io"
	"strings"

	"github.com/towpath/towpath/api"
)

// MapDOT writes a map in the language of Graphviz: a cluster a namespace, a
// node a device, an edge a wire.
func MapDOT(w io.Writer, m api.Map) error {
	c := newChart(m)
	var b strings.Builder
	b.WriteString("graph towpath {\n\trankdir=LR;\n\tnode [shape=box, style=rounded, fontname=\"sans-serif\", fontsize=10];\n" +
		"\tedge [fontname=\"sans-serif\", fontsize=9];\n\tgraph [fontname=\"sans-serif\", fontsize=11];\n")
	titles := map[api.MapEnd]string{}
	for _, n := range m.Networks {
		titles[api.MapEnd{Namespace: n.Namespace, Device: n.Device}] = networkTitle(n)
	}
	for i, s := range m.Namespaces {
		fmt.Fprintf(&b, "\tsubgraph %s {\n\t\tlabel=%s;\n", quoteDOT(fmt.Sprintf("cluster_%d", i)), quoteDOT(c.owner(s.ID)))
		if len(s.Devices) == 0 {
			fmt.Fprintf(&b, "\t\t%s [label=\"\", style=invis];\n", nodeDOT(api.MapEnd{Namespace: s.ID}))
		}
		for _, d := range s.Devices {
			end := api.MapEnd{Namespace: s.ID, Device: d.Name}
			label := joinLines(d.Name, titles[end], kindWords(d), prefixes(global(d.Addresses)), down(d.State))
			fmt.Fprintf(&b, "\t\t%s [label=%s];\n", nodeDOT(end), quoteDOT(label))
		}
		b.WriteString("\t}\n")
	}
	for _, wire := range m.Wires {
		style := ""
		if wire.Kind != "veth" {
			style = fmt.Sprintf(" [style=%s]", map[string]string{"port": "solid", "above": "dashed"}[wire.Kind])
		}
		fmt.Fprintf(&b, "\t%s -- %s%s;\n", nodeDOT(wire.From), nodeDOT(wire.To), style)
	}
	c.dotOutside(&b)
	c.dotTalks(&b)
	b.WriteString("}\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// dotOutside draws who is beyond the uplinks, and what is published to them.
func (c *chart) dotOutside(b *strings.Builder) {
	uplinks := c.uplinks()
	if len(uplinks) > 0 {
		b.WriteString("\toutside [shape=ellipse];\n")
	}
	for _, d := range uplinks {
		fmt.Fprintf(b, "\toutside -- %s;\n", nodeDOT(api.MapEnd{Namespace: hostID, Device: d.Name}))
	}
	for _, p := range c.ports {
		s := c.spaces[p.Namespace]
		if s == nil || len(s.Devices) == 0 || len(uplinks) == 0 {
			continue
		}
		fmt.Fprintf(b, "\toutside -- %s [dir=forward, style=dotted, label=%s];\n",
			nodeDOT(api.MapEnd{Namespace: s.ID, Device: s.Devices[0].Name}), quoteDOT(portWords(p.MapPublication)))
	}
}

// dotTalks draws who talks to whom, as many as the picture of SVG does.
func (c *chart) dotTalks(b *strings.Builder) {
	talks := c.ranked()
	if len(talks) > mapCurves {
		return
	}
	for _, t := range talks {
		from, to := c.dotEnd(t.From), c.dotEnd(t.To)
		if from == "" || to == "" || from == to {
			continue
		}
		fmt.Fprintf(b, "\t%s -- %s [dir=forward, style=dashed, color=\"#c2571a\", constraint=false, label=%s];\n",
			from, to, quoteDOT(joinLines(talkWords(t), fmt.Sprintf("×%d", t.Connections))))
	}
}

// dotEnd is the node that stands for who talks; "" where there is none.
func (c *chart) dotEnd(id string) string {
	uplinks := c.uplinks()
	switch s := c.spaces[id]; {
	case id == "outside" && len(uplinks) > 0:
		return id
	case id == hostID && len(uplinks) > 0:
		return nodeDOT(api.MapEnd{Namespace: id, Device: uplinks[0].Name})
	case s != nil && len(s.Devices) > 0:
		return nodeDOT(api.MapEnd{Namespace: id, Device: s.Devices[0].Name})
	}
	return ""
}

func nodeDOT(e api.MapEnd) string { return quoteDOT(e.Namespace + "/" + e.Device) }

// quoteDOT writes a string of DOT. A backslash would begin an escape there.
func quoteDOT(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

func joinLines(words ...string) string {
	var out []string
	for _, w := range words {
		if w != "" {
			out = append(out, w)
		}
	}
	return strings.Join(out, "\n")
}
