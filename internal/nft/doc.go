// Package nft holds nftables rules as plain data. A Rule is a list of Expr,
// small structs that mirror the kernel's expressions one to one, and has three
// readings:
//
//   - text: ParseRule compiles nft(8) syntax into expressions, Rule.String
//     decompiles them to what `nft -s list table` (1.0.6) prints;
//   - netlink: package internal/linux/nft encodes and decodes the same structs
//     by their `nla` tags;
//   - evaluation: Ruleset.Hook runs a Packet through the chains of a hook.
//
// ParseTable and TableDef.String do the same for a whole table. The package is
// pure: no input or output, no clock, standard library only.
package nft
