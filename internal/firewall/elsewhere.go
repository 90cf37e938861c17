package firewall

import (
	"bytes"
	"slices"

	"github.com/towpath/towpath/internal/nft"
)

// elsewhere reports whether a rule of a table of one family is about addresses
// that no sample has. Lists of thousands of machines are common, and each verb
// asks. What comes before must have no effect and be decided.
func elsewhere(f nft.Family, r *nft.Rule) bool {
	var has [][]byte // what of the samples is in register 1, where that is known
	for _, e := range r.Exprs {
		switch x := e.(type) {
		case nft.Payload:
			if x.SReg != 0 {
				return false
			}
			has = nil
			if x.DReg == 1 {
				has = addresses(f, x)
			}
		case nft.Bitwise:
			if has = masked(has, x); has == nil {
				return false
			}
		case nft.Cmp:
			if x.SReg == 1 && x.Op == nft.CmpEq && has != nil && !slices.ContainsFunc(has, func(a []byte) bool { return bytes.Equal(a, x.Data) }) {
				return true
			}
		case nft.Meta:
			if x.SReg != 0 {
				return false
			}
			has = nil
		default:
			return false
		}
	}
	return false
}

// addresses are those of all samples, where a load is of a whole address.
func addresses(f nft.Family, x nft.Payload) [][]byte {
	v4, v6 := f == nft.FamilyIP, f == nft.FamilyIP6
	switch {
	case x.Base != nft.BaseNetwork:
		return nil
	case v4 && x.Len == 4 && (x.Offset == 12 || x.Offset == 16):
	case v6 && x.Len == 16 && (x.Offset == 8 || x.Offset == 24):
	default:
		return nil
	}
	var out [][]byte
	for _, s := range families(v4, v6) {
		out = append(out, s.container.AsSlice(), s.other.AsSlice(), s.host.AsSlice(), s.somebody.AsSlice())
	}
	return out
}

// masked puts a mask on addresses; nil where it is no mask.
func masked(has [][]byte, x nft.Bitwise) [][]byte {
	if has == nil || x.Op != 0 || x.SReg != 1 || x.DReg != 1 || len(x.Mask) != len(has[0]) || len(x.Xor) != len(x.Mask) || bytes.Count(x.Xor, []byte{0}) != len(x.Xor) {
		return nil
	}
	out := make([][]byte, len(has))
	for i, a := range has {
		out[i] = bytes.Clone(a)
		for j := range a {
			out[i][j] &= x.Mask[j]
		}
	}
	return out
}
