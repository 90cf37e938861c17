//go:build linux

package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/mdlayher/netlink"
	rules "github.com/towpath/towpath/internal/nft"
	"golang.org/x/sys/unix"
)

// Monitor reports the transactions of all writers in one network namespace, or
// in those that it knows by an id too.
type Monitor struct {
	sock  *netlink.Conn
	raw   syscall.RawConn
	buf   []byte
	oob   []byte
	queue []notice
	// touched is by namespace: transactions of two may come interleaved.
	touched map[int][]Touch
}

// notice is a message with the id of the namespace it is about.
type notice struct {
	received
	nsid int
}

// NoNSID stands for the Monitor's own namespace.
const NoNSID = -1

// Event is one transaction, or the loss of some.
type Event struct {
	Overrun    bool   // events were lost: read everything again; the rest is empty
	NSID       int    // of the namespace it happened in, NoNSID for the Monitor's own
	Generation uint32 // as of Conn.Generation after the transaction
	PortID     uint32 // netlink port of the writer, see Conn.PortID
	ThreadID   uint32 // of the writer, in the initial pid namespace
	Process    string // name of the writer
	Touched    []Touch
}

// Touch names an object that a transaction changed.
type Touch struct {
	Family rules.Family
	Table  string
	Kind   string // table, chain, rule, set, element
	Name   string // of the chain or set; "" for a table
	Delete bool
}

// Listen opens a Monitor in the network namespace of the descriptor nsfd; 0 or
// -1 means the namespace of the calling thread.
func Listen(nsfd int) (*Monitor, error) { return listen(nsfd, false) }

// ListenAll is Listen, and hears also the namespaces to which that namespace has
// given an id (NETLINK_LISTEN_ALL_NSID). It needs CAP_NET_BROADCAST in each.
func ListenAll(nsfd int) (*Monitor, error) { return listen(nsfd, true) }

func listen(nsfd int, all bool) (*Monitor, error) {
	config := &netlink.Config{NetNS: max(nsfd, 0), Groups: 1 << (groupNFTables - 1)}
	sock, err := netlink.Dial(unix.NETLINK_NETFILTER, config)
	if err != nil {
		return nil, fmt.Errorf("listen to nf_tables: %w", err)
	}
	m := &Monitor{sock: sock, buf: make([]byte, readSize), oob: make([]byte, unix.CmsgSpace(4)), touched: map[int][]Touch{}}
	if m.raw, err = sock.SyscallConn(); err == nil {
		err = sock.SetReadBuffer(bufferSize)
	}
	if err == nil && all {
		err = sock.SetOption(netlink.ListenAllNSID, true)
	}
	if err != nil {
		sock.Close()
		return nil, fmt.Errorf("listen to nf_tables: %w", err)
	}
	return m, nil
}

// Close ends the Monitor; a Next that waits returns an error.
func (m *Monitor) Close() error {
	if err := m.sock.Close(); err != nil {
		return fmt.Errorf("close nf_tables monitor: %w", err)
	}
	return nil
}

// Next waits for the next transaction. It must not be called concurrently.
func (m *Monitor) Next(ctx context.Context) (Event, error) {
	var e Event
	err := withContext(ctx, m.sock, func() error {
		var err error
		e, err = m.next()
		return err
	})
	if err != nil {
		return Event{}, fmt.Errorf("watch nf_tables: %w", err)
	}
	return e, nil
}

func (m *Monitor) next() (Event, error) {
	for {
		for len(m.queue) > 0 {
			r := m.queue[0]
			m.queue = m.queue[1:]
			if e, ok, err := m.message(r); ok || err != nil {
				return e, err
			}
		}
		msgs, oob, err := receiveControl(m.raw, m.buf, m.oob)
		if errors.Is(err, unix.ENOBUFS) {
			clear(m.touched)
			return Event{Overrun: true, NSID: NoNSID}, nil
		}
		if err != nil {
			return Event{}, err
		}
		nsid := namespaceOf(oob)
		for _, r := range msgs {
			r.body = slices.Clone(r.body)
			m.queue = append(m.queue, notice{r, nsid})
		}
	}
}

// namespaceOf reads the id of the sender's namespace from control data. Events
// of the listener's own namespace have none.
func namespaceOf(oob []byte) int {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return NoNSID
	}
	i := slices.IndexFunc(msgs, func(m unix.SocketControlMessage) bool {
		return m.Header.Level == unix.SOL_NETLINK && m.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(m.Data) >= 4
	})
	if i < 0 {
		return NoNSID
	}
	return int(int32(binary.NativeEndian.Uint32(msgs[i].Data)))
}

// message notes what a message touches. The last one of a transaction is
// NFT_MSG_NEWGEN, which ends an event.
func (m *Monitor) message(r notice) (Event, bool, error) {
	kind, ok := r.kind()
	if !ok || len(r.body) < sizeofGenmsg {
		return Event{}, false, nil
	}
	if kind == msgNewGen {
		g, err := decodeGeneration(r.attrs())
		e := Event{NSID: r.nsid, Generation: g.id, PortID: r.pid, ThreadID: g.pid, Process: g.name, Touched: m.touched[r.nsid]}
		delete(m.touched, r.nsid)
		return e, true, err
	}
	t, ok, err := touch(kind, r.received)
	if ok && !slices.Contains(m.touched[r.nsid], t) {
		m.touched[r.nsid] = append(m.touched[r.nsid], t)
	}
	return Event{}, false, err
}

// subject tells what a message is about and which attributes name the table
// and the chain or set; kind is "" for messages that are not reported.
func subject(msg uint8) (kind string, table, name uint16) {
	switch msg {
	case msgNewTable, msgDelTable:
		return "table", attrTableName, 0
	case msgNewChain, msgDelChain:
		return "chain", attrChainTable, attrChainName
	case msgNewRule, msgDelRule:
		return "rule", attrRuleTable, attrRuleChain
	case msgNewSet, msgDelSet:
		return "set", attrSetTable, attrSetName
	case msgNewSetElem, msgDelSetElem:
		return "element", attrElemListTable, attrElemListSet
	}
	return "", 0, 0
}

// deletes reports whether the message tells of a removal.
func deletes(msg uint8) bool {
	switch msg {
	case msgDelTable, msgDelChain, msgDelRule, msgDelSet, msgDelSetElem:
		return true
	}
	return false
}

// touch reads what a message is about; false for kinds that are not reported.
func touch(msg uint8, r received) (Touch, bool, error) {
	kind, table, name := subject(msg)
	if kind == "" {
		return Touch{}, false, nil
	}
	t := Touch{Family: r.family(), Kind: kind, Delete: deletes(msg)}
	ad, err := decoder(r.attrs())
	if err != nil {
		return t, false, fmt.Errorf("decode event: %w", err)
	}
	for ad.Next() {
		switch ad.Type() {
		case table:
			t.Table = ad.String()
		case name:
			t.Name = ad.String()
		}
	}
	return t, ad.Err() == nil, ad.Err()
}
