//go:build linux

package bpf

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/towpath/towpath/internal/testnet"
)

// TestPortable: the object rests on no processor. Its programs get typed arguments,
// not the registers of a machine (pt_regs, which differ between amd64 and arm64), and
// each has places in the kernel's structures looked up when it is loaded.
func TestPortable(t *testing.T) {
	f, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	if f.Machine != elf.EM_BPF || f.Data != elf.ELFDATA2LSB {
		t.Errorf("object is for %v, %v", f.Machine, f.Data)
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pt_regs", "user_pt_regs"} {
		if _, err := spec.Types.AnyTypesByName(name); err == nil {
			t.Errorf("object reads the registers of a machine: struct %s", name)
		}
	}
	if len(spec.Programs) == 0 {
		t.Error("no programs in the object")
	}
	for name, p := range spec.Programs {
		if !strings.HasPrefix(p.SectionName, "tp_btf/") && p.SectionName != "netfilter" {
			t.Errorf("program %s is of section %s, whose arguments may be those of one machine", name, p.SectionName)
		}
		moved := 0
		for i := range p.Instructions {
			if btf.CORERelocationMetadata(&p.Instructions[i]) != nil {
				moved++
			}
		}
		if moved == 0 {
			t.Errorf("program %s has nothing looked up when it is loaded", name)
		}
	}
}

// TestEmbedded: builds for both machines have the object in them.
func TestEmbedded(t *testing.T) {
	testnet.Require(t, "go-binary")
	for _, arch := range []string{"amd64", "arm64"} {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.EmbedFiles}}", ".")
		cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("list what %s embeds: %v", arch, err)
		}
		if got := strings.TrimSpace(string(out)); got != "[trace_bpfel.o]" {
			t.Errorf("%s embeds %s, want [trace_bpfel.o]", arch, got)
		}
	}
}
