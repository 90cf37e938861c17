package main

import (
	"context"
	"errors"
	"net"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
)

// resolverRules lead port 53 of the resolver's address to the port that it has.
var resolverRules = []string{
	"ip daddr 127.0.0.11 udp dport 53 udp dport set 40053",
	"ip daddr 127.0.0.11 tcp dport 53 tcp dport set 40053",
	"ip saddr 127.0.0.11 udp sport 40053 udp sport set 53",
	"ip saddr 127.0.0.11 tcp sport 40053 tcp sport set 53",
}

// furnish gives the namespace what a resolver in it needs: the table on its
// loopback, which is up by now, and sockets. They are closed again, because an
// open one keeps the namespace.
func (in *inside) furnish(ctx context.Context) error {
	c, err := nft.Dial(int(in.f.Fd()))
	if err != nil {
		return err
	}
	defer c.Close()
	var b nft.Batch
	chain := rules.Chain{
		Family: rules.FamilyNetdev, Table: bareBridge, Name: "resolver",
		Type: "filter", Hook: "ingress", Policy: "accept", Devices: []string{"lo"},
	}
	b.AddTable(rules.Table{Family: chain.Family, Name: chain.Table})
	b.AddChain(chain)
	for _, text := range resolverRules {
		r, err := rules.ParseRule(chain.Family, text)
		if err != nil {
			return err
		}
		b.AddRule(chain, r)
	}
	if err := c.Commit(ctx, &b); err != nil {
		return err
	}
	return netns.Do(in.f, func() error {
		udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 11), Port: 40053})
		if err != nil {
			return err
		}
		tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 11), Port: 40053})
		if err != nil {
			return errors.Join(err, udp.Close())
		}
		return errors.Join(tcp.Close(), udp.Close())
	})
}
