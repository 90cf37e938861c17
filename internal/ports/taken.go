//go:build linux

package ports

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// TakenError says that a port is another's. errors.Is finds unix.EADDRINUSE in
// it.
type TakenError struct {
	Proto string
	Addr  netip.AddrPort // what could not be held
	// PID and Process are the number and the name of a process that has it; 0
	// and "" where that cannot be found out, as for sockets of the kernel, of
	// TCP bound without listening, or of processes that may not be looked into.
	PID     int
	Process string
}

// Error names the port and the process.
func (e *TakenError) Error() string {
	by := "another program"
	if e.PID != 0 {
		by = fmt.Sprintf("%s (pid %d)", e.Process, e.PID)
	}
	return fmt.Sprintf("hold %s %s: in use by %s", e.Proto, e.Addr, by)
}

// Unwrap gives the error of bind and listen.
func (e *TakenError) Unwrap() error { return unix.EADDRINUSE }

// taken looks for who has a port, as well as it can.
func taken(p Port) *TakenError {
	e := &TakenError{Proto: p.base(), Addr: p.Addr}
	inode := holder(p, "/proc/thread-self/net")
	if inode == "" {
		return e
	}
	e.PID, e.Process = owner("/proc", inode)
	return e
}

// holder gives the inode of a socket that is in the way of p; "" when none is
// seen. A listening one says more than an end of a connection.
func holder(p Port, dir string) string {
	found := ""
	for _, file := range []string{p.base(), p.base() + "6"} {
		if p.v6only() && file == p.base() {
			continue // the table of IPv4
		}
		f, err := os.Open(filepath.Join(dir, file))
		if err != nil {
			continue // SCTP has no such table, a kernel without IPv6 no second one
		}
		inode, bound := inTheWay(f, p.Addr)
		f.Close()
		if bound {
			return inode
		}
		if inode != "" {
			found = inode
		}
	}
	return found
}

// inTheWay reads a table of /proc/net (proc(5)) for a socket at the port. bound
// is false when it is the end of a connection.
func inTheWay(table io.Reader, a netip.AddrPort) (inode string, bound bool) {
	const tcpListen, closed = "0A", "07" // TCP_LISTEN; TCP_CLOSE, a UDP socket that is not connected
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		// sl local_address rem_address st queues timer retransmissions uid timeout inode
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[9] == "0" {
			continue // the heading; what lingers is nobody's
		}
		local, ok := parseAddr(f[1])
		if !ok || !collide(local, a) {
			continue
		}
		inode = f[9]
		if f[3] == tcpListen || f[3] == closed {
			return inode, true
		}
	}
	return inode, false
}

// parseAddr reads "0100007F:1F90": words of 32 bits in the order of the host, and
// a port.
func parseAddr(s string) (netip.AddrPort, bool) {
	addr, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(addr)
	n, perr := strconv.ParseUint(port, 16, 16)
	if err != nil || perr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	a, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), ok
}

// collide tells whether sockets at both can be in each other's way. Whether one
// at [::] is for IPv6 alone is not told by the kernel's tables.
func collide(a, b netip.AddrPort) bool {
	x, y := a.Addr().Unmap().WithZone(""), b.Addr().Unmap().WithZone("")
	covers := func(any, one netip.Addr) bool { return any.IsUnspecified() && (any.Is6() || one.Is4()) }
	return a.Port() == b.Port() && (x == y || covers(x, y) || covers(y, x))
}

// owner finds the process that has the socket open.
func owner(proc, inode string) (pid int, name string) {
	processes, err := os.ReadDir(proc)
	if err != nil {
		return 0, ""
	}
	for _, process := range processes {
		pid, err := strconv.Atoi(process.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join(proc, process.Name())
		if !hasOpen(filepath.Join(dir, "fd"), "socket:["+inode+"]") {
			continue
		}
		name, err := os.ReadFile(filepath.Join(dir, "comm"))
		if errors.Is(err, os.ErrNotExist) {
			return 0, "" // gone meanwhile
		}
		return pid, strings.TrimSpace(string(name))
	}
	return 0, ""
}

// hasOpen tells whether a descriptor of the directory is of that file. One that
// may not be looked into has none.
func hasOpen(dir, file string) bool {
	d, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	fds, err := d.Readdirnames(-1)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if target, err := os.Readlink(filepath.Join(dir, fd)); err == nil && target == file {
			return true
		}
	}
	return false
}
