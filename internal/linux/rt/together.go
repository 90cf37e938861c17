//go:build linux

package rt

import (
	"context"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// together is how many requests go to the kernel in one datagram. It carries
// them out one after the other, and each acknowledgement takes some 800 bytes of
// the receive buffer (net.core.rmem_default is 208 KiB) until it is read.
const together = 64

// doTogether sends requests that are no dumps and have no answers but the
// acknowledgement, as many as go together at a time, and gives the error of each.
// One that is refused does not keep the kernel from the next.
func (c *Conn) doTogether(ctx context.Context, reqs []request) []error {
	errs := make([]error, len(reqs))
	for first := 0; first < len(reqs); first += together {
		last := min(first+together, len(reqs))
		c.part(ctx, reqs[first:last], errs[first:last])
	}
	return errs
}

// part carries out as many requests as go together.
func (c *Conn) part(ctx context.Context, reqs []request, errs []error) {
	fail := func(err error) {
		for i := range errs {
			errs[i] = err
		}
	}
	release, err := c.take(ctx)
	if err != nil {
		fail(err)
		return
	}
	defer release()
	first := c.seq + 1
	var b []byte
	for _, req := range reqs {
		c.seq++
		req.flags |= netlink.Request | netlink.Acknowledge
		b = req.append(b, c.seq)
	}
	if err := c.sock.send(b); err != nil {
		fail(err)
		return
	}
	end := c.sock.until(ctx)
	open := len(reqs)
	for open > 0 && err == nil {
		var n int
		if n, _, err = c.sock.recv(c.buf[:], nil); err == nil {
			open, err = acknowledged(c.buf[:n], first, errs, open)
		}
	}
	if err = end(err); err != nil {
		fail(err)
	}
}

// acknowledged takes one datagram, notes what became of the requests that it
// acknowledges, and gives how many are still open.
func acknowledged(b []byte, first uint32, errs []error, open int) (int, error) {
	for len(b) > 0 {
		var m message
		var err error
		if m, b, err = nextMessage(b); err != nil {
			return open, err
		}
		i := m.seq - first // of a late answer it is beyond the end
		if m.typ != unix.NLMSG_ERROR || i >= uint32(len(errs)) {
			continue
		}
		errs[i] = m.result()
		open--
	}
	return open, nil
}

// SetGroups puts links, by their names, into a group, and gives the error of
// each: unix.ENODEV of one that is not there.
func (c *Conn) SetGroups(ctx context.Context, names []string, group uint32) []error {
	reqs := make([]request, len(names))
	for i, name := range names {
		// With RTM_NEWLINK the kernel would take a name that it does not know
		// for no name, and change all links of the group.
		body, err := attributes(ifInfo(unix.AF_UNSPEC, 0, 0, 0), func(ae *netlink.AttributeEncoder) {
			ae.String(unix.IFLA_IFNAME, name)
			ae.Uint32(unix.IFLA_GROUP, group)
		})
		if err != nil {
			return slices.Repeat([]error{err}, len(names))
		}
		reqs[i] = request{typ: unix.RTM_SETLINK, body: body}
	}
	errs := c.doTogether(ctx, reqs)
	for i, err := range errs {
		if err != nil {
			errs[i] = fmt.Errorf("set group of link %s: %w", names[i], err)
		}
	}
	return errs
}
