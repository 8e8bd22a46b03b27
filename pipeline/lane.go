package pipeline

import (
	"container/heap"
	"sync"
	"time"
)

// lane is a queue of tasks ordered by the time at which they are ready. All of it is guarded by the Runner's lock.
type lane struct {
	wake  *sync.Cond // there may be a ready task
	timer *time.Timer
	tasks taskHeap
}

func (l *lane) init(mu *sync.Mutex) {
	l.wake = sync.NewCond(mu)
	l.timer = time.AfterFunc(time.Hour, func() {
		mu.Lock()
		defer mu.Unlock()
		l.wake.Broadcast()
	})
}

func (l *lane) stop() { l.timer.Stop() }

func (l *lane) push(t *task) {
	heap.Push(&l.tasks, t)
	l.wake.Signal()
}

func (l *lane) remove(t *task) { heap.Remove(&l.tasks, t.index) }

// pop returns the first task if it is ready; otherwise it makes sure that somebody wakes when it is.
func (l *lane) pop() *task {
	if len(l.tasks) == 0 {
		return nil
	}
	if wait := l.tasks[0].ready.Sub(monotonic()); wait > 0 {
		l.timer.Reset(wait)
		return nil
	}
	return heap.Pop(&l.tasks).(*task)
}

// monotonic is the time by which waits are measured. It must not follow a wall clock that is set.
func monotonic() time.Time {
	return time.Now() //nolint:forbidigo // only its monotonic reading is used, to which the clock of rows does not matter
}

// taskHeap orders tasks by the time they are ready, then by arrival.
type taskHeap []*task

func (h taskHeap) Len() int { return len(h) }
func (h taskHeap) Less(i, j int) bool {
	if h[i].ready.Equal(h[j].ready) {
		return h[i].seq < h[j].seq
	}
	return h[i].ready.Before(h[j].ready)
}
func (h taskHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *taskHeap) Push(x any) {
	t := x.(*task)
	t.index = len(*h)
	*h = append(*h, t)
}
func (h *taskHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	t.index = -1
	*h = old[:len(old)-1]
	return t
}
