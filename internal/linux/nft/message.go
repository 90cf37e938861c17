//go:build linux

package nft

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/mdlayher/netlink"
	rules "github.com/towpath/towpath/internal/nft"
)

// message is one message of nf_tables, without its netlink header.
type message struct {
	typ    uint8 // msgNew..., msgDel..., msgGet...
	flags  netlink.HeaderFlags
	family rules.Family
	attrs  []byte
}

// attributes encodes attributes in network order.
func attributes(fn func(*netlink.AttributeEncoder)) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	fn(ae)
	return ae.Encode()
}

// nested is ae.Nested in network order, for functions that cannot fail.
func nested(ae *netlink.AttributeEncoder, typ uint16, fn func(*netlink.AttributeEncoder)) {
	ae.Nested(typ, func(n *netlink.AttributeEncoder) error {
		n.ByteOrder = binary.BigEndian
		fn(n)
		return nil
	})
}

// hooks gives the hook numbers of a family (netfilter.h, netfilter_bridge.h,
// netfilter_arp.h, netfilter_netdev.h).
func hooks(f rules.Family) []string {
	switch f {
	case rules.FamilyNetdev:
		return []string{"ingress", "egress"}
	case rules.FamilyARP:
		return []string{"input", "output", "forward"}
	}
	return []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
}

func hookNumber(f rules.Family, name string) (uint32, error) {
	for i, h := range hooks(f) {
		if h == name {
			return uint32(i), nil
		}
	}
	return 0, fmt.Errorf("encode chain: no hook %q in family %s", name, f)
}

func hookName(f rules.Family, n uint32) string {
	if names := hooks(f); int(n) < len(names) {
		return names[n]
	}
	return fmt.Sprintf("hook#%d", n)
}

// policies gives the NF_* numbers of chain policies.
var policies = []string{"drop", "accept"}

// encodeTable writes a table.
func encodeTable(t rules.Table) ([]byte, error) {
	return attributes(func(ae *netlink.AttributeEncoder) {
		ae.String(attrTableName, t.Name)
		ae.Uint32(attrTableFlags, uint32(t.Flags))
	})
}

// encodeDevices names devices of a chain that is there, to be added or deleted.
// The kernel knows the rest of its hook.
func encodeDevices(c rules.Chain, devices []string) ([]byte, error) {
	return attributes(func(ae *netlink.AttributeEncoder) {
		ae.String(attrChainTable, c.Table)
		ae.String(attrChainName, c.Name)
		nested(ae, attrChainHook, func(n *netlink.AttributeEncoder) { deviceList(n, devices) })
	})
}

func deviceList(n *netlink.AttributeEncoder, devices []string) {
	nested(n, attrHookDevs, func(d *netlink.AttributeEncoder) {
		for _, name := range devices {
			d.String(attrDeviceName, name)
		}
	})
}

// encodeChain writes a chain, a base chain with its devices.
func encodeChain(c rules.Chain) ([]byte, error) {
	var hook uint32
	if c.Base() {
		var err error
		if hook, err = hookNumber(c.Family, c.Hook); err != nil {
			return nil, err
		}
	}
	return attributes(func(ae *netlink.AttributeEncoder) {
		ae.String(attrChainTable, c.Table)
		ae.String(attrChainName, c.Name)
		if !c.Base() {
			return
		}
		nested(ae, attrChainHook, func(n *netlink.AttributeEncoder) {
			n.Uint32(attrHookNum, hook)
			n.Uint32(attrHookPriority, uint32(int32(c.Priority)))
			if len(c.Devices) > 0 {
				deviceList(n, c.Devices)
			}
		})
		if c.Policy == policies[0] {
			ae.Uint32(attrChainPolicy, 0)
		} else {
			ae.Uint32(attrChainPolicy, 1)
		}
		ae.String(attrChainType, c.Type)
	})
}

// encodeSet writes a set. For an anonymous one id is its number in the
// transaction and count the number of its elements.
func encodeSet(s rules.Set, id uint32, count int) ([]byte, error) {
	keyType, keyLen, err := typeOf(s.KeyType, s.KeyLen)
	if err != nil {
		return nil, fmt.Errorf("encode set %s: %w", s.Name, err)
	}
	dataType, dataLen := rules.VerdictDataType, 0
	if s.Map && !s.Verdicts() {
		if dataType, dataLen, err = typeOf(s.DataType, s.DataLen); err != nil {
			return nil, fmt.Errorf("encode map %s: %w", s.Name, err)
		}
	}
	return attributes(func(ae *netlink.AttributeEncoder) {
		ae.String(attrSetTable, s.Table)
		ae.String(attrSetName, s.Name)
		ae.Uint32(attrSetFlags, setFlags(s, count > 0))
		ae.Uint32(attrSetKeyType, keyType)
		ae.Uint32(attrSetKeyLen, uint32(keyLen))
		if s.Map {
			ae.Uint32(attrSetDataType, dataType)
			if !s.Verdicts() {
				ae.Uint32(attrSetDataLen, uint32(dataLen))
			}
		}
		ae.Uint32(attrSetID, id)
		if s.Timeout != 0 {
			ae.Uint64(attrSetTimeout, uint64(s.Timeout.Milliseconds()))
		}
		encodeDesc(ae, s, count)
		ae.Bytes(attrSetUserData, setUserData(s))
	})
}

// encodeDesc writes the sizes the kernel picks a set backend by. An interval
// set of several parts needs the length of each (NFT_SET_CONCAT, pipapo).
func encodeDesc(ae *netlink.AttributeEncoder, s rules.Set, count int) {
	size := uint32(count)
	if size == 0 {
		size = s.Size
	}
	fields := concatFields(s)
	if size == 0 && fields == nil {
		return
	}
	nested(ae, attrSetDesc, func(n *netlink.AttributeEncoder) {
		if size != 0 {
			n.Uint32(attrDescSize, size)
		}
		if fields == nil {
			return
		}
		nested(n, attrDescConcat, func(l *netlink.AttributeEncoder) {
			for _, length := range fields {
				nested(l, attrListElem, func(f *netlink.AttributeEncoder) { f.Uint32(attrFieldLen, uint32(length)) })
			}
		})
	})
}

// concatFields gives the lengths of the parts of the key of an interval set of
// several parts; nil for any other set.
func concatFields(s rules.Set) []int {
	parts := strings.Split(s.KeyType, " . ")
	if len(parts) < 2 || s.Flags&rules.SetInterval == 0 {
		return nil
	}
	out := make([]int, len(parts))
	for i, name := range parts {
		out[i], _ = rules.TypeLen(name)
	}
	return out
}

// setFlags gives the NFT_SET_* bits.
func setFlags(s rules.Set, anonymous bool) uint32 {
	flags := uint32(s.Flags)
	if s.Map {
		flags |= setMap
	}
	if concatFields(s) != nil {
		flags |= setConcat
	}
	if anonymous {
		flags |= setAnonymous | setConstant
	}
	return flags
}

// typeOf gives nft's number of a type and the length of its values.
func typeOf(names string, given int) (uint32, int, error) {
	id, ok := rules.TypeID(names)
	if !ok {
		return 0, 0, fmt.Errorf("unknown type %q", names)
	}
	length, ok := rules.TypeLen(names)
	if !ok {
		length = given
	}
	if length == 0 {
		return 0, 0, fmt.Errorf("type %q has no length", names)
	}
	return id, length, nil
}

// setUserData tells nft the byte order of keys and values; without it nft
// lists interface names as empty strings.
func setUserData(s rules.Set) []byte {
	out := udata(nil, udataKeyByteOrder, byteOrder(s.KeyType, s.Flags))
	if s.Map {
		out = udata(out, udataDataByteOrder, byteOrder(s.DataType, 0))
	}
	return out
}

// byteOrder gives nft's number of a byte order, in host order.
func byteOrder(names string, flags rules.SetFlags) []byte {
	order := uint32(byteOrderBig)
	switch {
	case strings.Contains(names, " . "):
		order = 0 // a concatenation has none of its own
	case rules.HostOrder(names, flags):
		order = byteOrderHost
	}
	return binary.NativeEndian.AppendUint32(nil, order)
}

// udata appends one field of user data.
func udata(b []byte, typ byte, value []byte) []byte {
	return append(append(b, typ, byte(len(value))), value...)
}

// udataField finds a field of user data.
func udataField(b []byte, typ byte) ([]byte, bool) {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == typ {
			return b[2 : 2+int(b[1])], true
		}
		b = b[2+int(b[1]):]
	}
	return nil, false
}

// commentData is the user data of a comment, which ends with a zero byte.
func commentData(typ byte, comment string) ([]byte, error) {
	if len(comment) > rules.MaxComment {
		return nil, fmt.Errorf("encode comment of %d bytes: at most %d", len(comment), rules.MaxComment)
	}
	return udata(nil, typ, append([]byte(comment), 0)), nil
}

// commentOf is the inverse of commentData.
func commentOf(b []byte, typ byte) string {
	value, _ := udataField(b, typ)
	return strings.TrimRight(string(value), "\x00")
}

// encodeRule writes a rule. setIDs are the numbers of its anonymous sets in
// this transaction, in the order of their lookups.
func encodeRule(c rules.Chain, r rules.Rule, setIDs []uint32) ([]byte, error) {
	comment, err := commentData(udataRuleComment, r.Comment)
	if err != nil {
		return nil, err
	}
	return attributes(func(ae *netlink.AttributeEncoder) {
		ae.String(attrRuleTable, c.Table)
		ae.String(attrRuleChain, c.Name)
		nested(ae, attrRuleExprs, func(l *netlink.AttributeEncoder) {
			next := 0
			for _, e := range r.Exprs {
				var id uint32
				if look, ok := e.(rules.Lookup); ok && look.Anon != nil {
					id = setIDs[next]
					next++
					look.Set = anonymousName(look)
					e = look
				}
				nested(l, attrListElem, func(n *netlink.AttributeEncoder) { marshalExpr(n, e, id) })
			}
		})
		if r.Comment != "" {
			ae.Bytes(attrRuleUserData, comment)
		}
	})
}

// anonymousName is the template the kernel numbers anonymous sets by.
func anonymousName(l rules.Lookup) string {
	if l.IsMap {
		return "__map%d"
	}
	return "__set%d"
}
