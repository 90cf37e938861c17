package doctor

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestManual: the page in docs/ has the table of checks as it is in the program.
func TestManual(t *testing.T) {
	page, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, c := range Checks() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", c.Name, c.Looks, c.Means)
	}
	if !strings.Contains(string(page), b.String()) {
		t.Errorf("docs/doctor.md must have these rows:\n%s", b.String())
	}
}
