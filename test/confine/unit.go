//go:build linux

package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// settings are those of a unit that can be applied without systemd.
type settings struct {
	caps    map[uintptr]bool
	nofile  uint64
	oom     string
	filters [][]unix.SockFilter // the last one allows nothing that another needs
}

// reading is a unit as far as it has been read.
type reading struct {
	settings
	groups map[string][]string
	number map[string]uint32 // of constants, as SYS_read, CAP_CHOWN, AF_UNIX
	allow  map[string]bool   // system calls by name
	rules  []rule
	noNew  bool
}

// parseUnit reads the settings of a unit.
func parseUnit(text string, groups map[string][]string, number map[string]uint32) (settings, error) {
	r := reading{settings: settings{caps: map[uintptr]bool{}}, groups: groups, number: number, allow: map[string]bool{}}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '[' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return settings{}, fmt.Errorf("line %q is no setting", line)
		}
		if err := r.set(key, value); err != nil {
			return settings{}, fmt.Errorf("%s=%s: %w", key, value, err)
		}
	}
	if !r.noNew {
		return settings{}, errors.New("NoNewPrivileges= is missing, and with it the right to filter system calls")
	}
	if len(r.allow) == 0 {
		return settings{}, errors.New("SystemCallFilter= is missing")
	}
	r.filters = append(r.filters, r.deny(), r.permit())
	return r.settings, nil
}

// set applies one setting. None that is taken here gives the unit a mount
// namespace of its own.
func (r *reading) set(key, value string) error {
	words := strings.Fields(value)
	switch key {
	case "Description", "Documentation", "After", "WantedBy", "ExecStart",
		"Type", "Restart", "RestartSec", "WatchdogSec", "KillMode", "TimeoutStopSec",
		"FileDescriptorStoreMax", "Environment", "StateDirectory", "StateDirectoryMode":
		return nil // systemd's own doing, before or after the command runs
	case "LimitNOFILE":
		var err error
		r.nofile, err = strconv.ParseUint(value, 10, 64)
		return err
	case "OOMScoreAdjust":
		r.oom = value
		return nil
	case "CapabilityBoundingSet":
		return r.each(words, "", func(n uint32) { r.caps[uintptr(n)] = true })
	case "RestrictAddressFamilies":
		var families []uint32
		err := r.each(words, "", func(n uint32) { families = append(families, n) })
		r.filters = append(r.filters, only("SYS_socket", 0, families, unix.EAFNOSUPPORT, r.number))
		return err
	case "RestrictNamespaces":
		return r.restrictNamespaces(words)
	case "SystemCallFilter":
		return r.filterCalls(words)
	}
	return r.setSwitch(key, value)
}

// setSwitch applies a setting that has one value only here.
func (r *reading) setSwitch(key, value string) error {
	known := map[string]string{
		"NoNewPrivileges": "yes", "MemoryDenyWriteExecute": "yes", "LockPersonality": "yes",
		"SystemCallArchitectures": "native", "SystemCallErrorNumber": "EPERM",
	}
	switch want, ok := known[key]; {
	case !ok:
		return errors.New("this setting is not known here: apply it, or list it where systemd alone can")
	case value != want:
		return fmt.Errorf("only %q is known here", want)
	}
	switch key {
	case "NoNewPrivileges":
		r.noNew = true
	case "MemoryDenyWriteExecute":
		const both = unix.PROT_WRITE | unix.PROT_EXEC
		r.rules = append(r.rules, rule{"SYS_mmap", 2, both, both, unix.EPERM},
			rule{"SYS_mprotect", 2, unix.PROT_EXEC, unix.PROT_EXEC, unix.EPERM},
			rule{"SYS_pkey_mprotect", 2, unix.PROT_EXEC, unix.PROT_EXEC, unix.EPERM})
	case "LockPersonality": // systemd allows the one that is
		r.rules = append(r.rules, rule{"SYS_personality", 0, 0, 0, unix.EPERM})
	}
	return nil
}

// each gives the numbers of constants to use.
func (r *reading) each(names []string, prefix string, use func(uint32)) error {
	for _, name := range names {
		n, ok := r.number[prefix+name]
		if !ok {
			return fmt.Errorf("%s%s is not known", prefix, name)
		}
		use(n)
	}
	return nil
}

// restrictNamespaces allows to make and enter namespaces of the kinds named. As
// systemd does, it refuses to enter one without saying the kind, and clone3(2),
// whose flags a filter cannot see: callers then take clone(2).
func (r *reading) restrictNamespaces(kinds []string) error {
	flags := map[string]uint32{
		"cgroup": unix.CLONE_NEWCGROUP, "ipc": unix.CLONE_NEWIPC, "net": unix.CLONE_NEWNET, "mnt": unix.CLONE_NEWNS,
		"pid": unix.CLONE_NEWPID, "user": unix.CLONE_NEWUSER, "uts": unix.CLONE_NEWUTS,
	}
	for _, kind := range kinds {
		if flags[kind] == 0 {
			return fmt.Errorf("namespace %q is not known", kind)
		}
		delete(flags, kind)
	}
	for _, kind := range slices.Sorted(maps.Keys(flags)) {
		flag := flags[kind]
		r.rules = append(r.rules, rule{"SYS_unshare", 0, flag, flag, unix.EPERM},
			rule{"SYS_clone", 0, flag, flag, unix.EPERM}, rule{"SYS_setns", 1, flag, flag, unix.EPERM})
	}
	r.rules = append(r.rules, rule{"SYS_setns", 1, ^uint32(0), 0, unix.EPERM}, rule{"SYS_clone3", 0, 0, 0, unix.ENOSYS})
	return nil
}

// filterCalls adds system calls and groups of them, or takes them away.
func (r *reading) filterCalls(words []string) error {
	remove := false
	for i, word := range words {
		if rest, ok := strings.CutPrefix(word, "~"); ok && i == 0 {
			remove, word = true, rest
		}
		calls, err := r.expand(word)
		if err != nil {
			return err
		}
		for _, call := range calls {
			if remove {
				delete(r.allow, call)
			} else {
				r.allow[call] = true
			}
		}
	}
	return nil
}

// expand gives the system calls of a group, down to the last.
func (r *reading) expand(word string) ([]string, error) {
	if !strings.HasPrefix(word, "@") {
		return []string{word}, nil
	}
	group, ok := r.groups[word]
	if !ok {
		return nil, fmt.Errorf("group %s is not known", word)
	}
	var all []string
	for _, member := range group {
		calls, err := r.expand(member)
		if err != nil {
			return nil, err
		}
		all = append(all, calls...)
	}
	return all, nil
}

// parseGroups reads what `systemd-analyze syscall-filter` prints: a group, and
// indented behind it what is in it.
func parseGroups(text string) map[string][]string {
	groups, group := map[string][]string{}, ""
	for line := range strings.Lines(text) {
		word := strings.TrimSpace(line)
		switch {
		case word == "" || word[0] == '#':
		case line[0] == '@':
			group = word
		default:
			groups[group] = append(groups[group], word)
		}
	}
	return groups
}

// constants reads the numbers of system calls, capabilities and families. The
// names of system calls are as the kernel has them: SYS_read.
func constants(dir string) (map[string]uint32, error) {
	out := map[string]uint32{}
	for _, name := range []string{"zerrors_linux.go", "zsysnum_linux_" + runtime.GOARCH + ".go"} {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || len(v.Values) != 1 {
				return true
			}
			lit, ok := v.Values[0].(*ast.BasicLit)
			if !ok || lit.Kind != token.INT {
				return true
			}
			if i, err := strconv.ParseUint(lit.Value, 0, 32); err == nil {
				out[constantName(v.Names[0].Name)] = uint32(i)
			}
			return true
		})
	}
	return out, nil
}

// constantName undoes the capitals of a system call's name: SYS_READ.
func constantName(name string) string {
	if call, ok := strings.CutPrefix(name, "SYS_"); ok {
		return "SYS_" + strings.ToLower(call)
	}
	return name
}
