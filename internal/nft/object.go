package nft

import (
	"fmt"
	"slices"
	"time"
)

// Family is an address family of nftables, with the kernel's NFPROTO number
// (include/uapi/linux/netfilter.h).
type Family uint8

// The families a table can have.
const (
	FamilyInet   Family = 1
	FamilyIP     Family = 2
	FamilyARP    Family = 3
	FamilyNetdev Family = 5
	FamilyBridge Family = 7
	FamilyIP6    Family = 10
)

// familyNames lists the families with nft's names.
var familyNames = []symbol{
	{"inet", uint64(FamilyInet)},
	{"ip", uint64(FamilyIP)},
	{"arp", uint64(FamilyARP)},
	{"netdev", uint64(FamilyNetdev)},
	{"bridge", uint64(FamilyBridge)},
	{"ip6", uint64(FamilyIP6)},
}

// String gives nft's name of the family.
func (f Family) String() string {
	if name, ok := symbolName(familyNames, uint64(f)); ok {
		return name
	}
	return fmt.Sprintf("family#%d", uint8(f))
}

// ParseFamily is the inverse of Family.String.
func ParseFamily(name string) (Family, error) {
	v, ok := symbolValue(familyNames, name)
	if !ok {
		return 0, fmt.Errorf("parse family %q: unknown", name)
	}
	return Family(v), nil
}

// TableFlags are the NFT_TABLE_F_* bits.
type TableFlags uint32

// Flags of a table. Owner: only the socket that made the table may change it.
// Persist (kernel 6.9): an owned table outlives its socket.
const (
	TableDormant TableFlags = 1
	TableOwner   TableFlags = 2
	TablePersist TableFlags = 4
)

// Table names a table.
type Table struct {
	Family Family
	Name   string
	Flags  TableFlags
}

// Chain describes a chain; Hook is empty for a chain reached by jumps only.
type Chain struct {
	Family   Family
	Table    string
	Name     string
	Type     string   // filter, nat or route; base chains only
	Hook     string   // prerouting, input, forward, output, postrouting, ingress, egress
	Priority int      // lower runs first; base chains only
	Policy   string   // accept or drop; base chains only
	Devices  []string // netdev family and inet ingress only, sorted
}

// Base reports whether the kernel itself enters the chain.
func (c Chain) Base() bool { return c.Hook != "" }

// SetFlags are the NFT_SET_* bits a user chooses; those for maps and
// concatenations follow from the types.
type SetFlags uint32

// Flags of a set. Dynamic: rules add elements.
const (
	SetConstant SetFlags = 0x2
	SetInterval SetFlags = 0x4
	SetTimeout  SetFlags = 0x10
	SetDynamic  SetFlags = 0x20
)

// Set describes a named set, or a map if Map is true.
type Set struct {
	Family   Family
	Table    string
	Name     string
	Map      bool
	KeyType  string // nft's type names, joined by " . "
	DataType string // maps only; "verdict" for verdict maps
	Flags    SetFlags
	Timeout  time.Duration // default of elements; SetTimeout only
	Size     uint32        // most elements; 0: no limit
	KeyLen   int           // bytes; only where KeyType does not tell (foreign sets)
	DataLen  int           // bytes; likewise
}

// Verdicts reports whether the values of the map are verdicts.
func (s Set) Verdicts() bool { return s.Map && s.DataType == typeVerdict }

// Element is one element of a set or map. Key, KeyEnd and Data have the
// kernel's layout: the parts of a concatenation start on 4-byte boundaries and
// are padded behind.
type Element struct {
	Key      []byte
	KeyEnd   []byte        // last key of a range, inclusive; nil for one value
	Data     []byte        // value of a map
	Verdict  Verdict       // value of a verdict map
	Comment  string        // at most 128 bytes
	Timeout  time.Duration // 0: the set's default
	CatchAll bool          // matches what no other element does; no Key
}

// AnonymousSet is the content of a set written inside a rule. It lives and dies
// with the rule. Elements are sorted.
type AnonymousSet struct {
	KeyType  string
	DataType string // "" for a set
	Flags    SetFlags
	KeyLen   int // bytes; only where KeyType does not tell
	DataLen  int // bytes; likewise
	Elements []Element
}

// Set gives the description of the anonymous set.
func (a *AnonymousSet) Set() Set {
	return Set{
		Map: a.DataType != "", KeyType: a.KeyType, DataType: a.DataType,
		Flags: a.Flags, KeyLen: a.KeyLen, DataLen: a.DataLen,
	}
}

// Rule is a list of expressions run in order; the first that does not match
// ends the rule.
type Rule struct {
	Family  Family // of its table: decides what a header match implies
	Exprs   []Expr
	Comment string // at most 128 bytes
	Handle  uint64 // the kernel's number; 0: not in the kernel
}

// TableDef is a table with all its content.
type TableDef struct {
	Table
	Sets   []SetDef
	Chains []ChainDef
}

// SetDef is a set with its elements.
type SetDef struct {
	Set
	Elements []Element
}

// ChainDef is a chain with its rules in order.
type ChainDef struct {
	Chain
	Rules []Rule
}

// Chain finds a chain by name; nil if there is none.
func (t *TableDef) Chain(name string) *ChainDef {
	i := slices.IndexFunc(t.Chains, func(c ChainDef) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &t.Chains[i]
}

// Set finds a set or map by name; nil if there is none.
func (t *TableDef) Set(name string) *SetDef {
	i := slices.IndexFunc(t.Sets, func(s SetDef) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &t.Sets[i]
}

// declarations lists the sets without their elements.
func (t *TableDef) declarations() []Set {
	out := make([]Set, len(t.Sets))
	for i, s := range t.Sets {
		out[i] = s.Set
	}
	return out
}
