//go:build linux

// Package nft carries the rules of internal/nft to the kernel and back, over
// netlink, without the nft program. A Batch is one atomic transaction; the
// readers give plain data; a Monitor tells who changed what.
package nft
