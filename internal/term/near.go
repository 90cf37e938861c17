package term

import (
	"cmp"
	"slices"
	"strings"
)

// Near is the words among known that somebody who wrote word may have meant,
// the nearest first.
func Near(word string, known []string) []string {
	type candidate struct {
		word string
		far  int
	}
	var found []candidate
	for _, k := range known {
		far := distance(strings.ToLower(word), strings.ToLower(k))
		switch {
		case far <= min(max(1, len(word)/3), 3):
			found = append(found, candidate{k, far})
		case len(word) > 1 && strings.HasPrefix(k, word):
			found = append(found, candidate{k, len(k)})
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Compare(a.far, b.far) })
	var out []string
	for _, c := range found {
		out = append(out, c.word)
	}
	return out
}

// distance is the number of bytes to change, add, drop or swap with their
// neighbour on the way from a to b (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range len(b) {
			change := last[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
