package broker

import (
	"context"
	"testing"

	"pgregory.net/rapid"
)

func TestOffsetTrackerPrefix(t *testing.T) {
	o := newOffsetTracker(10, 100)
	wantPrefix := func(want int64) {
		t.Helper()
		if got := o.prefix(); got != want {
			t.Errorf("got prefix %d, want %d", got, want)
		}
	}
	wantPrefix(10)
	o.add(10)
	o.add(11)
	o.add(15) // compaction has removed 12 to 14
	wantPrefix(10)
	o.ack(11)
	wantPrefix(10)
	o.ack(10)
	wantPrefix(15) // the first that is not acknowledged
	o.ack(10)
	o.ack(12) // never delivered
	wantPrefix(15)
	o.deferOffset(15)
	wantPrefix(15)
	if got := o.outstanding(); got != 0 {
		t.Errorf("got %d outstanding messages, want 0: a deferred message does not count", got)
	}
	o.skipTo(20) // markers up to 20
	wantPrefix(15)
	o.ack(15) // after it was deferred
	wantPrefix(20)
}

// The model is a map from offset to state.
func TestOffsetTrackerModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Int64Range(0, 1<<40).Draw(t, "start")
		tracker, next := newOffsetTracker(start, 1<<20), start
		states := map[int64]offsetState{}
		var delivered []int64
		draw := func(t *rapid.T) int64 {
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
					tracker.add(at)
					states[at] = outstanding
					delivered = append(delivered, at)
					next = at + 1
				}
			},
			"ack":   func(t *rapid.T) { o := draw(t); tracker.ack(o); states[o] = acknowledged },
			"defer": func(t *rapid.T) { o := draw(t); tracker.deferOffset(o); states[o] = max(states[o], deferred) },
			"ack all but one": func(t *rapid.T) {
				keep := draw(t)
				for _, o := range delivered {
					if o != keep {
						tracker.ack(o)
						states[o] = acknowledged
					}
				}
			},
			"": func(t *rapid.T) {
				prefix, open := next, 0
				for i := len(delivered) - 1; i >= 0; i-- {
					if states[delivered[i]] != acknowledged {
						prefix = delivered[i]
					}
					if states[delivered[i]] == outstanding {
						open++
					}
				}
				if got := tracker.prefix(); got != prefix {
					t.Fatalf("got prefix %d, want %d", got, prefix)
				}
				if got := tracker.outstanding(); got != open {
					t.Fatalf("got %d outstanding messages, want %d", got, open)
				}
			},
		})
	})
}

func TestOffsetTrackerRoom(t *testing.T) {
	o := newOffsetTracker(0, 2)
	if got := o.room(t.Context()); got != 2 {
		t.Fatalf("empty: got room for %d messages, want 2", got)
	}
	o.add(0)
	o.add(1)
	room := make(chan int)
	go func() { room <- o.room(t.Context()) }()
	o.ack(1)
	if got := <-room; got != 1 {
		t.Fatalf("after an ack: got room for %d messages, want 1", got)
	}
	o.add(2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := o.room(ctx); got != 0 {
		t.Fatalf("after ctx ended: got room for %d messages, want 0", got)
	}
}
