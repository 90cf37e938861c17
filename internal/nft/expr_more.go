package nft

// CTKey is an NFT_CT_* number.
type CTKey uint32

// Keys of CT that the package uses by name.
const (
	CTKeyState     CTKey = 0
	CTKeyDirection CTKey = 1
	CTKeyStatus    CTKey = 2
	CTKeyMark      CTKey = 3
	CTKeyL3Proto   CTKey = 7
	CTKeyProtocol  CTKey = 10
	CTKeyProtoSrc  CTKey = 11
	CTKeyProtoDst  CTKey = 12
	CTKeyZone      CTKey = 17
	CTKeySrcIP     CTKey = 19
	CTKeyDstIP     CTKey = 20
	CTKeySrcIP6    CTKey = 21
	CTKeyDstIP6    CTKey = 22
)

// CT loads a fact of the packet's connection into DReg, or sets it from SReg.
type CT struct {
	DReg         Reg   `nla:"1,be32,omitzero"`
	Key          CTKey `nla:"2,be32"`
	Direction    uint8 `nla:"3,u8,if=HasDirection"` // 0 original, 1 reply
	SReg         Reg   `nla:"4,be32,omitzero"`
	HasDirection bool  `nla:"-"`
}

// NATType is an NFT_NAT_* number.
type NATType uint32

// Source and destination translation.
const (
	SNAT NATType = 0
	DNAT NATType = 1
)

// NATFlags are the NF_NAT_RANGE_* bits that nft shows. Those that follow from
// the registers (addresses given, ports given) are left out here; the kernel
// sets them itself.
type NATFlags uint32

// Flags of NAT, Masq and Redir.
const (
	NATRandom      NATFlags = 0x4
	NATPersistent  NATFlags = 0x8
	NATFullyRandom NATFlags = 0x10
	// NATImplied are the bits the kernel derives from the registers.
	NATImplied NATFlags = 0x3
)

// NAT translates to the address and port in the registers; 0 means none.
type NAT struct {
	Type     NATType  `nla:"1,be32"`
	Family   Family   `nla:"2,be32"`
	AddrMin  Reg      `nla:"3,be32,omitzero"`
	AddrMax  Reg      `nla:"4,be32,omitzero"` // 0: the same as AddrMin
	ProtoMin Reg      `nla:"5,be32,omitzero"`
	ProtoMax Reg      `nla:"6,be32,omitzero"` // 0: the same as ProtoMin
	Flags    NATFlags `nla:"7,be32,omitzero"`
}

// Masq translates the source to the address of the outgoing interface.
type Masq struct {
	Flags    NATFlags `nla:"1,be32,omitzero"`
	ProtoMin Reg      `nla:"2,be32,omitzero"`
	ProtoMax Reg      `nla:"3,be32,omitzero"`
}

// Redir translates the destination to the host itself.
type Redir struct {
	ProtoMin Reg      `nla:"1,be32,omitzero"`
	ProtoMax Reg      `nla:"2,be32,omitzero"`
	Flags    NATFlags `nla:"3,be32,omitzero"`
}

// Notrack keeps connection tracking off the packet.
type Notrack struct{}

// RejectType is an NFT_REJECT_* number.
type RejectType uint32

// How a packet is refused. RejectICMPX picks ICMP or ICMPv6 by the packet.
const (
	RejectICMP  RejectType = 0
	RejectTCP   RejectType = 1
	RejectICMPX RejectType = 2
)

// Reject drops the packet and tells the sender.
type Reject struct {
	Type RejectType `nla:"1,be32"`
	Code uint8      `nla:"2,u8"`
}

// Log writes the packet to the kernel log, or to a netlink group.
type Log struct {
	Group      uint16 `nla:"1,be16,if=HasGroup"`
	Prefix     string `nla:"2,string,omitzero"`
	SnapLen    uint32 `nla:"3,be32,omitzero"` // bytes
	QThreshold uint16 `nla:"4,be16,omitzero"` // packets
	Level      uint32 `nla:"5,be32,unless=HasGroup"`
	Flags      uint32 `nla:"6,be32,omitzero"`
	HasGroup   bool   `nla:"-"`
}

// Limit goes on while packets (Type 0) or bytes (Type 1) stay below Rate per
// Unit seconds, with a Burst. Flags 1 turns it round ("over").
type Limit struct {
	Rate  uint64 `nla:"1,be64"`
	Unit  uint64 `nla:"2,be64"` // seconds
	Burst uint32 `nla:"3,be32"`
	Type  uint32 `nla:"4,be32"`
	Flags uint32 `nla:"5,be32"`
}

// Unknown is an expression the package has no struct for, such as the xt
// matches of iptables-nft. Raw is the content of NFTA_EXPR_DATA.
type Unknown struct {
	Name string
	Raw  []byte
}

// ExprName implements Expr.
func (Meta) ExprName() string { return "meta" }

// ExprName implements Expr.
func (Payload) ExprName() string { return "payload" }

// ExprName implements Expr.
func (Cmp) ExprName() string { return "cmp" }

// ExprName implements Expr.
func (Bitwise) ExprName() string { return "bitwise" }

// ExprName implements Expr.
func (Byteorder) ExprName() string { return "byteorder" }

// ExprName implements Expr.
func (Range) ExprName() string { return "range" }

// ExprName implements Expr.
func (Lookup) ExprName() string { return "lookup" }

// ExprName implements Expr.
func (Immediate) ExprName() string { return "immediate" }

// ExprName implements Expr.
func (Verdict) ExprName() string { return "immediate" }

// ExprName implements Expr.
func (Counter) ExprName() string { return "counter" }

// ExprName implements Expr.
func (FIB) ExprName() string { return "fib" }

// ExprName implements Expr.
func (CT) ExprName() string { return "ct" }

// ExprName implements Expr.
func (NAT) ExprName() string { return "nat" }

// ExprName implements Expr.
func (Masq) ExprName() string { return "masq" }

// ExprName implements Expr.
func (Redir) ExprName() string { return "redir" }

// ExprName implements Expr.
func (Notrack) ExprName() string { return "notrack" }

// ExprName implements Expr.
func (Reject) ExprName() string { return "reject" }

// ExprName implements Expr.
func (Log) ExprName() string { return "log" }

// ExprName implements Expr.
func (Limit) ExprName() string { return "limit" }

// ExprName implements Expr.
func (u Unknown) ExprName() string { return u.Name }
