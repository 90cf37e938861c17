//go:build linux

package nft

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	rules "github.com/towpath/towpath/internal/nft"
	"golang.org/x/sys/unix"
)

// HasChain asks for one chain, which costs the same however many there are.
func (c *Conn) HasChain(ctx context.Context, f rules.Family, table, chain string) (bool, error) {
	attrs, err := attributes(func(ae *netlink.AttributeEncoder) {
		ae.String(attrChainTable, table)
		ae.String(attrChainName, chain)
	})
	if err != nil {
		return false, err
	}
	return c.has(ctx, msgGetChain, f, attrs)
}

// HasTable asks for one table.
func (c *Conn) HasTable(ctx context.Context, f rules.Family, table string) (bool, error) {
	attrs, err := attributes(func(ae *netlink.AttributeEncoder) { ae.String(attrTableName, table) })
	if err != nil {
		return false, err
	}
	return c.has(ctx, msgGetTable, f, attrs)
}

// has asks for one object.
func (c *Conn) has(ctx context.Context, typ uint8, f rules.Family, attrs []byte) (bool, error) {
	defer c.lock()()
	found := false
	err := withContext(ctx, c.sock, func() error {
		m, err := c.ask(typ, f, attrs)
		found = err == nil && m.typ != unix.NLMSG_ERROR
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("ask nf_tables: %w", err)
	}
	return found, nil
}

// ask sends a request that has one message for an answer.
func (c *Conn) ask(typ uint8, f rules.Family, attrs []byte) (received, error) {
	c.seq++
	seq := c.seq
	if err := c.send(appendMessage(nil, subsysNFTables<<8|uint16(typ), 0, seq, uint8(f), 0, attrs)); err != nil {
		return received{}, err
	}
	for {
		msgs, err := receive(c.raw, c.buf[:])
		if err != nil {
			return received{}, err
		}
		for _, m := range msgs {
			if m.seq != seq {
				continue
			}
			if m.typ == unix.NLMSG_ERROR {
				errno, _ := m.ack()
				return m, errno
			}
			return m, nil
		}
	}
}

// table asks for one table with its flags.
func (c *Conn) table(ctx context.Context, f rules.Family, name string) (rules.Table, error) {
	attrs, err := attributes(func(ae *netlink.AttributeEncoder) { ae.String(attrTableName, name) })
	if err != nil {
		return rules.Table{}, err
	}
	defer c.lock()()
	var t rules.Table
	err = withContext(ctx, c.sock, func() error {
		m, err := c.ask(msgGetTable, f, attrs)
		if err != nil {
			return err
		}
		t, err = decodeTable(object{m.family(), m.attrs()})
		return err
	})
	return t, err
}
