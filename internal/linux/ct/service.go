//go:build linux

package ct

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Service is what first packets went to: a port of a protocol, of one family.
type Service struct {
	IPv6  bool
	Proto uint8
	Port  uint16
}

// PurgeServices is Purge of the entries whose first packets went to one of these
// services, translated or not. Stale may be asked about others too. Only those
// entries are read, and passing over one of another costs the kernel a tenth of
// telling of it. But each service is a walk over all of the kernel's buckets: for
// many of them, Purge is cheaper.
func (c *Conn) PurgeServices(ctx context.Context, services []Service, stale func(Entry) bool) (int, error) {
	ask, err := questions(services)
	if err != nil {
		return 0, fmt.Errorf("purge conntrack of services: %w", err)
	}
	return c.purgeAsked(ctx, ask, stale)
}

// purgeAsked purges what the kernel tells to some questions or, when it refuses
// one, of all entries.
func (c *Conn) purgeAsked(ctx context.Context, ask []message, stale func(Entry) bool) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, purgeTime)
	defer cancel()
	total := 0
	err := c.with(ctx, func(sock *netlink.Conn) error {
		for _, question := range ask {
			names, err := find(sock, question, stale)
			if err != nil {
				return err
			}
			n, err := remove(sock, names)
			total += n
			if err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP): // no such filters
		n, err := c.Purge(ctx, stale)
		return total + n, err
	case err != nil:
		return total, fmt.Errorf("purge conntrack of services: %w", err)
	}
	return total, nil
}

// questions ask for the services, each once.
func questions(services []Service) ([]message, error) {
	var out []message
	asked := map[filter]bool{}
	for _, s := range services {
		f := filter{family: unix.AF_INET, flags: matchProto, proto: s.Proto}
		if s.IPv6 {
			f.family = unix.AF_INET6
		}
		if comparesPorts(s.Proto) {
			f.flags, f.port = matchProto|matchDstPort, s.Port
		}
		if asked[f] {
			continue
		}
		asked[f] = true
		question, err := f.listing()
		if err != nil {
			return nil, err
		}
		out = append(out, question)
	}
	return out, nil
}

// comparesPorts tells whether the kernel's filter looks at the ports of a
// protocol.
func comparesPorts(proto uint8) bool { return proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_UDP }
