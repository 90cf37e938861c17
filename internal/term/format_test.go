package term

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
)

type row struct {
	Name   string
	Addrs  []netip.Addr
	hidden string
}

func (r row) Label(key string) string { return key + r.hidden }

func TestFormat(t *testing.T) {
	items := []any{
		row{Name: "front", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}, hidden: "!"},
		row{Name: "b<"},
	}
	for _, c := range []struct{ in, want string }{
		{"{{.Name}}", "front\nb<\n"},
		{`{{.Name}}\t{{join .Addrs ","}}`, "front\t192.0.2.1,192.0.2.2\nb<\t\n"},
		{`table {{.Name}}\t{{.Label ""}}`, "NAME    LABEL\nfront   !\nb<      -\n"},
		{`{{json .Name}}`, "\"front\"\n\"b<\"\n"},
		{`{{.Label "x"}}`, "x!\nx\n"},
		{`{{upper .Name}} {{truncate .Name 2}} {{pad .Name 1 1}}.`, "FRONT fr  front .\nB< b<  b< .\n"},
		{`{{index (split .Name "o") 0}}`, "fr\nb<\n"},
		{`{{range .Addrs}}{{println .}}{{end}}`, "192.0.2.1\n192.0.2.2\n\n\n"},
	} {
		f, err := ParseFormat(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		var b strings.Builder
		if err := f.Print(&b, row{Name: "NAME", hidden: "LABEL"}, items); err != nil || b.String() != c.want {
			t.Errorf("%s: %v\n%s", c.in, err, b.String())
		}
	}
}

func TestFormatRefuses(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"yaml", `format "yaml" is not known; use json, table`},
		{"tables", "is not known"},
		{"{{.Name", "no template: "},
		{"{{nothing .Name}}", `function "nothing" not defined`},
	} {
		if _, err := ParseFormat(c.in); api.CodeOf(err) != api.Invalid || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.in, err)
		}
	}
	for _, c := range []struct{ in, want string }{
		{"{{.Title}}", "format: <.Title>: can't evaluate field Title in type term.row; its fields: Name, Addrs"},
		{"{{.hidden}}", "hidden"},
		{`{{join .Name ","}}`, "join wants a list, not string"},
	} {
		f, err := ParseFormat(c.in)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		err = f.Print(&b, row{}, []any{row{Name: "a"}})
		if api.CodeOf(err) != api.Invalid || err == nil || !strings.Contains(err.Error(), c.want) || b.Len() > 0 {
			t.Errorf("%s: %v %q", c.in, err, b.String())
		}
	}
}

func TestFormatKinds(t *testing.T) {
	for in, want := range map[string]struct{ json, template, table bool }{
		"":                {},
		"table":           {},
		"json":            {json: true},
		"{{.Name}}":       {template: true},
		"table {{.Name}}": {template: true, table: true},
	} {
		f, err := ParseFormat(in)
		if err != nil || f.IsJSON() != want.json || f.IsTemplate() != want.template || f.IsTable() != want.table {
			t.Errorf("%q: %+v %v", in, f, err)
		}
	}
}

func TestNear(t *testing.T) {
	known := []string{"subnet", "ip-range", "internal", "icc", "ipv4", "ipv6", "interface-name"}
	for _, c := range []struct {
		word string
		want []string
	}{
		{"subnt", []string{"subnet"}},
		{"subent", []string{"subnet"}},
		{"Subnet", []string{"subnet"}},
		{"iprange", []string{"ip-range"}},
		{"ipv5", []string{"ipv4", "ipv6"}},
		{"inter", []string{"internal", "interface-name"}},
		{"publish", nil},
		{"x", nil},
		{"", nil},
	} {
		if got := Near(c.word, known); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.word, got, c.want)
		}
	}
}
