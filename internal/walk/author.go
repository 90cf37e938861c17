package walk

import (
	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/author"
	"github.com/towpath/towpath/internal/machine"
)

// Author says which program wrote a rule of a namespace that may be nil, for one
// that was not read.
func Author(s *machine.Space, r *api.Rule) string {
	known := author.Rule{Table: r.Table, Chain: r.Chain, Comment: r.Comment, Text: r.Text, Policy: r.Text == "" && r.Handle == 0}
	if s == nil {
		return author.Of(known)
	}
	for _, t := range s.Filters() {
		if t.Name != r.Table || t.Family.String() != r.Family {
			continue
		}
		for _, c := range t.Chains {
			known.Chains = append(known.Chains, c.Name)
		}
	}
	return author.Of(known)
}
