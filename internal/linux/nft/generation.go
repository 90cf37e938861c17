//go:build linux

package nft

import (
	"context"
	"fmt"
)

// Generation gives the number of the ruleset's generation in the namespace:
// unchanged since a commit means that nobody has written any table since.
func (c *Conn) Generation(ctx context.Context) (uint32, error) {
	defer c.lock()()
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
