//go:build linux

// Package watch chooses by what means packets are watched: the best that the
// kernel and the rights of the process allow, or the one that is asked for.
package watch

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/trace"
	"github.com/towpath/towpath/internal/trace/bpf"
	"github.com/towpath/towpath/internal/trace/taps"
)

// Want is what to watch for.
type Want struct {
	// Level is by what means; "": the best there are.
	Level api.PathLevel
	// Proto and Mark are those of the packets; with neither it is what begins flows.
	Proto uint8
	Mark  trace.Mark
	// V6 are the packets of one mark of IPv6.
	V6 bool
	// Drops tells of every packet that is dropped.
	Drops bool
	// Machine knows the namespaces, Spaces are those to watch.
	Machine *machine.Host
	Spaces  []taps.Space
}

// levels are the ways to watch, the best first.
func levels() []api.PathLevel {
	return []api.PathLevel{api.LevelFull, api.LevelTracepoints, api.LevelTaps}
}

// Check refuses a level by which nothing can be watched.
func Check(level api.PathLevel) error {
	if level != "" && !slices.Contains(levels(), level) {
		return api.Errorf(api.Invalid, "level %q is not known", level).WithFix("use full, tracepoints or taps")
	}
	return nil
}

// Open begins to watch, and says at what level.
func Open(ctx context.Context, w Want) (*taps.Session, api.PathLevel, error) {
	for _, level := range levels() {
		if w.Level != "" && w.Level != level {
			continue
		}
		if level == api.LevelTaps {
			s, err := taps.Open(ctx, w.Spaces, w.Proto, w.Mark)
			return s, level, err
		}
		programs, err := bpf.Open(w.programs(level))
		if err == nil {
			s, err := taps.OpenWith(ctx, programs, w.Spaces, w.Proto, w.Mark)
			return s, level, err
		}
		if w.Level != "" {
			return nil, "", refused(level, err)
		}
	}
	return nil, "", Check(w.Level)
}

// programs is what programs of BPF are to tell of.
func (w Want) programs(level api.PathLevel) bpf.Config {
	c := bpf.Config{
		Mark: w.Mark, Proto: w.Proto, Drops: w.Drops, Hooks: level == api.LevelFull,
		V4: w.Mark == 0 || !w.V6, V6: w.Mark == 0 || w.V6,
	}
	for i := range w.Machine.Spaces {
		s := bpf.Space{Name: w.Machine.Spaces[i].Name, Inode: w.Machine.Spaces[i].Inode}
		if at := slices.IndexFunc(w.Spaces, func(x taps.Space) bool { return x.Name == s.Name }); at >= 0 {
			s.File = w.Spaces[at].File
		}
		c.Spaces = append(c.Spaces, s)
	}
	return c
}

// refused says what a level needs.
func refused(level api.PathLevel, err error) error {
	if !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("watch at level %s: %w", level, err)
	}
	needs := "Linux 5.13 or newer with CONFIG_DEBUG_INFO_BTF"
	if level == api.LevelFull {
		needs = "Linux 6.4 or newer with CONFIG_DEBUG_INFO_BTF and CONFIG_NETFILTER_BPF_LINK"
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		needs = "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN of the machine's own user namespace"
	}
	return api.Errorf(api.Unsupported, "level %s needs %s: %w", level, needs, err).WithFix("use --level taps, or none for the best there is")
}
