package kernel

import (
	"cmp"
	"slices"
	"strings"
)

// Verb is what an op does.
type Verb byte

// The verbs, as `towpath diff` prints them.
const (
	Create Verb = '+'
	Delete Verb = '-'
	Change Verb = '~'
)

// Op is one step towards the wanted state. Object is the wanted one, for
// Delete the one that is there; Old is what Change replaces.
type Op struct {
	Verb   Verb
	Object Object
	Old    Object
	Phase  Phase // set by Diff
}

// String is "+ web: link eth0 type veth ...".
func (o Op) String() string {
	return string(o.Verb) + " " + o.Object.Key().NS + ": " + o.Object.String()
}

// Phase orders ops so that no prefix of them allows what neither the state
// before nor the one after allows. Links and rules cannot change atomically
// together, but all rules of a namespace change in one transaction; so what is
// to go is unplugged first, then the host's rules change, then what is to come
// is plugged in, guarded, and raised at last.
type Phase int

// The phases, in order.
const (
	Reserve    Phase = iota // ports of the host are taken, or found taken
	Withdraw                // sockets, rules, routes, neighbours, addresses, entries go
	Unplug                  // links and namespaces go
	Rules                   // one nftables transaction
	Forwarding              // sysctls of the host, forwarding among them
	Plug                    // namespaces and links come, down; addresses
	Guard                   // one nftables transaction a sandbox; hooks on links that had to be there
	Raise                   // links go up
	Reach                   // routes, rules, sockets and entries come
	Unguard                 // a table that is not replaced goes last
)

// phase of an op; replaced says that a removed table is made anew.
func (o Op) phase(replaced bool) Phase {
	kind := o.Object.Key().Kind
	switch {
	case kind == KindTable && o.Verb == Delete && !replaced:
		return Unguard
	case kind.IsNFT() && (o.Object.Key().NS != Host || kind == KindHook && o.Verb != Delete && len(o.Object.Needs()) > 0):
		return Guard
	case kind.IsNFT():
		return Rules
	case kind == KindFlows && o.Verb == Delete:
		return Unguard // last: nothing can make them anew
	case kind == KindSocket && o.Object.Key().NS == Host:
		// A port that somebody else has is found before any rule takes its
		// traffic away, and one of ours is held as long as a rule leads to it.
		if o.Verb == Delete {
			return Unguard
		}
		return Reserve
	case o.Verb == Delete && (kind == KindLink || kind == KindNamespace || kind == KindUp):
		return Unplug
	case o.Verb == Delete:
		return Withdraw
	case kind == KindSysctl && o.Object.(Sysctl).Dev == "" && o.Object.Key().NS == Host:
		return Forwarding
	case kind == KindUp:
		return Raise
	case kind == KindRoute || kind == KindRule || kind == KindSocket || kind == KindEntry || kind == KindZone:
		return Reach
	default:
		return Plug
	}
}

// Diff is the ops that make want out of have, in a legal and safe order.
// Applying them to have gives want, except that a sysctl which is no longer
// wanted stays as it is: it cannot be removed, and its former value is part of
// the wanted state where it matters.
func Diff(have, want State) []Op {
	gone := vanished(have, want)
	var ops []Op
	for k, h := range have {
		if _, wanted := want[k]; gone[k] == goneByItself || (!wanted && gone[k] == stays) {
			if _, isSysctl := h.(Sysctl); !isSysctl {
				ops = append(ops, Op{Verb: Delete, Object: h})
			}
		}
	}
	for k, w := range want {
		h, there := have[k]
		switch {
		case !there || gone[k] != stays:
			ops = append(ops, Op{Verb: Create, Object: w})
		case h != w || needsLost(w, gone) || addressLost(w, gone):
			ops = append(ops, Op{Verb: Change, Object: w, Old: h})
		}
	}
	sortOps(ops)
	return ops
}

// fate of an object of the state before.
type fate byte

const (
	stays          fate = iota
	goneByItself        // removed by an op of its own
	goneWithParent      // taken along by another
)

// vanished says what of have will not outlive the diff.
func vanished(have, want State) map[Key]fate {
	gone := map[Key]fate{}
	for k, h := range have {
		w, wanted := want[k]
		if _, isSysctl := h.(Sysctl); isSysctl {
			continue
		}
		if !wanted {
			gone[k] = goneByItself
		} else if victim, must := replaced(h, w); must {
			gone[victim] = goneByItself
		}
	}
	lost := func(k Key) bool { return gone[k] != stays }
	lostNS := func(k Key) bool { return k.Kind == KindNamespace && lost(k) }
	for changed := true; changed; {
		changed = false
		for k, h := range have {
			if gone[k] != goneWithParent && slices.ContainsFunc(h.Parents(), lost) {
				gone[k], changed = goneWithParent, true
			}
			if gone[k] == stays && slices.ContainsFunc(h.Needs(), lostNS) {
				gone[k], changed = goneByItself, true
			}
		}
	}
	return gone
}

// replaced says which object has to be made anew because h cannot be changed
// into w in place. A set or hook that changes its type takes the whole table:
// rules refer to it, and a table is exchanged atomically.
func replaced(h, w Object) (Key, bool) {
	switch h := h.(type) {
	case Link:
		w, ok := w.(Link)
		// A port that went from one bridge to another in place, up all the
		// while, would join two networks for a moment.
		moved := h.Master != "" && h.Master != w.Master
		return h.Key(), !ok || moved || h.Type != w.Type || h.Peer != w.Peer || h.PeerNS != w.PeerNS || h.PeerOf != w.PeerOf
	case Namespace:
		return h.Key(), h != w
	case Table:
		// The kernel gives an owner to a table that persists and has none, and to
		// no other (nf_tables_updtable).
		return h.Key(), h.Flags == "" && h != w
	case Set:
		return h.Parents()[0], h != w
	case Chain:
		w, ok := w.(Chain)
		return h.Parents()[0], !ok || h.Base != w.Base
	default:
		return Key{}, false
	}
}

// needsLost reports whether something o refers to is made anew, so that the
// reference has to be set again: the ports of a bridge.
func needsLost(o Object, gone map[Key]fate) bool {
	return slices.ContainsFunc(o.Needs(), func(k Key) bool { return gone[k] != stays })
}

// addressLost reports whether o is a route whose link loses an address: the
// kernel drops the routes over it with the last one of the family, so they are
// set again.
func addressLost(o Object, gone map[Key]fate) bool {
	r, isRoute := o.(Route)
	if !isRoute {
		return false
	}
	for k, f := range gone {
		if f != stays && k.NS == r.NS && k.Kind == KindAddress && strings.HasSuffix(k.Name, " dev "+r.Dev) {
			return true
		}
	}
	return false
}

// ranked is an op with what it is sorted by, which is not to be found out anew for
// each comparison.
type ranked struct {
	Op
	key   Key
	level int
}

func sortOps(ops []Op) {
	list := make([]ranked, len(ops))
	made := map[Key]bool{}
	for i, op := range ops {
		list[i] = ranked{op, op.Object.Key(), level(op)}
		if op.Verb == Create {
			made[list[i].key] = true
		}
	}
	for i := range list {
		list[i].Phase = list[i].phase(made[list[i].key])
	}
	slices.SortFunc(list, func(a, b ranked) int {
		if n := cmp.Or(cmp.Compare(a.Phase, b.Phase), compareSpaces(a, b), compareVerbs(a.Op, b.Op), cmp.Compare(a.level, b.level)); n != 0 {
			return n
		}
		return compareKeys(a.key, b.key)
	})
	for i := range list {
		ops[i] = list[i].Op
	}
}

// compareSpaces keeps apart what is one transaction a namespace.
func compareSpaces(a, b ranked) int {
	if a.Phase != Guard {
		return 0
	}
	return cmp.Compare(a.key.NS, b.key.NS)
}

// compareVerbs puts removals before the rest within a phase.
func compareVerbs(a, b Op) int {
	return -cmp.Compare(btoi(a.Verb == Delete), btoi(b.Verb == Delete))
}

// level orders ops within a phase: bridges before their ports, the host's end
// of a pair before the sandbox's, and the host's end raised first, since a
// route over a link without carrier can be refused; removal the other way round.
func level(o Op) int {
	n := 4 * rank(o.Object.Key().Kind)
	switch obj := o.Object.(type) {
	case Link:
		if obj.Master != "" {
			n++
		}
		if obj.PeerOf != "" {
			n += 2
		}
		if was, ok := o.Old.(Link); ok && obj.Locked && !was.Locked && obj.Master == was.Master { // once the bridge knows its MAC
			n = 4*rank(KindNeighbour) + 1
		}
	case Up:
		n += btoi(obj.NS != Host)
	case Sysctl:
		if obj.Dev != "" {
			n = 4*rank(KindLink) + 3
		}
	}
	if o.Verb == Delete {
		return -n
	}
	return n
}
