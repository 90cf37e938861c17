package draw_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/draw"
)

var update = flag.Bool("update-paths", false, "write the golden files of paths")

// TestPaths draws paths as the walk gives them, and compares with what was
// looked at by a person.
func TestPaths(t *testing.T) {
	for _, name := range []string{"masquerade", "isolation"} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("..", "walk", "testdata", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var p api.Path
			if err := json.Unmarshal(data, &p); err != nil {
				t.Fatal(err)
			}
			p.Summary = `network "front", NAT`
			var text, svg bytes.Buffer
			if err := errors.Join(draw.PathText(&text, p), draw.PathSVG(&svg, p)); err != nil {
				t.Fatal(err)
			}
			golden(t, "path-"+name+".txt", text.String())
			golden(t, "path-"+name+".svg", svg.String())
			wellFormed(t, svg.String())
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s\nrun with -update-paths if it is meant", file, diff)
	}
}

// wellFormed reads a document to its end, and finds nothing in it that would be
// fetched from elsewhere.
func wellFormed(t *testing.T, doc string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(doc))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok {
			for _, a := range e.Attr {
				if a.Name.Local == "href" || a.Name.Local == "src" {
					t.Errorf("<%s %s=%q> is elsewhere", e.Name.Local, a.Name.Local, a.Value)
				}
			}
		}
	}
}

// FuzzPath: whatever a path says, the drawing is a document.
func FuzzPath(f *testing.F) {
	f.Add("web", "eth0", "drop", "it <is> \x00 & \"gone\"", "com\nment")
	f.Fuzz(func(t *testing.T, ns, dev, action, detail, comment string) {
		p := api.Path{Reason: detail, Hops: []api.Hop{
			{NS: ns, Device: dev, Action: action, Detail: detail, Layer: api.LayerForward, Rule: &api.Rule{Comment: comment, Text: detail}, Certain: true},
			{NS: detail, Direction: api.Reply, Action: action, Detail: ns},
		}}
		var text, svg bytes.Buffer
		if err := errors.Join(draw.PathText(&text, p), draw.PathSVG(&svg, p)); err != nil {
			t.Fatal(err)
		}
		wellFormed(t, svg.String())
	})
}
