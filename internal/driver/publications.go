package driver

import (
	"fmt"
	"iter"
	"strings"

	"github.com/tidwall/btree"

	"github.com/towpath/towpath/api"
)

// Publications are those of a host, which may be very many: a copy of them costs
// the same for one as for ten thousand, and so does finding what is asked for.
// The zero value has none, and takes none.
type Publications struct {
	byID      *btree.Map[string, *api.Publication]
	bySandbox *btree.Map[string, *api.Publication] // by sandbox and ID
	byPort    *btree.Map[string, *api.Publication] // by protocol, block of ports, and ID
	byService *btree.Map[string, *api.Publication] // by sandbox, its ports, protocol, and ID
}

// NewPublications gives those of the list.
func NewPublications(list ...*api.Publication) Publications {
	tree := func() *btree.Map[string, *api.Publication] { return &btree.Map[string, *api.Publication]{} }
	p := Publications{tree(), tree(), tree(), tree()}
	for _, one := range list {
		p.Put(one)
	}
	return p
}

// Clone gives a copy that can be changed, as the original can.
func (p Publications) Clone() Publications {
	return Publications{p.byID.Copy(), p.bySandbox.Copy(), p.byPort.Copy(), p.byService.Copy()}
}

// Len is how many there are.
func (p Publications) Len() int {
	if p.byID == nil {
		return 0
	}
	return p.byID.Len()
}

// Get gives the one of an ID, or nil.
func (p Publications) Get(id string) *api.Publication {
	if p.byID == nil {
		return nil
	}
	found, _ := p.byID.Get(id)
	return found
}

// Put adds one, or replaces the one of its ID.
func (p Publications) Put(one *api.Publication) {
	id := one.ID()
	p.Delete(id)
	p.byID.Set(id, one)
	p.bySandbox.Set(one.Sandbox+"/"+id, one)
	p.byService.Set(service(one)+id, one)
	for block := range blocks(one) {
		p.byPort.Set(block+id, one)
	}
}

// Delete takes one out, if it is there.
func (p Publications) Delete(id string) {
	one := p.Get(id)
	if one == nil {
		return
	}
	p.byID.Delete(id)
	p.bySandbox.Delete(one.Sandbox + "/" + id)
	p.byService.Delete(service(one) + id)
	for block := range blocks(one) {
		p.byPort.Delete(block + id)
	}
}

// All gives all by ID.
func (p Publications) All() iter.Seq2[string, *api.Publication] { return under(p.byID, "") }

// Of gives those of a sandbox, by ID.
func (p Publications) Of(sandbox string) iter.Seq[*api.Publication] {
	return values(under(p.bySandbox, sandbox+"/"))
}

// Services gives, of each port that a sandbox serves, one publication that counts,
// however many there are.
func (p Publications) Services(sandbox string, counts func(*api.Publication) bool) iter.Seq[*api.Publication] {
	return func(yield func(*api.Publication) bool) {
		for from := sandbox + "/"; p.byService != nil; {
			var found *api.Publication
			p.byService.Ascend(from, func(key string, one *api.Publication) bool {
				if strings.HasPrefix(key, sandbox+"/") && counts(one) {
					found = one
				}
				return found == nil && strings.HasPrefix(key, sandbox+"/")
			})
			if found == nil || !yield(found) {
				return
			}
			from = service(found) + "\xff" // behind all IDs
		}
	}
}

// service is the beginning of the keys in byService of a publication.
func service(p *api.Publication) string {
	return fmt.Sprintf("%s/%05d/%d/%s/", p.Sandbox, p.Port, p.Count, p.Proto)
}

// Overlapping gives one that wants a port of the host which another wants too,
// or nil.
func (p Publications) Overlapping(other *api.Publication) *api.Publication {
	for block := range blocks(other) {
		for _, one := range under(p.byPort, block) {
			if other.Overlaps(one) {
				return one
			}
		}
	}
	return nil
}

// portsABlock is how many ports a key of byPort stands for: what shares one has
// to be looked through, and a long range needs many.
const portsABlock = 64

// blocks are the beginnings of the keys in byPort of a publication.
func blocks(p *api.Publication) iter.Seq[string] {
	return func(yield func(string) bool) {
		last := (int(p.HostPort) + max(int(p.Count), 1) - 1) / portsABlock
		for b := int(p.HostPort) / portsABlock; b <= last; b++ {
			if !yield(fmt.Sprintf("%s/%04d/", p.Proto, b)) {
				return
			}
		}
	}
}

// under gives what has keys that begin with prefix.
func under[T any](m *btree.Map[string, T], prefix string) iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		if m == nil {
			return
		}
		m.Ascend(prefix, func(key string, one T) bool {
			return strings.HasPrefix(key, prefix) && yield(key, one)
		})
	}
}

func values[T any](all iter.Seq2[string, T]) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, one := range all {
			if !yield(one) {
				return
			}
		}
	}
}
