package nft

// Expr is one expression of a rule. The struct tags name the attribute of
// include/uapi/linux/netfilter/nf_tables.h that holds each field:
// `nla:"number,kind[,option]"` with
//
//	kinds    be64 be32 be16 u8 string data (NFTA_DATA_VALUE inside)
//	options  omitzero: not sent when zero
//	         if=F, unless=F: sent when the bool field F is true, false
type Expr interface {
	// ExprName is the kernel's name of the expression.
	ExprName() string
}

// Reg is a register as the kernel reports it: 0 is the verdict, 1 to 4 are
// 16 bytes each, 8 to 23 are 4 bytes each, and 1 begins where 8 does. A
// register that starts on a 16-byte boundary has its small number.
type Reg uint32

// MetaKey is an NFT_META_* number.
type MetaKey uint32

// Keys of Meta that the package uses by name.
const (
	MetaLen      MetaKey = 0
	MetaProtocol MetaKey = 1
	MetaPriority MetaKey = 2
	MetaMark     MetaKey = 3
	MetaIIf      MetaKey = 4
	MetaOIf      MetaKey = 5
	MetaIIfName  MetaKey = 6
	MetaOIfName  MetaKey = 7
	MetaIIfType  MetaKey = 8
	MetaOIfType  MetaKey = 9
	MetaSKUID    MetaKey = 10
	MetaSKGID    MetaKey = 11
	MetaNFTrace  MetaKey = 12
	MetaNFProto  MetaKey = 15
	MetaL4Proto  MetaKey = 16
	MetaBriIIf   MetaKey = 17
	MetaBriOIf   MetaKey = 18
	MetaPktType  MetaKey = 19
	MetaIIfGroup MetaKey = 21
	MetaOIfGroup MetaKey = 22
)

// Meta loads packet metadata into DReg, or sets it from SReg.
type Meta struct {
	DReg Reg     `nla:"1,be32,omitzero"`
	Key  MetaKey `nla:"2,be32"`
	SReg Reg     `nla:"3,be32,omitzero"`
}

// PayloadBase is an NFT_PAYLOAD_*_HEADER number.
type PayloadBase uint32

// The headers a Payload offset counts from.
const (
	BaseLink      PayloadBase = 0
	BaseNetwork   PayloadBase = 1
	BaseTransport PayloadBase = 2
)

// Payload loads Len bytes of the packet into DReg, or writes them from SReg
// and repairs the checksum at CsumOffset.
type Payload struct {
	DReg       Reg         `nla:"1,be32,omitzero"`
	Base       PayloadBase `nla:"2,be32"`
	Offset     uint32      `nla:"3,be32"` // bytes
	Len        uint32      `nla:"4,be32"` // bytes
	SReg       Reg         `nla:"5,be32,omitzero"`
	CsumType   uint32      `nla:"6,be32,omitzero"` // 0 none, 1 internet
	CsumOffset uint32      `nla:"7,be32,omitzero"` // bytes, in the same header
	CsumFlags  uint32      `nla:"8,be32,omitzero"` // 1: the transport pseudo header has it too
}

// CmpOp is an NFT_CMP_* number.
type CmpOp uint32

// Comparisons. Those of order compare bytes as one big-endian number.
const (
	CmpEq CmpOp = iota
	CmpNeq
	CmpLt
	CmpLte
	CmpGt
	CmpGte
)

// Cmp goes on if the register compares so with Data.
type Cmp struct {
	SReg Reg    `nla:"1,be32"`
	Op   CmpOp  `nla:"2,be32"`
	Data []byte `nla:"3,data"`
}

// Bitwise computes DReg = (SReg & Mask) ^ Xor when Op is 0; other operations
// (shifts, two registers) are kept but not understood.
type Bitwise struct {
	SReg  Reg    `nla:"1,be32"`
	DReg  Reg    `nla:"2,be32"`
	Len   uint32 `nla:"3,be32"` // bytes
	Mask  []byte `nla:"4,data"`
	Xor   []byte `nla:"5,data"`
	Op    uint32 `nla:"6,be32,omitzero"`
	Data  []byte `nla:"7,data"`
	SReg2 Reg    `nla:"8,be32,omitzero"`
}

// Byteorder swaps Len bytes in units of Size. Op is 0 for network to host, 1
// for host to network.
type Byteorder struct {
	SReg Reg    `nla:"1,be32"`
	DReg Reg    `nla:"2,be32"`
	Op   uint32 `nla:"3,be32"`
	Len  uint32 `nla:"4,be32"`
	Size uint32 `nla:"5,be32"`
}

// Range goes on if the register is within (Op CmpEq) or outside (CmpNeq) From
// to To.
type Range struct {
	SReg Reg    `nla:"1,be32"`
	Op   CmpOp  `nla:"2,be32"`
	From []byte `nla:"3,data"`
	To   []byte `nla:"4,data"`
}

// Lookup goes on if the register is in the set (with Invert: is not). For a
// map (IsMap) the value goes to DReg, 0 meaning that it is a verdict to follow.
type Lookup struct {
	Set    string        `nla:"1,string"` // "" when Anon is set
	SReg   Reg           `nla:"2,be32"`
	DReg   Reg           `nla:"3,be32,if=IsMap"`
	Invert bool          `nla:"5,be32,omitzero"`
	IsMap  bool          `nla:"-"`
	Anon   *AnonymousSet `nla:"-"` // the content of a set written in the rule
}

// Immediate loads constant bytes into a register.
type Immediate struct {
	DReg Reg    `nla:"1,be32"`
	Data []byte `nla:"2,data"`
}

// VerdictCode is an NF_* or NFT_* verdict number.
type VerdictCode int32

// The verdicts.
const (
	Drop     VerdictCode = 0
	Accept   VerdictCode = 1
	Queue    VerdictCode = 3
	Continue VerdictCode = -1
	Break    VerdictCode = -2
	Jump     VerdictCode = -3
	Goto     VerdictCode = -4
	Return   VerdictCode = -5
)

// Verdict ends a rule. As an expression it is the kernel's "immediate" into
// register 0; it is also the value of a verdict map.
type Verdict struct {
	Code  VerdictCode
	Chain string // Jump and Goto only
}

// Counter counts packets and bytes. The values are the kernel's; they do not
// appear in text.
type Counter struct {
	Bytes   uint64 `nla:"1,be64"`
	Packets uint64 `nla:"2,be64"`
}

// FIBFlags are the NFTA_FIB_F_* bits.
type FIBFlags uint32

// What a FIB lookup takes from the packet. FIBPresent asks only whether there
// is a route.
const (
	FIBSAddr   FIBFlags = 0x1
	FIBDAddr   FIBFlags = 0x2
	FIBMark    FIBFlags = 0x4
	FIBIIf     FIBFlags = 0x8
	FIBOIf     FIBFlags = 0x10
	FIBPresent FIBFlags = 0x20
)

// FIBResult is an NFT_FIB_RESULT_* number.
type FIBResult uint32

// What a FIB lookup gives.
const (
	FIBResultOIf     FIBResult = 1
	FIBResultOIfName FIBResult = 2
	FIBResultType    FIBResult = 3
)

// FIB asks the routing table about an address of the packet.
type FIB struct {
	DReg   Reg       `nla:"1,be32"`
	Result FIBResult `nla:"2,be32"`
	Flags  FIBFlags  `nla:"3,be32"`
}
