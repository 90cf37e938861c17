package draw

import (
	"fmt"

	"github.com/towpath/towpath/api"
)

// icmpWord is what a message of ICMP (RFC 792) or ICMPv6 is called (RFC 4443; RFC
// 4861, 4; RFC 3810).
func icmpWord(f api.Flow) string {
	words := map[uint8]string{
		0: "echo reply", 3: "destination unreachable", 5: "redirect", 8: "echo request", 11: "time exceeded", 12: "parameter problem",
	}
	if f.Proto == "icmpv6" {
		words = map[uint8]string{
			1: "destination unreachable", 2: "packet too big", 3: "time exceeded", 4: "parameter problem", 128: "echo request", 129: "echo reply",
			130: "listener query", 131: "listener report", 132: "listener done", 133: "router solicitation", 134: "router advertisement",
			135: "neighbour solicitation", 136: "neighbour advertisement", 137: "redirect", 143: "listener report",
		}
	}
	if w := words[f.ICMPType]; w != "" {
		return w
	}
	return fmt.Sprintf("type %d", f.ICMPType)
}
