//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// running is what the kernel that runs tells of itself (BTF).
type running struct {
	types *btf.Spec
	// says: it gives reasons for drops, by these names.
	says    bool
	reasons map[uint32]string
}

// readKernel asks the kernel.
func readKernel() (*running, error) {
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types: %w: %w", errors.ErrUnsupported, err)
	}
	k := &running{types: types, reasons: map[uint32]string{}}
	args, err := arguments(types, "kfree_skb")
	if err != nil {
		return nil, err
	}
	// skb, location, reason, the socket that was to get it.
	k.says = args >= 3
	var reasons *btf.Enum
	if err := types.TypeByName("skb_drop_reason", &reasons); err == nil {
		for _, v := range reasons.Values {
			k.reasons[uint32(v.Value)] = strings.TrimPrefix(v.Name, "SKB_DROP_REASON_")
		}
	} else if !errors.Is(err, btf.ErrNotFound) {
		return nil, fmt.Errorf("read reasons of drops: %w", err)
	}
	return k, nil
}

// arguments is how many a tracepoint has.
func arguments(types *btf.Spec, tracepoint string) (int, error) {
	var t *btf.Typedef
	if err := types.TypeByName("btf_trace_"+tracepoint, &t); err != nil {
		return 0, fmt.Errorf("find tracepoint %s: %w: %w", tracepoint, errors.ErrUnsupported, err)
	}
	p, ok := t.Type.(*btf.Pointer)
	if !ok {
		return 0, fmt.Errorf("find tracepoint %s: %w: it is a %T", tracepoint, errors.ErrUnsupported, t.Type)
	}
	f, ok := p.Target.(*btf.FuncProto)
	if !ok {
		return 0, fmt.Errorf("find tracepoint %s: %w: it is a pointer to %T", tracepoint, errors.ErrUnsupported, p.Target)
	}
	return len(f.Params) - 1, nil // the first is the one that listens
}
