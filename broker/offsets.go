package broker

import (
	"context"
	"slices"
	"sync"
)

// offsetState is the state of a delivered message.
type offsetState uint8

const (
	outstanding  offsetState = iota
	deferred                 // not acknowledged in this run; see Consumer.Defer
	acknowledged             // may be committed
)

// offsetTracker knows which of a partition's delivered messages are acknowledged. Its prefix may be committed: the
// offset below which all messages are acknowledged. It is safe for concurrent use.
type offsetTracker struct {
	limit int // most outstanding messages

	mu      sync.Mutex
	offsets []int64 // delivered and not yet in the prefix, ascending
	states  []offsetState
	head    int   // offsets[:head] are in the prefix; they are removed when that is worth a copy
	open    int   // outstanding messages among the rest
	next    int64 // the next offset to deliver
	acked   int64 // how many messages were acknowledged
	changed chan struct{}
}

// newOffsetTracker begins at an offset below which all messages are acknowledged.
func newOffsetTracker(start int64, limit int) *offsetTracker {
	return &offsetTracker{limit: limit, next: start, changed: make(chan struct{}, 1)}
}

// add records that a message is about to be delivered. Offsets ascend.
func (t *offsetTracker) add(offset int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.offsets = append(t.offsets, offset)
	t.states = append(t.states, outstanding)
	t.open++
	t.next = offset + 1
}

// skipTo records that there is nothing to deliver between the last message and next.
func (t *offsetTracker) skipTo(next int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = max(t.next, next)
}

// ack marks a message as acknowledged. A second call, or an offset that was never delivered, changes nothing.
func (t *offsetTracker) ack(offset int64) { t.mark(offset, acknowledged) }

// deferOffset marks a message as deferred: it still holds back the prefix, but room and idle do not count it.
func (t *offsetTracker) deferOffset(offset int64) { t.mark(offset, deferred) }

func (t *offsetTracker) mark(offset int64, as offsetState) {
	t.mu.Lock()
	i := t.find(offset)
	if i < 0 || t.states[i] >= as {
		t.mu.Unlock()
		return
	}
	if t.states[i] == outstanding {
		t.open--
	}
	if as == acknowledged {
		t.acked++
	}
	t.states[i] = as
	for t.head < len(t.states) && t.states[t.head] == acknowledged {
		t.head++
	}
	switch {
	case t.head == len(t.states):
		t.offsets, t.states, t.head = t.offsets[:0], t.states[:0], 0
	case t.head >= 1024 && t.head > len(t.states)/2:
		n := copy(t.offsets, t.offsets[t.head:])
		copy(t.states, t.states[t.head:])
		t.offsets, t.states, t.head = t.offsets[:n], t.states[:n], 0
	}
	t.mu.Unlock()
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// find returns the index of an offset that is not in the prefix, or -1. It computes the index where offsets have no
// gaps, and searches for it otherwise.
func (t *offsetTracker) find(offset int64) int {
	if t.head == len(t.offsets) || offset < t.offsets[t.head] {
		return -1
	}
	if i := int64(t.head) + offset - t.offsets[t.head]; i < int64(len(t.offsets)) && t.offsets[i] == offset {
		return int(i)
	}
	if i, found := slices.BinarySearch(t.offsets[t.head:], offset); found {
		return t.head + i
	}
	return -1
}

// first returns the offset of the first message that is not acknowledged. The lock is held.
func (t *offsetTracker) first() int64 {
	if t.head < len(t.offsets) {
		return t.offsets[t.head]
	}
	return t.next
}

// prefix returns the offset that may be committed.
func (t *offsetTracker) prefix() int64 {
	_, first, _ := t.progress()
	return first
}

// outstanding returns how many delivered messages are neither acknowledged nor deferred.
func (t *offsetTracker) outstanding() int {
	_, _, open := t.progress()
	return open
}

// progress returns how many messages were acknowledged so far, the offset of the first that is not (see prefix), and
// how many are outstanding.
func (t *offsetTracker) progress() (acked, first int64, open int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.acked, t.first(), t.open
}

// position returns the offset that may be committed, and how many messages from there on are acknowledged.
func (t *offsetTracker) position() (prefix, ahead int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	prefix = t.first()
	for _, state := range t.states[t.head:] {
		if state == acknowledged {
			ahead++
		}
	}
	return prefix, ahead
}

// room blocks until fewer than limit messages are outstanding and returns how many may be added. It returns 0 when ctx
// has ended.
func (t *offsetTracker) room(ctx context.Context) int {
	for ctx.Err() == nil {
		if n := t.limit - t.outstanding(); n > 0 {
			return n
		}
		t.wait(ctx)
	}
	return 0
}

// idle blocks until no message is outstanding, or ctx ends.
func (t *offsetTracker) idle(ctx context.Context) {
	for ctx.Err() == nil && t.outstanding() > 0 {
		t.wait(ctx)
	}
}

// wait blocks until a message is marked, or ctx ends. Only the partition's reader may call it.
func (t *offsetTracker) wait(ctx context.Context) {
	select {
	case <-t.changed:
	case <-ctx.Done():
	}
}
