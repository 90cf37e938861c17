//go:build linux

package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
	"golang.org/x/sys/unix"
)

// envRequire lists features, with commas, that must not be missing; "all" is all.
const envRequire = "TOWPATH_REQUIRE"

// Require skips a test that needs what is not here, and fails it where
// TOWPATH_REQUIRE demands the feature. It is the only way in which a test skips.
// The features are
//
//	netns        may make network namespaces, and is in one of its own
//	root         root of the initial user namespace
//	bpf          may load BPF
//	bpf-types    bpf, and the kernel tells its types (BTF), by which programs find what they read
//	bpf-hooks    bpf-types, and programs may be hooked into the packet filter (Linux 6.4)
//	kind:KIND    the kernel can make links of that kind
//	conntrack    the table of connections can be filled: it has 2^19 entries at most
//	NAME-binary  a program on the PATH; ping is ping-binary
func Require(t testing.TB, features ...string) {
	t.Helper()
	for _, feature := range features {
		err := missing(feature)
		switch {
		case err == nil:
		case errors.Is(err, errUnknown) || demanded(feature):
			t.Fatalf("needs %s: %v", feature, err)
		default:
			t.Skipf("skip: needs %s: %v", feature, err)
		}
	}
}

// Has reports whether a feature of Require is here, for tests that expect another
// outcome without it.
func Has(feature string) bool { return missing(feature) == nil }

// errUnknown is a mistake in a test, which no machine can satisfy.
var errUnknown = errors.New("no such feature")

// demanded tells whether the environment demands a feature.
func demanded(feature string) bool {
	list := strings.Split(os.Getenv(envRequire), ",")
	return slices.Contains(list, "all") || slices.Contains(list, feature)
}

// missing says why a feature is not here; nil: it is.
func missing(feature string) error {
	name, isBinary := strings.CutSuffix(feature, "-binary")
	kind, isKind := strings.CutPrefix(feature, "kind:")
	switch {
	case feature == "netns":
		return missingNetns()
	case feature == "root":
		return missingRoot()
	case feature == "bpf":
		return missingBPF()
	case feature == "conntrack":
		return missingConntrack()
	case feature == "bpf-types":
		return missingTypes()
	case feature == "bpf-hooks":
		return missingHooks()
	case feature == "ping":
		_, err := exec.LookPath(feature)
		return err
	case isBinary:
		_, err := exec.LookPath(name)
		return err
	case isKind:
		return missingKind(kind)
	}
	return errUnknown
}

// missingNetns asks what Main found.
func missingNetns() error {
	switch os.Getenv(envStage) {
	case stageReady:
		return nil
	case stagePlain:
		return errors.New(os.Getenv(envReason))
	}
	return fmt.Errorf("%w without TestMain calling testnet.Main", errUnknown)
}

// missingRoot tells root from root of a user namespace by the map: that of the
// initial one is the whole range of 32 bits on itself.
func missingRoot() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("user is %d", os.Geteuid())
	}
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return err
	}
	if !slices.Equal(strings.Fields(string(b)), []string{"0", "0", "4294967295"}) {
		return errors.New("root in a user namespace only")
	}
	return nil
}

// missingBPF makes the smallest map there is.
func missingBPF() error {
	const mapCreate, mapTypeArray = 0, 2 // BPF_MAP_CREATE, BPF_MAP_TYPE_ARRAY
	attr := struct{ mapType, keySize, valueSize, maxEntries uint32 }{mapTypeArray, 4, 4, 1}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, mapCreate, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return fmt.Errorf("make BPF map: %w", errno)
	}
	return unix.Close(int(fd))
}

// missingConntrack reads how many connections the kernel tracks in a namespace,
// which is one number for all of them.
func missingConntrack() error {
	const most = 1 << 19
	b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err == nil && n > most {
		err = fmt.Errorf("net.netfilter.nf_conntrack_max is %d, more than %d", n, most)
	}
	return err
}

// missingTypes looks for what the kernel tells of its types.
func missingTypes() error {
	if err := missingBPF(); err != nil {
		return err
	}
	_, err := os.Stat("/sys/kernel/btf/vmlinux")
	return err
}

// missingHooks loads the smallest program for the packet filter: it accepts.
func missingHooks() error {
	if err := missingTypes(); err != nil {
		return err
	}
	const progLoad, typeNetfilter, attachNetfilter = 5, 32, 45 // BPF_PROG_LOAD, BPF_PROG_TYPE_NETFILTER, BPF_NETFILTER
	code := []uint64{0x1<<32 | 0xb7, 0x95}                     // r0 = 1; exit
	licence := []byte("GPL\x00")
	attr := struct {
		progType, count     uint32
		code, licence       uintptr
		logLevel, logSize   uint32
		log                 uint64
		kernel, flags       uint32
		name                [16]byte
		ifindex, attachType uint32
	}{progType: typeNetfilter, count: uint32(len(code)), code: uintptr(unsafe.Pointer(&code[0])), licence: uintptr(unsafe.Pointer(&licence[0])), attachType: attachNetfilter}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, progLoad, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(code)
	runtime.KeepAlive(licence)
	if errno != 0 {
		return fmt.Errorf("load program for the packet filter: %w", errno)
	}
	return unix.Close(int(fd))
}

// missingKind makes a link of the kind in a namespace for it alone. Kinds that
// need a parent or parameters refuse that with another error than "unknown".
func missingKind(kind string) error {
	if err := missingNetns(); err != nil {
		return err
	}
	ns, err := netns.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	c, err := rt.Dial(int(ns.Fd()))
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.AddLink(context.Background(), kind, rt.LinkSpec{Name: "probe"})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return nil
}
