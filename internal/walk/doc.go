// Package walk follows a virtual packet through a description of the kernel's
// network: routes, neighbours, bridges, veth pairs, the hooks of nftables and
// connection tracking, there and back, over all namespaces. Nothing is sent.
//
// A machine.Host, wanted or observed, is made ready by New, and Walker.Walk gives
// the expected path of a packet as an api.Path.
//
// What the package takes for granted: queues, rate limits and full tables lose
// nothing, frames fit, checksums hold, ARP is not filtered, and beyond a link
// whose other end is not known there is somebody with every address, who answers.
package walk
