package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/towpath/towpath/internal/dns"
	"github.com/towpath/towpath/internal/linux/netns"
)

// serve is the resolver: a network of sandboxes, each with a name, and the
// client's, with its sockets. With -idle the others have sockets too.
func serve(args []string) error {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	ns := fs.String("ns", "", "namespace of the client")
	up := fs.String("upstream", "", "address and port")
	idle := fs.Int("idle", 0, "so many sandboxes that have sockets and ask nothing")
	if err := fs.Parse(args); err != nil {
		return err
	}
	upstream, err := netip.ParseAddrPort(*up)
	if err != nil {
		return err
	}
	names, list := dns.NewNames(), []netip.AddrPort{upstream}
	for i := range localNames {
		names.Put(dns.Member{Sandbox: localName(i), Attachments: []dns.Attachment{{
			Network: "bench", Ifname: "eth0", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 89, byte(1 + i/250), byte(1 + i%250)})},
		}}})
	}
	names.Put(dns.Member{Sandbox: "box", Attachments: []dns.Attachment{{Network: "bench", Ifname: "eth0", Addrs: []netip.Addr{netip.MustParseAddr(boxAddr)}}}})
	s := dns.New(dns.Config{Names: names, Upstreams: func() []netip.AddrPort { return list }})
	if *ns != "" {
		err = attach(s, *ns, "box", stubAddr)
	}
	for i := range *idle {
		err = errors.Join(err, attach(s, "", localName(i), fmt.Sprintf("127.1.%d.%d", i/250, 1+i%250)))
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "ready")
	<-context.Background().Done()
	return nil
}

// attach opens a sandbox's sockets in a namespace, "" being this one.
func attach(s *dns.Server, ns, sandbox, addr string) error {
	var udp *net.UDPConn
	var tcp net.Listener
	open := func() (err error) {
		ip := net.ParseIP(addr)
		if udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: ip, Port: stubPort}); err == nil {
			tcp, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: ip, Port: stubPort})
		}
		return err
	}
	if ns == "" {
		if err := open(); err != nil {
			return err
		}
		return s.Attach(sandbox, udp, tcp)
	}
	f, err := os.Open(ns)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := netns.Do(f, open); err != nil {
		return err
	}
	return s.Attach(sandbox, udp, tcp)
}
