//go:build linux

// Package bpf watches packets by programs in the kernel: as devices take them in
// and send them, as they enter and leave the hooks of the packet filter, and as
// they are dropped, with the kernel's own reason. It sees headers only, and only
// of packets that were asked for; when its process dies, nothing is left.
package bpf

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/trace"
)

// object are the programs, for every machine that is little endian, as amd64 and
// arm64 are: where the kernel that runs has what they read is found out here.
//
//go:embed trace_bpfel.o
var object []byte

// Space is a namespace of which the name is known.
type Space struct {
	Name  string
	Inode uint64
	File  *os.File // nil: its packet filter is not watched
}

// Config says what to watch for.
type Config struct {
	// Mark and Proto are those of the packets; without mark those that begin a
	// flow or answer one that begins.
	Mark  trace.Mark
	Proto uint8
	// V4 and V6 are the families that the packet filter is watched for.
	V4, V6 bool
	// Drops tells of every packet that is dropped, be it asked for or not.
	Drops bool
	// Hooks watches the hooks of the packet filter in the namespaces that are open.
	Hooks  bool
	Spaces []Space
}

// aSecond is how many events a processor tells of in a second.
const aSecond = 8192

// Session watches until it is closed.
type Session struct {
	programs *ebpf.Collection
	links    []link.Link
	reader   *ringbuf.Reader
	record   ringbuf.Record
	names    map[uint32]string // of namespaces, by their inodes
	places   map[uint64]string // where packets were last
	reasons  map[uint32]string
	start    time.Time     // of the clock that events have
	lost     uint64        // that was told of before
	boot     time.Duration // of start
}

// Open loads the programs and attaches them. Where the kernel or the rights lack
// what they need it is an errors.ErrUnsupported.
func Open(c Config) (*Session, error) {
	k, err := readKernel()
	if err != nil {
		return nil, err
	}
	spec, err := k.programs(c)
	if err != nil {
		return nil, err
	}
	s := &Session{names: map[uint32]string{}, places: map[uint64]string{}, reasons: k.reasons}
	for _, sp := range c.Spaces {
		s.names[uint32(sp.Inode)] = sp.Name
	}
	if s.programs, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: k.types}}); err != nil {
		return nil, unsupported("load programs", err)
	}
	if s.reader, err = ringbuf.NewReader(s.programs.Maps["events"]); err != nil {
		return nil, errors.Join(fmt.Errorf("read events: %w", err), s.Close())
	}
	if s.start, s.boot, err = clocks(); err == nil {
		err = s.attach(c)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// unsupported says what is missing where the kernel or the rights refuse.
func unsupported(what string, err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s: %w: %w", what, errors.ErrUnsupported, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// programs are those that this kernel can run, of those that are asked for.
func (k *running) programs(c Config) (*ebpf.CollectionSpec, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("read programs: %w", err)
	}
	leave := []string{"dropped_unsaid"}
	if !k.says {
		leave[0] = "dropped"
	}
	if !c.Hooks {
		leave = append(leave, "entered", "left")
	}
	for _, name := range leave {
		delete(spec.Programs, name)
	}
	for name, value := range map[string]any{"mark": uint16(c.Mark), "protocol": c.Proto, "all_drops": flag(c.Drops), "a_second": uint32(aSecond)} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	spaces := spec.Maps["watched"]
	spaces.MaxEntries = uint32(max(1, len(c.Spaces)))
	for _, sp := range c.Spaces {
		spaces.Contents = append(spaces.Contents, ebpf.MapKV{Key: uint32(sp.Inode), Value: uint8(1)})
	}
	return spec, nil
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// attach makes the programs run. The links are file descriptors, and what they
// hold goes with them, however that ends.
func (s *Session) attach(c Config) error {
	for _, name := range []string{"received", "sent", "dropped", "dropped_unsaid"} {
		p := s.programs.Programs[name]
		if p == nil {
			continue
		}
		l, err := link.AttachTracing(link.TracingOptions{Program: p, AttachType: ebpf.AttachTraceRawTp})
		if err != nil {
			return unsupported("attach program "+name, err)
		}
		s.links = append(s.links, l)
	}
	for _, sp := range c.Spaces {
		if !c.Hooks || sp.File == nil {
			continue
		}
		if err := netns.Do(sp.File, func() error { return s.hooks(c) }); err != nil {
			return unsupported("watch the packet filter of "+sp.Name, err)
		}
	}
	return nil
}

// mostHooked is how many watches a namespace has at once.
const mostHooked = 32

// hooks attaches the first and the last there are in each hook of this thread's
// namespace. No two programs may have one priority (EBUSY): so another watch
// stands a little further in, where nothing that decides can be.
func (s *Session) hooks(c Config) error {
	for family, want := range map[link.NetfilterProtocolFamily]bool{link.NetfilterProtoIPv4: c.V4, link.NetfilterProtoIPv6: c.V6} {
		for hook := link.NetfilterInetPreRouting; want && hook <= link.NetfilterInetPostRouting; hook++ {
			o := link.NetfilterOptions{Program: s.programs.Programs["entered"], ProtocolFamily: family, Hook: hook, Priority: math.MinInt32 + 1}
			if err := s.hook(o, 1); err != nil {
				return err
			}
			o.Program, o.Priority = s.programs.Programs["left"], math.MaxInt32-1
			if err := s.hook(o, -1); err != nil {
				return err
			}
		}
	}
	return nil
}

// hook attaches one, at the first priority that is free.
func (s *Session) hook(o link.NetfilterOptions, step int32) error {
	for range mostHooked {
		l, err := link.AttachNetfilter(o)
		if err == nil {
			s.links = append(s.links, l)
			return nil
		}
		if o.Priority += step; !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return unix.EBUSY
}

// Programs are those that run, by their names: for who measures what they cost.
func (s *Session) Programs() map[string]*ebpf.Program { return s.programs.Programs }

// Close ends it: nothing stays attached.
func (s *Session) Close() error {
	var errs []error
	for _, l := range s.links {
		errs = append(errs, l.Close())
	}
	s.links = nil
	if s.reader != nil {
		errs = append(errs, s.reader.Close())
	}
	if s.programs != nil {
		s.programs.Close()
	}
	return errors.Join(errs...)
}

// clocks are the time of day and the one that events have, at once: of several
// readings the one in which least time went by between them.
func clocks() (now time.Time, mono time.Duration, err error) {
	least := time.Duration(math.MaxInt64)
	for range 5 {
		before, err := monotonic()
		if err != nil {
			return time.Time{}, 0, err
		}
		day := time.Now()
		after, err := monotonic()
		if err != nil {
			return time.Time{}, 0, err
		}
		if after-before < least {
			least, now, mono = after-before, day, before+(after-before)/2
		}
	}
	return now, mono, nil
}

func monotonic() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano()), os.NewSyscallError("clock_gettime", err)
}
