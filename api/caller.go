package api

import "os"

// Caller is who sent a request over the daemon's socket.
type Caller struct {
	// Netns is the network namespace that was passed beside the request, nil
	// when none was. It belongs to the server, which closes it when the request
	// is done: a callee that keeps it has to duplicate it.
	Netns *os.File
	// PID is the peer's process (SO_PEERCRED); 0 when it is in no namespace
	// that the daemon can see.
	PID int
}
