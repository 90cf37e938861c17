//go:build linux

package ct

import (
	"golang.org/x/sys/unix"
)

// Of events: the group of those about connections that begin
// (linux/netfilter/nfnetlink.h), and the type of their messages.
const (
	GroupNew = 1                               // NFNLGRP_CONNTRACK_NEW
	EventNew = unix.NFNL_SUBSYS_CTNETLINK << 8 // with IPCTNL_MSG_CT_NEW, which is 0
)

// DecodeEvent reads an event from what is behind the header of its message.
func DecodeEvent(body []byte) (Entry, error) {
	e, _, err := decodeEntry(body)
	return e, err
}
