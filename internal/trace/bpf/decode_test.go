//go:build linux

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// TestDecode: an event is what encoding/binary makes of its bytes, all of them.
func TestDecode(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	for range 200 {
		b := make([]byte, sizeofEvent)
		if _, err := random.Read(b); err != nil {
			t.Fatal(err)
		}
		var got, want event
		if err := got.decode(b); err != nil {
			t.Fatal(err)
		}
		if err := binary.Read(bytes.NewReader(b), binary.NativeEndian, &want); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Fatalf("decoded %+v, want %+v", got, want)
		}
		if err := got.decode(b[1:]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut off: %v", err)
		}
	}
	if n := binary.Size(event{}); n != sizeofEvent {
		t.Errorf("an event has %d bytes, not %d", n, sizeofEvent)
	}
}

func BenchmarkDecode(b *testing.B) {
	sample := make([]byte, sizeofEvent)
	var e event
	b.Run("hand", func(b *testing.B) {
		for b.Loop() {
			_ = e.decode(sample)
		}
	})
	b.Run("reflection", func(b *testing.B) {
		for b.Loop() {
			_ = binary.Read(bytes.NewReader(sample), binary.NativeEndian, &e)
		}
	})
}
