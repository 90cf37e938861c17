//go:build linux

package rt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// monitorBuffer is the receive buffer that is asked for, in bytes. A burst of
// several hundred new links fits; beyond it events are lost, and that is told.
const monitorBuffer = 8 << 20

// Group is a kind of notification to listen for.
type Group uint32

// Groups, as in enum rtnetlink_groups of linux/rtnetlink.h.
const (
	GroupLink         Group = unix.RTNLGRP_LINK
	GroupNeighbour    Group = unix.RTNLGRP_NEIGH // AF_BRIDGE too
	GroupIPv4Address  Group = unix.RTNLGRP_IPV4_IFADDR
	GroupIPv6Address  Group = unix.RTNLGRP_IPV6_IFADDR
	GroupIPv4Route    Group = unix.RTNLGRP_IPV4_ROUTE
	GroupIPv6Route    Group = unix.RTNLGRP_IPV6_ROUTE
	GroupIPv4Rule     Group = unix.RTNLGRP_IPV4_RULE
	GroupIPv6Rule     Group = unix.RTNLGRP_IPV6_RULE
	GroupIPv4Netconf  Group = unix.RTNLGRP_IPV4_NETCONF
	GroupIPv6Netconf  Group = unix.RTNLGRP_IPV6_NETCONF
	GroupNamespaceIDs Group = unix.RTNLGRP_NSID
)

// EventKind says which field of an Event is set.
type EventKind string

// The kinds of events.
const (
	EventLink EventKind = "link"
	// EventPort is a bridge's word about a port, with Link.Port set. Deleted
	// says that the link left the bridge, not that it is gone.
	EventPort      EventKind = "port"
	EventAddress   EventKind = "address"
	EventRoute     EventKind = "route"
	EventRule      EventKind = "rule"
	EventNeighbour EventKind = "neighbour"
	EventNetconf   EventKind = "netconf"
	EventNSID      EventKind = "nsid"
	// EventOverrun says that events were lost (ENOBUFS): read everything anew.
	EventOverrun EventKind = "overrun"
)

// Event is one notification. Of the pointers the one its Kind names is set.
type Event struct {
	Kind    EventKind
	Deleted bool
	// NSID is the id of the namespace it happened in, NoNSID for the
	// listener's own. For EventNSID it is the id that came or went.
	NSID int

	Link      *Link
	Address   *Address
	Route     *Route
	Rule      *Rule
	Neighbour *Neighbour
	Netconf   *Netconf
}

// Netconf is a change of the switches that the kernel announces. A field that
// the event does not tell of is -1; of other sysctls it tells nothing.
type Netconf struct {
	Family  uint8
	Index   int // of the link; NETCONFA_IFINDEX_ALL (-1), _DEFAULT (-2)
	Forward int
	RPF     int
}

// Monitor receives notifications. It is for one goroutine; Close may be called
// from another, and ends a Next that waits.
type Monitor struct {
	sock  *socket
	buf   []byte
	oob   []byte
	ready []Event // received and not yet returned
}

// Listen joins groups in the namespace of nsfd, or, when nsfd is not positive,
// in that of the calling thread. Changes made after it returns are seen, as far
// as the kernel announces them: it does not for the alias of a link that is down.
func Listen(nsfd int, groups ...Group) (*Monitor, error) {
	return listen(nsfd, groups, false)
}

// ListenAll is Listen, and hears also the namespaces to which that namespace has
// given an id (NETLINK_LISTEN_ALL_NSID). It needs CAP_NET_BROADCAST in each.
func ListenAll(nsfd int, groups ...Group) (*Monitor, error) {
	return listen(nsfd, groups, true)
}

// listen opens the socket, sets its options, and joins.
func listen(nsfd int, groups []Group, all bool) (*Monitor, error) {
	s, err := openSocket(nsfd)
	if err != nil {
		return nil, fmt.Errorf("listen to rtnetlink: %w", err)
	}
	err = s.grow(monitorBuffer)
	if err == nil && all {
		err = s.option(unix.NETLINK_LISTEN_ALL_NSID, 1)
	}
	for _, g := range groups {
		if err == nil {
			err = s.option(unix.NETLINK_ADD_MEMBERSHIP, int(g))
		}
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("listen to rtnetlink: %w", err)
	}
	return &Monitor{sock: s, buf: make([]byte, recvBuffer), oob: make([]byte, unix.CmsgSpace(4))}, nil
}

// grow raises the receive buffer, beyond net.core.rmem_max with CAP_NET_ADMIN in
// the initial user namespace, else up to it.
func (s *socket) grow(bytes int) error {
	var err error
	if cerr := s.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes)
		if errors.Is(err, unix.EPERM) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
		}
	}); cerr != nil {
		return cerr
	}
	return err
}

// Close stops listening.
func (m *Monitor) Close() error { return m.sock.close() }

// Next waits for the next event, until ctx ends or the Monitor is closed
// (os.ErrClosed).
func (m *Monitor) Next(ctx context.Context) (Event, error) {
	for len(m.ready) == 0 {
		if err := m.receive(ctx); err != nil {
			return Event{}, fmt.Errorf("receive rtnetlink event: %w", err)
		}
	}
	e := m.ready[0]
	m.ready = m.ready[1:]
	return e, nil
}

// receive waits for one datagram and decodes it.
func (m *Monitor) receive(ctx context.Context) error {
	end := m.sock.until(ctx)
	n, oobn, err := m.sock.recv(m.buf, m.oob)
	if err = end(err); errors.Is(err, unix.ENOBUFS) {
		m.ready = append(m.ready, Event{Kind: EventOverrun, NSID: NoNSID})
		return nil
	}
	if err != nil {
		return err
	}
	nsid := namespaceOf(m.oob[:oobn])
	for b := m.buf[:n]; len(b) > 0; {
		var msg message
		if msg, b, err = nextMessage(b); err != nil {
			return err
		}
		e, known, err := decodeEvent(msg, nsid)
		if err != nil {
			return err
		}
		if known {
			m.ready = append(m.ready, e)
		}
	}
	return nil
}

// namespaceOf reads the id of the sender's namespace from control data. Events
// of the listener's own namespace have none.
func namespaceOf(oob []byte) int {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return NoNSID
	}
	i := slices.IndexFunc(msgs, func(m unix.SocketControlMessage) bool {
		return m.Header.Level == unix.SOL_NETLINK &&
			m.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(m.Data) >= 4
	})
	if i < 0 {
		return NoNSID
	}
	return int(int32(binary.NativeEndian.Uint32(msgs[i].Data)))
}

// decodeEvent reads a notification. A type that is not known here is no error.
func decodeEvent(m message, nsid int) (Event, bool, error) {
	e := Event{NSID: nsid}
	var err error
	switch m.typ {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		e.Kind, e.Deleted = EventLink, m.typ == unix.RTM_DELLINK
		if e.Link, err = decoded(decodeLink(m.body)); err == nil && m.body[0] == unix.AF_BRIDGE {
			e.Kind = EventPort
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		e.Kind, e.Deleted = EventAddress, m.typ == unix.RTM_DELADDR
		e.Address, err = decoded(decodeAddress(m.body))
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		e.Kind, e.Deleted = EventRoute, m.typ == unix.RTM_DELROUTE
		e.Route, err = decoded(decodeRoute(m.body))
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		e.Kind, e.Deleted = EventRule, m.typ == unix.RTM_DELRULE
		e.Rule, err = decoded(decodeRule(m.body))
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		e.Kind, e.Deleted = EventNeighbour, m.typ == unix.RTM_DELNEIGH
		e.Neighbour, err = decoded(decodeNeighbour(m.body))
	case unix.RTM_NEWNETCONF, unix.RTM_DELNETCONF:
		e.Kind, e.Deleted = EventNetconf, m.typ == unix.RTM_DELNETCONF
		e.Netconf, err = decoded(decodeNetconf(m.body))
	case unix.RTM_NEWNSID, unix.RTM_DELNSID:
		e.Kind, e.Deleted = EventNSID, m.typ == unix.RTM_DELNSID
		e.NSID, err = decodeNSID(m.body)
	default:
		return Event{}, false, nil
	}
	return e, err == nil, err
}

// decoded turns a value into a pointer to it.
func decoded[T any](v T, err error) (*T, error) { return &v, err }
