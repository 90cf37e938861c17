//go:build linux

package probe

import (
	"context"
	"fmt"
	"slices"
)

// dropCounters are those that rise when the kernel drops a packet of a family
// without a word. Those of the other family say nothing of it.
func dropCounters(v6 bool) []string {
	both := []string{
		"TcpExtListenOverflows", "TcpExtListenDrops", "TcpExtTCPReqQFullDrop", "TcpInErrs",
		"ConntrackInsertFailed", "ConntrackDrop", "ConntrackEarlyDrop", "ConntrackInvalid",
	}
	if v6 {
		return append(both, "Ip6InHdrErrors", "Ip6InNoRoutes", "Ip6InAddrErrors", "Ip6InDiscards", "Ip6OutDiscards", "Ip6OutNoRoutes", "Ip6InTooBigErrors",
			"Udp6InErrors", "Udp6RcvbufErrors")
	}
	return append(both, "IpInHdrErrors", "IpInAddrErrors", "IpInUnknownProtos", "IpInDiscards", "IpOutDiscards", "IpOutNoRoutes", "IpReasmFails", "IpFragFails",
		"IpExtInNoRoutes", "TcpExtIPReversePathFilter", "UdpInErrors", "UdpRcvbufErrors")
}

// risen looks again, and names the counters of drops that rose meanwhile, by
// namespace: of packets of others too, so that it is a hint and no proof.
func (r *run) risen(ctx context.Context, v6 bool) (map[string][]string, error) {
	now, err := r.Again(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for i := range now.Spaces {
		s := &now.Spaces[i]
		before := r.Machine.Host.Space(s.Name)
		if before == nil {
			continue
		}
		for _, name := range dropCounters(v6) {
			if n := s.Counters[name] - before.Counters[name]; s.Counters[name] > before.Counters[name] {
				out[s.Name] = append(out[s.Name], fmt.Sprintf("%s by %d", name, n))
			}
		}
		slices.Sort(out[s.Name])
	}
	return out, nil
}
