package api

import "fmt"

// ICMPError is what a message of ICMP or ICMPv6 that tells of an error says (RFC 792,
// RFC 1812, RFC 4443).
func (f Flow) ICMPError() string {
	words := map[[2]uint8]string{
		{3, 0}: "network unreachable", {3, 1}: "host unreachable", {3, 2}: "protocol unreachable", {3, 3}: "port unreachable",
		{3, 4}: "too big, and may not be cut up", {3, 9}: "network prohibited", {3, 10}: "host prohibited",
		{3, 13}: "prohibited by an administrator", {11, 0}: "time to live is over",
	}
	if f.Proto == "icmpv6" {
		words = map[[2]uint8]string{
			{1, 0}: "no route", {1, 1}: "prohibited by an administrator", {1, 3}: "address unreachable", {1, 4}: "port unreachable",
			{1, 5}: "source address prohibited", {1, 6}: "route rejected", {2, 0}: "too big", {3, 0}: "hop limit is over",
		}
	}
	if w := words[[2]uint8{f.ICMPType, f.ICMPCode}]; w != "" {
		return w
	}
	return fmt.Sprintf("%s type %d code %d", f.Proto, f.ICMPType, f.ICMPCode)
}
