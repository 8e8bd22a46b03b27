package broker

import (
	"context"
	"sort"
	"sync"
)

// state of a delivered message.
type state uint8

const (
	outstanding state = iota
	abandoned
	settled
)

// offsetTracker knows which of a partition's delivered messages are settled. Its prefix is what may be committed: the
// offset below which everything is settled. It is safe for concurrent use.
type offsetTracker struct {
	limit int // most outstanding messages

	mu      sync.Mutex
	offsets []int64 // delivered and not yet in the prefix, ascending
	states  []state
	head    int   // offsets[:head] are in the prefix, kept until it pays to move the rest down
	open    int   // outstanding ones among the rest
	next    int64 // the offset delivery has come to: everything below was delivered, or was nothing to deliver
	settled int64 // how many were marked as settled
	changed chan struct{}
}

// newWindow begins at an offset below which everything is settled.
func newOffsetTracker(start int64, limit int) *offsetTracker {
	return &offsetTracker{limit: limit, next: start, changed: make(chan struct{}, 1)}
}

// add records that a message is about to be delivered. Offsets ascend.
func (w *offsetTracker) add(offset int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offsets = append(w.offsets, offset)
	w.states = append(w.states, outstanding)
	w.open++
	w.next = offset + 1
}

// advance records that there is nothing to deliver below next.
func (w *offsetTracker) advance(next int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = max(w.next, next)
}

// settle marks a message. Marking one twice, or one that was never delivered, changes nothing.
func (w *offsetTracker) settle(offset int64) { w.mark(offset, settled) }

// abandon marks a message that will not be settled in this run: it still holds back the prefix, but nobody waits for
// it.
func (w *offsetTracker) abandon(offset int64) { w.mark(offset, abandoned) }

func (w *offsetTracker) mark(offset int64, as state) {
	w.mu.Lock()
	i := w.find(offset)
	if i < 0 || w.states[i] >= as {
		w.mu.Unlock()
		return
	}
	if w.states[i] == outstanding {
		w.open--
	}
	if as == settled {
		w.settled++
	}
	w.states[i] = as
	for w.head < len(w.states) && w.states[w.head] == settled {
		w.head++
	}
	switch {
	case w.head == len(w.states):
		w.offsets, w.states, w.head = w.offsets[:0], w.states[:0], 0
	case w.head >= 1024 && w.head > len(w.states)/2:
		n := copy(w.offsets, w.offsets[w.head:])
		copy(w.states, w.states[w.head:])
		w.offsets, w.states, w.head = w.offsets[:n], w.states[:n], 0
	}
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// find returns the index of an offset that is not in the prefix, or -1. Without gaps it is where it is expected.
func (w *offsetTracker) find(offset int64) int {
	if w.head == len(w.offsets) || offset < w.offsets[w.head] {
		return -1
	}
	if i := int64(w.head) + offset - w.offsets[w.head]; i < int64(len(w.offsets)) && w.offsets[i] == offset {
		return int(i)
	}
	rest := w.offsets[w.head:]
	i := sort.Search(len(rest), func(i int) bool { return rest[i] >= offset })
	if i < len(rest) && rest[i] == offset {
		return w.head + i
	}
	return -1
}

// prefix is the offset that may be committed.
func (w *offsetTracker) prefix() int64 {
	_, first, _ := w.state()
	return first
}

// outstanding returns how many delivered messages are neither settled nor abandoned.
func (w *offsetTracker) outstanding() int {
	_, _, open := w.state()
	return open
}

// state returns how many messages were settled so far, the first one that is not (as prefix does), and how many are
// outstanding.
func (w *offsetTracker) state() (settled, first int64, open int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	first = w.next
	if w.head < len(w.offsets) {
		first = w.offsets[w.head]
	}
	return w.settled, first, w.open
}

// room waits until fewer than limit messages are outstanding and returns how many more may be. It is 0 when ctx ended.
func (w *offsetTracker) room(ctx context.Context) int {
	for ctx.Err() == nil {
		if n := w.limit - w.outstanding(); n > 0 {
			return n
		}
		w.wait(ctx)
	}
	return 0
}

// idle waits until nothing is outstanding, or ctx ends.
func (w *offsetTracker) idle(ctx context.Context) {
	for ctx.Err() == nil && w.outstanding() > 0 {
		w.wait(ctx)
	}
}

// wait returns after a change. The partition's reader is the only one that waits.
func (w *offsetTracker) wait(ctx context.Context) {
	select {
	case <-w.changed:
	case <-ctx.Done():
	}
}
