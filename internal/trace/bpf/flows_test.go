//go:build linux

package bpf

import (
	"net"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/testnet"
	"github.com/towpath/towpath/internal/trace"
)

// again sends datagrams that are all of one flow.
func again(t *testing.T, ns *testnet.NS, times int) {
	t.Helper()
	ns.Do(t, func() error {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5000}}
		for range times {
			c, err := d.Dial("udp", "127.0.0.1:9")
			if err != nil {
				return err
			}
			_, err = c.Write(nil)
			c.Close()
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// TestFlowElsewhere: a flow is not another's that has its addresses and ports in
// another namespace, where many of it were told of.
func TestFlowElsewhere(t *testing.T) {
	testnet.Require(t, "netns", "bpf-hooks")
	ns, watched, other := testnet.New(t, "ns"), testnet.New(t, "watched"), testnet.New(t, "other")
	c := everything(t, ns, 0)
	c.Spaces = append(c.Spaces, Space{Name: "watched", Inode: inode(t, watched.F), File: watched.F})
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	start := time.Now()
	var w trace.Watch
	again(t, other, 100)
	again(t, watched, 100)
	again(t, ns, 1)
	in := func() (sightings, crossings int) {
		for _, x := range w.Sightings {
			if x.Space == "ns" && x.Quoted == nil {
				sightings++
			}
		}
		for _, x := range w.Crossings {
			if x.Space == "ns" && x.Quoted == nil {
				crossings++
			}
		}
		return sightings, crossings
	}
	wait(t, s, start, &w, func() bool {
		sightings, crossings := in()
		return sightings >= 2 && crossings >= 8
	})
	if w.Lost {
		t.Error("something was lost")
	}
}
