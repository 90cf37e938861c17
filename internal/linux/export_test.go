//go:build linux

package linux

import (
	"context"

	"github.com/towpath/towpath/internal/linux/netns"
)

// FillReady makes namespaces ready until there are enough, and says how many
// there are.
func (k *Kernel) FillReady(ctx context.Context) (int, error) {
	for {
		want := k.ready.lacking()
		if want == nil {
			k.ready.mu.Lock()
			defer k.ready.mu.Unlock()
			return len(k.ready.list), nil
		}
		r, err := k.furnish(ctx, want)
		if err != nil {
			return 0, err
		}
		k.ready.put(r)
	}
}

// NextReady is the cookie of the namespace that the next sandbox gets.
func (k *Kernel) NextReady() (uint64, error) {
	k.ready.mu.Lock()
	defer k.ready.mu.Unlock()
	return netns.Cookie(k.ready.list[0].space.file)
}
