package api

import (
	"regexp"
	"strings"
)

// maxHostname is the longest host name the kernel takes, in bytes: __NEW_UTS_LEN.
const maxHostname = 64

// ValidHostname checks the host name of a sandbox: dotted labels of letters,
// digits, '-' and '_', at most 64 bytes. It ends up in /etc/hosts, where
// white space would start another name.
func ValidHostname(name string) error {
	label := `[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?`
	if len(name) > maxHostname || !regexp.MustCompile(`^`+label+`(\.`+label+`)*$`).MatchString(name) {
		return Errorf(Invalid, "hostname %q is not valid", clip(name)).
			WithFix("use letters, digits, '-' and '.', at most %d", maxHostname)
	}
	return nil
}

// HostnameOrName is the host name of s: its name unless it has another, as much
// of it as the kernel takes.
func (s *Sandbox) HostnameOrName() string {
	if s.Hostname != "" {
		return s.Hostname
	}
	return strings.TrimRight(s.Name[:min(len(s.Name), maxHostname)], "-.")
}
