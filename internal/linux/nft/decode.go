//go:build linux

package nft

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	rules "github.com/towpath/towpath/internal/nft"
)

// decodeTable reads NFT_MSG_NEWTABLE.
func decodeTable(o object) (rules.Table, error) {
	t := rules.Table{Family: o.family}
	ad, err := decoder(o.attrs)
	if err != nil {
		return t, err
	}
	for ad.Next() {
		switch ad.Type() {
		case attrTableName:
			t.Name = ad.String()
		case attrTableFlags:
			t.Flags = rules.TableFlags(ad.Uint32())
		}
	}
	return t, ad.Err()
}

// decodeChain reads NFT_MSG_NEWCHAIN.
func decodeChain(o object) (rules.Chain, error) {
	ch := rules.Chain{Family: o.family}
	ad, err := decoder(o.attrs)
	if err != nil {
		return ch, err
	}
	devices := map[string]bool{}
	for ad.Next() {
		switch ad.Type() {
		case attrChainTable:
			ch.Table = ad.String()
		case attrChainName:
			ch.Name = ad.String()
		case attrChainType:
			ch.Type = ad.String()
		case attrChainPolicy:
			ch.Policy = policies[ad.Uint32()&1]
		case attrChainHook:
			ad.Nested(func(n *netlink.AttributeDecoder) error { return decodeHook(n, &ch, devices) })
		}
	}
	ch.Devices = slices.Sorted(maps.Keys(devices))
	return ch, ad.Err()
}

func decodeHook(n *netlink.AttributeDecoder, ch *rules.Chain, devices map[string]bool) error {
	n.ByteOrder = binary.BigEndian
	for n.Next() {
		switch n.Type() {
		case attrHookNum:
			ch.Hook = hookName(ch.Family, n.Uint32())
		case attrHookPriority:
			ch.Priority = int(int32(n.Uint32()))
		case attrHookDev:
			devices[n.String()] = true
		case attrHookDevs:
			n.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					devices[d.String()] = true
				}
				return nil
			})
		}
	}
	return nil
}

// kernelSet is a set with what the plain data leaves out.
type kernelSet struct {
	rules.Set
	anonymous bool
}

// decodeRule reads NFT_MSG_NEWRULE.
func decodeRule(o object) (rules.Rule, error) {
	r := rules.Rule{Family: o.family}
	ad, err := decoder(o.attrs)
	if err != nil {
		return r, err
	}
	for ad.Next() {
		switch ad.Type() {
		case attrRuleHandle:
			r.Handle = ad.Uint64()
		case attrRuleUserData:
			r.Comment = commentOf(ad.Bytes(), udataRuleComment)
		case attrRuleExprs:
			ad.Nested(func(l *netlink.AttributeDecoder) error {
				for l.Next() {
					e, err := decodeExpr(l.Bytes())
					if err != nil {
						return err
					}
					r.Exprs = append(r.Exprs, e)
				}
				return nil
			})
		}
	}
	return r, ad.Err()
}

// decodeExpr reads one element of NFTA_RULE_EXPRESSIONS.
func decodeExpr(b []byte) (rules.Expr, error) {
	ad, err := decoder(b)
	if err != nil {
		return nil, err
	}
	var name string
	var data []byte
	for ad.Next() {
		switch ad.Type() {
		case attrExprName:
			name = ad.String()
		case attrExprData:
			data = ad.Bytes()
		}
	}
	if err := ad.Err(); err != nil {
		return nil, err
	}
	return unmarshalExpr(name, data)
}

// keyName names a type of the kernel, or raw bytes.
func keyName(id uint32, length int) (string, int) {
	name := rules.TypeName(id)
	if known, ok := rules.TypeLen(name); ok && known == length && !strings.Contains(name, "#") {
		return name, 0
	}
	return name, length
}

// decodeSet reads NFT_MSG_NEWSET.
func decodeSet(o object) (kernelSet, error) {
	s := kernelSet{Set: rules.Set{Family: o.family}}
	ad, err := decoder(o.attrs)
	if err != nil {
		return s, err
	}
	var keyType, dataType uint32
	var keyLen, dataLen int
	for ad.Next() {
		switch ad.Type() {
		case attrSetTable:
			s.Table = ad.String()
		case attrSetName:
			s.Name = ad.String()
		case attrSetFlags:
			s.setFlags(ad.Uint32())
		case attrSetKeyType:
			keyType = ad.Uint32()
		case attrSetKeyLen:
			keyLen = int(ad.Uint32())
		case attrSetDataType:
			dataType = ad.Uint32()
		case attrSetDataLen:
			dataLen = int(ad.Uint32())
		case attrSetTimeout:
			s.Timeout = time.Duration(ad.Uint64()) * time.Millisecond
		case attrSetDesc:
			ad.Nested(func(n *netlink.AttributeDecoder) error { return decodeDesc(n, &s) })
		}
	}
	s.KeyType, s.KeyLen = keyName(keyType, keyLen)
	switch {
	case s.Map && dataType == rules.VerdictDataType:
		s.DataType = "verdict"
	case s.Map:
		s.DataType, s.DataLen = keyName(dataType, dataLen)
	}
	return s, ad.Err()
}

func decodeDesc(n *netlink.AttributeDecoder, s *kernelSet) error {
	n.ByteOrder = binary.BigEndian
	for n.Next() {
		if n.Type() == attrDescSize {
			s.Size = n.Uint32()
		}
	}
	return nil
}

// setFlags keeps the bits a user chooses.
func (s *kernelSet) setFlags(bits uint32) {
	s.anonymous = bits&setAnonymous != 0
	s.Map = bits&setMap != 0
	s.Flags = rules.SetFlags(bits) & (rules.SetConstant | rules.SetInterval | rules.SetTimeout | rules.SetDynamic)
}
