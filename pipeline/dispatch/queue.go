package dispatch

import (
	"container/heap"
	"sync"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// taskQueue is a queue of rows that wait for a worker. Due rows run in this order: started rows
// before new ones, partitions in turn, then by arrival. The Dispatcher's lock guards it.
type taskQueue struct {
	wake  *sync.Cond // there may be a ready task
	timer *time.Timer
	due   taskHeap // in the order in which they are worked on
	later taskHeap // in the order in which they become due
}

func (q *taskQueue) init(mu *sync.Mutex) {
	q.wake = sync.NewCond(mu)
	q.due.less = func(a, b *item) bool {
		if begunA, begunB := a.begun(), b.begun(); begunA != begunB {
			return begunA
		}
		if a.turn != b.turn {
			return a.turn < b.turn
		}
		return a.seq < b.seq
	}
	q.later.less = func(a, b *item) bool { return a.ready.Before(b.ready) }
	q.timer = time.AfterFunc(time.Hour, func() {
		mu.Lock()
		defer mu.Unlock()
		q.wake.Broadcast()
	})
}

func (q *taskQueue) stop() { q.timer.Stop() }

func (q *taskQueue) push(t *item) {
	if t.ready.IsZero() {
		heap.Push(&q.due, t)
	} else {
		heap.Push(&q.later, t)
	}
	q.wake.Signal()
}

func (q *taskQueue) remove(t *item) {
	if t.index < len(q.due.tasks) && q.due.tasks[t.index] == t {
		heap.Remove(&q.due, t.index)
		return
	}
	heap.Remove(&q.later, t.index)
}

// backlog is how many tasks are due and not taken.
func (q *taskQueue) backlog() int { return len(q.due.tasks) }

// ready reports whether a task is due or will be; a worker that waits for one is woken then.
func (q *taskQueue) ready() bool { return len(q.due.tasks)+len(q.later.tasks) > 0 }

// pop returns the first due task; if there is none, a timer wakes a worker when the next is due. New rows are returned
// only if fresh.
func (q *taskQueue) pop(fresh bool) *item {
	now := pipeline.Monotonic()
	for len(q.later.tasks) > 0 && !q.later.tasks[0].ready.After(now) {
		t := heap.Pop(&q.later).(*item)
		t.ready = time.Time{}
		heap.Push(&q.due, t)
	}
	if len(q.later.tasks) > 0 {
		q.timer.Reset(q.later.tasks[0].ready.Sub(now))
	}
	if len(q.due.tasks) == 0 || !fresh && !q.due.tasks[0].begun() {
		return nil
	}
	return heap.Pop(&q.due).(*item)
}

// taskHeap implements heap.Interface and keeps each task's index.
type taskHeap struct {
	tasks []*item
	less  func(a, b *item) bool
}

func (h *taskHeap) Len() int           { return len(h.tasks) }
func (h *taskHeap) Less(i, j int) bool { return h.less(h.tasks[i], h.tasks[j]) }
func (h *taskHeap) Swap(i, j int) {
	h.tasks[i], h.tasks[j] = h.tasks[j], h.tasks[i]
	h.tasks[i].index, h.tasks[j].index = i, j
}
func (h *taskHeap) Push(x any) {
	t := x.(*item)
	t.index = len(h.tasks)
	h.tasks = append(h.tasks, t)
}
func (h *taskHeap) Pop() any {
	t := h.tasks[len(h.tasks)-1]
	h.tasks[len(h.tasks)-1] = nil
	t.index = -1
	h.tasks = h.tasks[:len(h.tasks)-1]
	return t
}
