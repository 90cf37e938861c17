package term

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"text/template"

	"github.com/towpath/towpath/api"
)

// Format is how things are printed, as Docker's --format says it: "json",
// "table", "table TEMPLATE", or TEMPLATE, one of text/template. The zero value
// is what a command prints unless told otherwise.
type Format struct {
	template *template.Template
	table    bool
	json     bool
}

// ParseFormat reads a format. In a template \t and \n may be written as two
// characters, which shells leave alone.
func ParseFormat(s string) (Format, error) {
	rest, table := strings.CutPrefix(s, "table")
	table = table && (rest == "" || rest[0] == ' ')
	text := strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(s)
	switch {
	case s == "", s == "table":
		return Format{}, nil
	case s == "json":
		return Format{json: true}, nil
	case !strings.Contains(s, "{{"):
		return Format{}, api.Errorf(api.Invalid, "format %q is not known", s).
			WithFix("use json, table, 'table TEMPLATE' or a TEMPLATE, as in '{{.Name}}'")
	case table:
		text = strings.TrimSpace(text[len("table"):])
	}
	t, err := template.New("format").Funcs(functions()).Parse(text)
	if err != nil {
		return Format{}, api.Errorf(api.Invalid, "format %q is no template: %s", s, strings.TrimPrefix(err.Error(), "template: "))
	}
	return Format{template: t, table: table}, nil
}

// IsJSON reports whether JSON is asked for.
func (f Format) IsJSON() bool { return f.json }

// IsTemplate reports whether the template says it all.
func (f Format) IsTemplate() bool { return f.template != nil }

// IsTable reports whether the template is one of a table's rows.
func (f Format) IsTable() bool { return f.table }

// Print prints the items, one a line or one a row. heading is an item whose
// fields are the words above a table's columns.
func (f Format) Print(w io.Writer, heading any, items []any) error {
	if !f.table {
		return f.lines(w, items)
	}
	header, err := f.cells(heading)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, item := range items {
		row, err := f.cells(item)
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	return Table(w, header, rows)
}

func (f Format) lines(w io.Writer, items []any) error {
	for _, item := range items {
		line, err := f.text(item)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// cells is a row of a table.
func (f Format) cells(item any) ([]string, error) {
	line, err := f.text(item)
	return strings.Split(line, "\t"), err
}

// text is an item as the template says.
func (f Format) text(item any) (string, error) {
	var b bytes.Buffer
	err := f.template.Execute(&b, item)
	var stopped template.ExecError
	if errors.As(err, &stopped) {
		// Where text/template stopped is of no use to who typed one line.
		detail := regexp.MustCompile(`^template: .*?: executing .*? at `).ReplaceAllString(err.Error(), "")
		return "", api.Errorf(api.Invalid, "format: %s", detail).WithFix("its fields: %s", strings.Join(Fields(item), ", "))
	}
	return b.String(), err
}

// Fields are the names a template can use of an item.
func Fields(item any) []string {
	var names []string
	for _, f := range reflect.VisibleFields(reflect.TypeOf(item)) {
		if f.IsExported() && !f.Anonymous {
			names = append(names, f.Name)
		}
	}
	return names
}

// functions are those of Docker's formats.
func functions() template.FuncMap {
	return template.FuncMap{
		"json":     toJSON,
		"join":     join,
		"split":    strings.Split,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"truncate": func(s string, n int) string { return s[:min(max(n, 0), len(s))] },
		"pad": func(s string, before, after int) string {
			return strings.Repeat(" ", max(before, 0)) + s + strings.Repeat(" ", max(after, 0))
		},
	}
}

func toJSON(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSpace(b.String()), err
}

// join joins the elements of a list of any type, as they print.
func join(list any, between string) (string, error) {
	v := reflect.ValueOf(list)
	if v.Kind() != reflect.Slice {
		return "", fmt.Errorf("join wants a list, not %T", list)
	}
	parts := make([]string, v.Len())
	for i := range parts {
		parts[i] = fmt.Sprint(v.Index(i).Interface())
	}
	return strings.Join(parts, between), nil
}
