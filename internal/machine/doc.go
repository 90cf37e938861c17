// Package machine describes a machine's network as plain data: its namespaces
// with their links, addresses, routes, neighbours, sockets, tracked connections
// and packet filter, as the kernel has them or as they are wanted.
//
// It is what is left when reading is done: a walk, a map and a diagnosis are
// functions of a Host. FromState makes one of wanted state, with what the kernel
// adds to it by itself.
package machine
