package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/trace/bpf"
)

// lostPackets is how many packets are sent to nobody, for the kernel to drop.
const lostPackets = 2000

// hit is what a run of a program takes, by the kernel's own statistics, beside one
// of an empty program at the same place.
type hit struct {
	name        string
	runs        uint64
	took, empty []float64 // nanoseconds, a round each
}

// more is what the program takes and the empty one does not. What the statistics
// themselves cost is in both.
func (h hit) more() float64 {
	var list []float64
	for i := range h.took {
		list = append(list, h.took[i]-h.empty[i])
	}
	return median(list)
}

// empties are programs that do nothing, by the names of those they stand beside.
type empties struct {
	programs map[string]*ebpf.Program
	links    []link.Link
}

// Close takes them away.
func (e *empties) Close() error {
	var errs []error
	for _, l := range e.links {
		errs = append(errs, l.Close())
	}
	for _, p := range e.programs {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// openEmpty attaches them.
func openEmpty(spaces []bpf.Space) (*empties, error) {
	e := &empties{programs: map[string]*ebpf.Program{}}
	if err := e.attach(spaces); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *empties) attach(spaces []bpf.Space) error {
	for name, tracepoint := range map[string]string{"received": "netif_receive_skb", "sent": "net_dev_start_xmit", "dropped": "kfree_skb"} {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: tracepoint, License: "GPL", Instructions: returns(0),
		})
		if err != nil {
			return fmt.Errorf("load empty program: %w", err)
		}
		e.programs[name] = p
		l, err := link.AttachTracing(link.TracingOptions{Program: p, AttachType: ebpf.AttachTraceRawTp})
		if err != nil {
			return fmt.Errorf("attach empty program: %w", err)
		}
		e.links = append(e.links, l)
	}
	for name, priority := range map[string]int32{"entered": math.MinInt32 + 1000, "left": math.MaxInt32 - 1000} {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.Netfilter, AttachType: ebpf.AttachNetfilter, License: "GPL", Instructions: returns(1), // NF_ACCEPT
		})
		if err != nil {
			return fmt.Errorf("load empty program: %w", err)
		}
		e.programs[name] = p
		for _, s := range spaces {
			if err := netns.Do(s.File, func() error { return e.hook(p, priority) }); err != nil {
				return fmt.Errorf("attach empty program: %w", err)
			}
		}
	}
	return nil
}

func returns(n int32) asm.Instructions { return asm.Instructions{asm.Mov.Imm(asm.R0, n), asm.Return()} }

// hook attaches a program to every hook of IPv4 in this thread's namespace.
func (e *empties) hook(p *ebpf.Program, priority int32) error {
	for hook := link.NetfilterInetPreRouting; hook <= link.NetfilterInetPostRouting; hook++ {
		l, err := link.AttachNetfilter(link.NetfilterOptions{Program: p, ProtocolFamily: link.NetfilterProtoIPv4, Hook: hook, Priority: priority})
		if err != nil {
			return err
		}
		e.links = append(e.links, l)
	}
	return nil
}

// count has packets pass both, and asks how often each ran, and for how long.
func (t *traces) count(l *line, spaces []bpf.Space) error {
	full, err := bpf.Open(bpf.Config{Mark: nobody, Proto: 6, V4: true, Hooks: true, Spaces: spaces})
	if err != nil {
		return err
	}
	defer full.Close() //nolint:errcheck // nothing of it is kept
	empty, err := openEmpty(spaces)
	if err != nil {
		return err
	}
	defer empty.Close() //nolint:errcheck // as above
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return fmt.Errorf("ask for statistics of programs: %w", err)
	}
	defer stats.Close() //nolint:errcheck // as above
	if _, err := l.client.ask(request, l.to, requestsARound); err != nil {
		return err
	}
	if err := lose(l); err != nil {
		return err
	}
	for _, name := range []string{"received", "sent", "dropped", "entered", "left"} {
		if err := t.note(name, full.Programs()[name], empty.programs[name]); err != nil {
			return err
		}
	}
	return nil
}

// lose sends datagrams to where nobody listens.
func lose(l *line) error {
	return netns.Do(l.made[0].f, func() error {
		c, err := net.Dial("udp", l.to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		for range lostPackets {
			if _, err := c.Write([]byte{0}); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
				return err
			}
		}
		return nil
	})
}

// note adds a round of one program.
func (t *traces) note(name string, program, empty *ebpf.Program) error {
	i := slices.IndexFunc(t.hits, func(h hit) bool { return h.name == name })
	if i < 0 {
		i = len(t.hits)
		t.hits = append(t.hits, hit{name: name})
	}
	for _, x := range []struct {
		of   *ebpf.Program
		into *[]float64
	}{{program, &t.hits[i].took}, {empty, &t.hits[i].empty}} {
		s, err := x.of.Stats()
		if err != nil {
			return fmt.Errorf("ask for statistics of program %s: %w", name, err)
		}
		if s.RunCount == 0 {
			return fmt.Errorf("program %s did not run", name)
		}
		*x.into = append(*x.into, float64(s.Runtime.Nanoseconds())/float64(s.RunCount))
		if x.of == program {
			t.hits[i].runs += s.RunCount
		}
	}
	return nil
}
