//go:build linux

package nft

// Numbers of include/uapi/linux/netfilter/nfnetlink.h.
const (
	subsysNFTables = 10
	msgBatchBegin  = 0x10
	msgBatchEnd    = 0x11
	groupNFTables  = 7
	batchGenID     = 1 // NFNL_BATCH_GENID
)

// Messages of include/uapi/linux/netfilter/nf_tables.h.
const (
	msgNewTable   = 0
	msgGetTable   = 1
	msgDelTable   = 2
	msgNewChain   = 3
	msgGetChain   = 4
	msgDelChain   = 5
	msgNewRule    = 6
	msgGetRule    = 7
	msgDelRule    = 8
	msgNewSet     = 9
	msgGetSet     = 10
	msgDelSet     = 11
	msgNewSetElem = 12
	msgGetSetElem = 13
	msgDelSetElem = 14
	msgNewGen     = 15
	msgGetGen     = 16
)

// Attributes of the same header; each block is one enum.
const (
	attrListElem = 1

	attrTableName  = 1
	attrTableFlags = 2

	attrChainTable  = 1
	attrChainName   = 3
	attrChainHook   = 4
	attrChainPolicy = 5
	attrChainType   = 7

	attrHookNum      = 1
	attrHookPriority = 2
	attrHookDev      = 3
	attrHookDevs     = 4
	attrDeviceName   = 1

	attrRuleTable    = 1
	attrRuleChain    = 2
	attrRuleHandle   = 3
	attrRuleExprs    = 4
	attrRulePosition = 6
	attrRuleUserData = 7

	attrExprName = 1
	attrExprData = 2

	attrDataValue    = 1
	attrDataVerdict  = 2
	attrVerdictCode  = 1
	attrVerdictChain = 2

	attrImmediateDReg = 1
	attrImmediateData = 2
	attrLookupSetID   = 4

	attrSetTable    = 1
	attrSetName     = 2
	attrSetFlags    = 3
	attrSetKeyType  = 4
	attrSetKeyLen   = 5
	attrSetDataType = 6
	attrSetDataLen  = 7
	attrSetDesc     = 9
	attrSetID       = 10
	attrSetTimeout  = 11
	attrSetUserData = 13

	attrDescSize   = 1
	attrDescConcat = 2
	attrFieldLen   = 1

	attrElemListTable    = 1
	attrElemListSet      = 2
	attrElemListElements = 3
	attrElemListSetID    = 4

	attrElemKey      = 1
	attrElemData     = 2
	attrElemFlags    = 3
	attrElemTimeout  = 4
	attrElemUserData = 6
	attrElemKeyEnd   = 10

	attrGenID       = 1
	attrGenProcPID  = 2
	attrGenProcName = 3
)

// Bits of sets and elements that internal/nft derives from the types.
const (
	setAnonymous    = 0x1
	setConstant     = 0x2
	setMap          = 0x8
	setConcat       = 0x80
	elemIntervalEnd = 0x1
	elemCatchAll    = 0x2
)

// User data of nft (libnftnl's udata.h): type, length, value. The kernel keeps
// it without looking.
const (
	udataRuleComment   = 0
	udataElemComment   = 0
	udataKeyByteOrder  = 0
	udataDataByteOrder = 1
	byteOrderHost      = 1
	byteOrderBig       = 2
)
