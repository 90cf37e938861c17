package kernel

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// State is a set of objects, wanted or observed.
type State map[Key]Object

// NewState makes a State. Two objects with one key are a mistake of the planner.
func NewState(objects ...Object) State {
	s := make(State, len(objects))
	for _, o := range objects {
		s[o.Key()] = o
	}
	return s
}

// Add puts objects in, and fails when one is there already and different: a
// key has one owner.
func (s State) Add(objects ...Object) error {
	for _, o := range objects {
		k := o.Key()
		if was, ok := s[k]; ok && was != o {
			return fmt.Errorf("add %s: is already %s", k, was)
		}
		s[k] = o
	}
	return nil
}

// Clone is a copy that can be changed.
func (s State) Clone() State { return maps.Clone(s) }

// Keys are all keys, in the order of the page that String prints.
func (s State) Keys() []Key {
	keys := slices.Collect(maps.Keys(s))
	slices.SortFunc(keys, compareKeys)
	return keys
}

// compareKeys puts the host's namespace first, kinds in the order in which one
// builds them, names by alphabet.
func compareKeys(a, b Key) int {
	return cmp.Or(
		-cmp.Compare(btoi(a.NS == Host), btoi(b.NS == Host)),
		cmp.Compare(a.NS, b.NS),
		cmp.Compare(rank(a.Kind), rank(b.Kind)),
		cmp.Compare(a.Name, b.Name),
	)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// rank orders kinds for building; removal goes the other way.
func rank(k Kind) int {
	return slices.Index([]Kind{
		KindNamespace, KindSysctl, KindLink, KindUp, KindAddress, KindNeighbour, KindRoute, KindRule,
		KindTable, KindSet, KindChain, KindElement, KindHook, KindEntry, KindZone, KindSocket, KindFlows,
	}, k)
}

// Apply carries out ops on the data as the kernel would: what a removed object
// takes with it goes too. An op that the kernel would refuse is an error and
// changes nothing.
func (s State) Apply(ops ...Op) error {
	for _, op := range ops {
		if err := s.apply(op); err != nil {
			return fmt.Errorf("apply %s: %w", op, err)
		}
	}
	return nil
}

func (s State) apply(op Op) error {
	k := op.Object.Key()
	_, there := s[k]
	switch op.Verb {
	case Delete:
		if !there {
			return fmt.Errorf("%s does not exist", k)
		}
		if user, used := s.user(op.Object); used {
			return fmt.Errorf("%s is in use by %s", k, user)
		}
		s.remove(k)
		return nil
	case Create:
		if there {
			return fmt.Errorf("%s exists", k)
		}
	case Change:
		if !there {
			return fmt.Errorf("%s does not exist", k)
		}
	}
	for _, need := range append(op.Object.Parents(), op.Object.Needs()...) {
		if _, ok := s[need]; !ok {
			return fmt.Errorf("%s needs %s, which does not exist", k, need)
		}
	}
	s[k] = op.Object
	return nil
}

// user finds what makes the kernel refuse a removal: a socket keeps its
// namespace, an element's jump keeps its chain.
func (s State) user(o Object) (Key, bool) {
	if _, isLink := o.(Link); isLink {
		return Key{}, false // a bridge lets its ports go
	}
	for k, other := range s {
		if slices.Contains(other.Needs(), o.Key()) {
			return k, true
		}
	}
	return Key{}, false
}

// remove deletes k with all that has it as a parent, and frees the ports of a bridge.
func (s State) remove(k Key) {
	delete(s, k)
	for other, o := range s {
		if slices.Contains(o.Parents(), k) {
			s.remove(other)
		} else if l, ok := o.(Link); ok && slices.Contains(o.Needs(), k) {
			l.Master = ""
			s[other] = l
		}
	}
}
