package nft

import (
	"encoding/binary"
	"net/netip"
)

// u32 gives a number in host order, as metadata is stored.
func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// ifname gives a name padded to IFNAMSIZ, zeros for no device.
func ifname(d *Device) []byte {
	out := make([]byte, 16)
	if d != nil {
		copy(out, d.Name)
	}
	return out
}

// meta loads or sets metadata.
func (r *run) meta(e Meta) status {
	if e.SReg != 0 {
		return r.setMeta(e)
	}
	switch e.Key {
	case MetaIIf, MetaIIfName, MetaIIfType, MetaIIfGroup:
		return r.device(e, r.p.IIf, e.Key == MetaIIf, e.Key == MetaIIfName, e.Key == MetaIIfType)
	case MetaOIf, MetaOIfName, MetaOIfType, MetaOIfGroup:
		return r.device(e, r.p.OIf, e.Key == MetaOIf, e.Key == MetaOIfName, e.Key == MetaOIfType)
	case MetaMark:
		return r.put(e.DReg, u32(r.p.Mark))
	case MetaPriority:
		return r.put(e.DReg, u32(r.p.Priority))
	case MetaLen:
		return r.put(e.DReg, u32(uint32(len(r.p.Network))))
	case MetaProtocol:
		return r.put(e.DReg, binary.BigEndian.AppendUint16(nil, r.p.Protocol))
	case MetaPktType:
		return r.put(e.DReg, []byte{r.p.PktType})
	case MetaNFProto:
		return r.put(e.DReg, []byte{uint8(r.nfproto())})
	case MetaL4Proto:
		_, proto, ok, _ := r.p.transport()
		if !ok {
			return mismatch()
		}
		return r.put(e.DReg, []byte{proto})
	case MetaSKUID, MetaSKGID:
		id := r.p.UID
		if e.Key == MetaSKGID {
			id = r.p.GID
		}
		if id == nil {
			return mismatch()
		}
		return r.put(e.DReg, u32(*id))
	}
	t, _ := describeMeta(e)
	return unknown("%s (key %d) is not known of the packet", t.text, e.Key)
}

// device loads a fact of an interface. Without one, index and name are zero,
// and all else does not match (nft_meta_get_eval).
func (r *run) device(e Meta, d *Device, index, name, kind bool) status {
	switch {
	case name:
		return r.put(e.DReg, ifname(d))
	case d == nil && index:
		return r.put(e.DReg, u32(0))
	case d == nil:
		return mismatch()
	case index:
		return r.put(e.DReg, u32(uint32(d.Index)))
	case kind:
		return r.put(e.DReg, binary.NativeEndian.AppendUint16(nil, d.Type))
	}
	return r.put(e.DReg, u32(d.Group))
}

// nfproto gives what "meta nfproto" reads: the family of the packet in the IP
// hooks, of the hook elsewhere.
func (r *run) nfproto() Family {
	if f := r.table.Family; f == FamilyNetdev || f == FamilyBridge || f == FamilyARP {
		return f
	}
	return r.ipFamily()
}

func (r *run) setMeta(e Meta) status {
	v, ok := r.slice(e.SReg, 4)
	if !ok {
		return unknown("register %d out of range", e.SReg)
	}
	switch e.Key {
	case MetaMark:
		r.p.Mark = binary.NativeEndian.Uint32(v)
	case MetaPriority:
		r.p.Priority = binary.NativeEndian.Uint32(v)
	case MetaPktType:
		r.p.PktType = v[0]
	case MetaNFTrace:
	default:
		return unknown("meta key %d cannot be set", e.Key)
	}
	return goOn()
}

// payload loads or writes bytes of the packet. What lies beyond its end, and
// the transport header of a later fragment, does not match.
func (r *run) payload(e Payload) status {
	b, ok := r.header(e.Base)
	if e.Base > BaseTransport {
		return unknown("payload base %d", e.Base)
	}
	end := int(e.Offset) + int(e.Len)
	if !ok || end > len(b) || e.Len > uint32(len(r.regs)) {
		return mismatch()
	}
	part := b[e.Offset:end]
	if e.SReg == 0 {
		return r.put(e.DReg, part)
	}
	v, ok := r.slice(e.SReg, int(e.Len))
	if !ok {
		return unknown("register %d out of range", e.SReg)
	}
	copy(part, v)
	return goOn()
}

// header gives the packet from one of its headers on.
func (r *run) header(base PayloadBase) ([]byte, bool) {
	switch base {
	case BaseLink:
		return r.p.Link, r.p.Link != nil
	case BaseNetwork:
		return r.p.Network, true
	}
	offset, _, ok, fragment := r.p.transport()
	if !ok || fragment || offset > len(r.p.Network) {
		return nil, false
	}
	return r.p.Network[offset:], true
}

// ct loads or sets facts of the connection.
func (r *run) ct(e CT) status {
	ct := r.p.CT
	if e.SReg != 0 {
		return r.setCT(e)
	}
	if e.Key == CTKeyState {
		if ct == nil {
			return r.put(e.DReg, u32(StateInvalid))
		}
		return r.put(e.DReg, u32(ct.State))
	}
	if ct == nil || ct.State&(StateInvalid|StateUntracked) != 0 {
		return mismatch()
	}
	switch e.Key {
	case CTKeyDirection:
		return r.put(e.DReg, []byte{boolByte(ct.Reply)})
	case CTKeyStatus:
		return r.put(e.DReg, u32(ct.Status))
	case CTKeyMark:
		return r.put(e.DReg, u32(ct.Mark))
	case CTKeyZone:
		return r.put(e.DReg, binary.NativeEndian.AppendUint16(nil, ct.Zone))
	}
	return r.tuple(e, ct)
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// tuple loads an address or port of one direction of the connection.
func (r *run) tuple(e CT, ct *Conntrack) status {
	tuple := ct.Original
	if e.Direction == 1 {
		tuple = ct.Answer
	}
	t, known := describeCT(e)
	if !known || !e.HasDirection || !tuple.Src.IsValid() {
		return unknown("connection key %d is not known of the packet", e.Key)
	}
	var addr netip.Addr
	switch e.Key {
	case CTKeyL3Proto:
		return r.put(e.DReg, []byte{uint8(r.ipFamily())})
	case CTKeyProtocol:
		return r.put(e.DReg, []byte{ct.Protocol})
	case CTKeyProtoSrc:
		return r.put(e.DReg, binary.BigEndian.AppendUint16(nil, tuple.Src.Port()))
	case CTKeyProtoDst:
		return r.put(e.DReg, binary.BigEndian.AppendUint16(nil, tuple.Dst.Port()))
	case CTKeySrcIP, CTKeySrcIP6:
		addr = tuple.Src.Addr()
	case CTKeyDstIP, CTKeyDstIP6:
		addr = tuple.Dst.Addr()
	default:
		return unknown("%s is not known of the packet", t.text)
	}
	if addr.BitLen() != 8*t.typ.size {
		return mismatch()
	}
	return r.put(e.DReg, addr.AsSlice())
}

func (r *run) setCT(e CT) status {
	v, ok := r.slice(e.SReg, 4)
	if !ok || e.Key != CTKeyMark {
		return unknown("connection key %d cannot be set", e.Key)
	}
	if r.p.CT != nil {
		r.p.CT.Mark = binary.NativeEndian.Uint32(v)
	}
	return goOn()
}

// fib asks the packet's FIB about the address.
func (r *run) fib(e FIB) status {
	addr := r.p.destination()
	if e.Flags&FIBSAddr != 0 {
		addr = r.p.source()
	}
	if !addr.IsValid() {
		return mismatch()
	}
	if r.p.FIB == nil {
		return unknown("no routing table to ask about %s", addr)
	}
	a, ok := r.p.FIB(addr, e.Flags)
	if !ok {
		return unknown("the route of %s is not known", addr)
	}
	present := e.Flags&FIBPresent != 0
	switch {
	case e.Result == FIBResultType:
		return r.put(e.DReg, u32(a.Type))
	case present:
		return r.put(e.DReg, []byte{boolByte(a.OIf.Index != 0)})
	case e.Result == FIBResultOIf:
		return r.put(e.DReg, u32(uint32(a.OIf.Index)))
	}
	return r.put(e.DReg, ifname(&a.OIf))
}
