// Package term lays out text for people at a terminal.
package term

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// gap is the space between two columns.
const gap = 3

// Table writes rows below a header, in columns as wide as their widest cell.
// Empty cells are shown as "-", so that every row has as many words as columns
// where cells hold none with blanks.
func Table(w io.Writer, header []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, gap, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		if _, err := fmt.Fprintln(t, strings.Join(cells(row), "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}

// cells fills the empty ones.
func cells(row []string) []string {
	out := make([]string, len(row))
	for i, c := range row {
		if c == "" {
			c = "-"
		}
		out[i] = c
	}
	return out
}
