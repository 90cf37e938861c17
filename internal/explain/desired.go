package explain

import (
	"slices"

	"github.com/towpath/towpath/internal/author"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// Desired is the machine as Towpath wants it: its own things as they are
// planned, and beside them what is not its own on the host, as that is.
func Desired(planned, seen machine.Host) machine.Host {
	want, have := planned.Space(machine.HostName), seen.Space(machine.HostName)
	if want == nil || have == nil {
		return planned
	}
	foreign := map[string]bool{}
	for _, l := range have.Links {
		if want.Link(l.Name) == nil && (l.PeerNS == "" || planned.Space(l.PeerNS) == nil) {
			foreign[l.Name] = true
			want.Links = append(want.Links, l)
		}
	}
	for _, a := range have.Addresses {
		if foreign[a.Dev] {
			want.Addresses = append(want.Addresses, a)
		}
	}
	for _, r := range have.Routes {
		if foreign[r.Dev] || r.Dev == "" {
			want.Routes = append(want.Routes, r)
		}
	}
	for _, r := range have.Rules {
		if !slices.Contains(want.Rules, r) {
			want.Rules = append(want.Rules, r)
		}
	}
	for k, v := range have.Sysctls {
		if _, planned := want.Sysctls[k]; !planned {
			want.Sysctls[k] = v
		}
	}
	want.Tables = append(want.Tables, slices.DeleteFunc(slices.Clone(have.Tables), func(t nft.TableDef) bool {
		return author.Of(author.Rule{Table: t.Name}) == author.Towpath
	})...)
	want.Legacy = have.Legacy
	for _, s := range seen.Spaces {
		if planned.Space(s.Name) == nil {
			planned.Spaces = append(planned.Spaces, s)
			continue
		}
		p := planned.Space(s.Name)
		p.Inode, p.Listeners, p.Holders = s.Inode, s.Listeners, s.Holders
	}
	return planned
}
