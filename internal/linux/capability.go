//go:build linux

package linux

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// checkCapabilities says at once, and in words, what would otherwise be EPERM
// somewhere later.
func checkCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	var missing []string
	for _, c := range []struct {
		bit  uint
		name string
	}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}} {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("towpathd needs %s in its network namespace: run it as root, or in a user namespace (unshare -Urnm)", strings.Join(missing, " and "))
	}
	return nil
}
