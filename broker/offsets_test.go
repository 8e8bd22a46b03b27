package broker

import (
	"context"
	"testing"

	"pgregory.net/rapid"

	"github.com/purser-onboard/purser/pipeline"
)

func messagesOf(keys [][]byte) []pipeline.Message {
	all := make([]pipeline.Message, len(keys))
	for i, k := range keys {
		all[i].Key = k
	}
	return all
}

func TestWindowPrefix(t *testing.T) {
	w := newOffsetTracker(10, 100)
	step := func(want int64) {
		t.Helper()
		if got := w.prefix(); got != want {
			t.Errorf("prefix %d, want %d", got, want)
		}
	}
	step(10)
	w.add(10)
	w.add(11)
	w.add(15) // 12 to 14 are gone: compacted
	step(10)
	w.settle(11)
	step(10)
	w.settle(10)
	step(15) // all below the first unsettled one
	w.settle(10)
	w.settle(12) // never delivered
	step(15)
	w.abandon(15)
	step(15)
	if w.outstanding() != 0 {
		t.Error("an abandoned message is not waited for")
	}
	w.advance(20) // markers up to 20
	step(15)
	w.settle(15) // it settled after all
	step(20)
}

// The model is a map from offset to what was said about it.
func TestWindowModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Int64Range(0, 1<<40).Draw(t, "start")
		w, next := newOffsetTracker(start, 1<<20), start
		said := map[int64]state{}
		var delivered []int64
		offset := func(t *rapid.T) int64 {
			if len(delivered) == 0 {
				t.Skip("nothing delivered")
			}
			return rapid.SampledFrom(delivered).Draw(t, "offset")
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				for range rapid.IntRange(1, 600).Draw(t, "n") {
					at := next
					if rapid.IntRange(0, 9).Draw(t, "gap") == 0 {
						at += 3
					}
					w.add(at)
					said[at] = outstanding
					delivered = append(delivered, at)
					next = at + 1
				}
			},
			"settle":  func(t *rapid.T) { o := offset(t); w.settle(o); said[o] = settled },
			"abandon": func(t *rapid.T) { o := offset(t); w.abandon(o); said[o] = max(said[o], abandoned) },
			"settle all but one": func(t *rapid.T) {
				keep := offset(t)
				for _, o := range delivered {
					if o != keep {
						w.settle(o)
						said[o] = settled
					}
				}
			},
			"": func(t *rapid.T) {
				prefix, open := next, 0
				for i := len(delivered) - 1; i >= 0; i-- {
					if said[delivered[i]] != settled {
						prefix = delivered[i]
					}
					if said[delivered[i]] == outstanding {
						open++
					}
				}
				if got := w.prefix(); got != prefix {
					t.Fatalf("prefix %d, want %d", got, prefix)
				}
				if got := w.outstanding(); got != open {
					t.Fatalf("%d outstanding, want %d", got, open)
				}
			},
		})
	})
}

func TestWindowRoom(t *testing.T) {
	w := newOffsetTracker(0, 2)
	if n := w.room(t.Context()); n != 2 {
		t.Fatalf("room for %d, want 2", n)
	}
	w.add(0)
	w.add(1)
	got := make(chan int)
	go func() { got <- w.room(t.Context()) }()
	w.settle(1)
	if n := <-got; n != 1 {
		t.Fatalf("room for %d, want 1", n)
	}
	w.add(2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n := w.room(ctx); n != 0 {
		t.Fatalf("room for %d after the end", n)
	}
}
