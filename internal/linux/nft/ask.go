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

// Generation gives the number of the ruleset's generation in the namespace:
// unchanged since a commit means that nobody has written any table since.
func (c *Conn) Generation(ctx context.Context) (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var id uint32
	err := withContext(ctx, c.sock, func() error {
		var err error
		id, err = c.generation()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read generation: %w", err)
	}
	return id, nil
}

func (c *Conn) generation() (uint32, error) {
	m, err := c.ask(msgGetGen, 0, nil)
	if err != nil {
		return 0, err
	}
	g, err := decodeGeneration(m.attrs())
	return g.id, err
}

// generation is the content of NFT_MSG_NEWGEN.
type generation struct {
	id   uint32
	pid  uint32 // thread id of the writer, in the initial pid namespace
	name string
}

func decodeGeneration(attrs []byte) (generation, error) {
	var g generation
	ad, err := decoder(attrs)
	if err != nil {
		return g, err
	}
	for ad.Next() {
		switch ad.Type() {
		case attrGenID:
			g.id = ad.Uint32()
		case attrGenProcPID:
			g.pid = ad.Uint32()
		case attrGenProcName:
			g.name = ad.String()
		}
	}
	return g, ad.Err()
}

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
	c.mu.Lock()
	defer c.mu.Unlock()
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
		msgs, err := receive(c.raw, c.buf)
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
