package broker

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"github.com/purser-onboard/purser/pipeline"
)

// session is the work of one generation of the group: the partitions that fell to us, from agreement to hand-over.
type session struct {
	consumer *Consumer
	handler  pipeline.Handler
	gen      *kafka.Generation
	begun    map[int]span // what partitions held when Run began, or when they were first ours; belongs to Run

	readers     map[int]*reader
	coordinator net.Addr // of the group; nil: to be found. It belongs to whoever sends the heartbeats

	mu  sync.Mutex
	err error // the first failure
}

// outcome of a session: a final one ends Run, another one is followed by the next generation.
type outcome struct {
	final bool
	err   error
}

// serve reads until the generation ends, ctx ends, the drain is done, or something fails. Then, in this order: readers
// stop, the handler releases each partition, the settled prefixes are committed, the lease ends.
func (s *session) serve(ctx, generation context.Context) outcome {
	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(generation, func() { stop(kafka.ErrGenerationEnded) })()

	if !s.confirm(work) {
		return outcome{final: ctx.Err() != nil}
	}
	living, die := context.WithCancel(context.WithoutCancel(ctx))
	var beating sync.WaitGroup
	beating.Go(func() { s.keepAlive(living, func() { stop(kafka.ErrGenerationEnded) }) })
	beating.Go(func() {
		<-work.Done()
		s.consumer.lease.close()
	})
	defer func() {
		stop(nil)
		die()
		beating.Wait()
		s.consumer.lease.end()
	}()

	if err := s.open(work); err != nil {
		if work.Err() == nil && !errors.Is(err, pipeline.ErrFenced) { // which work is about to hear of, too
			return outcome{final: true, err: err}
		}
		return outcome{final: ctx.Err() != nil}
	}
	s.consumer.serve(s)
	defer s.consumer.serve(nil)

	var reading, committing sync.WaitGroup
	beating.Go(func() { s.watch(work) })
	for _, r := range s.readers {
		reading.Go(func() {
			if err := r.read(work); err != nil {
				s.fail(err)
				stop(err)
			}
		})
	}
	released := make(chan struct{})
	committing.Go(func() { s.commitUntil(released) })

	reading.Wait()
	if !s.consumer.o.Drain {
		<-work.Done() // with no partition there is nobody to wait for
	}
	drained := work.Err() == nil
	stop(nil)
	s.release(ctx)
	close(released)
	committing.Wait()
	committed := s.commit()

	if s.err != nil {
		return outcome{final: true, err: s.err}
	}
	// A drain that could not commit joins again: what it settled comes once more, is skipped, and is committed then.
	return outcome{final: drained && committed || ctx.Err() != nil}
}

// open decides where each assigned partition begins: at the group's committed offset, or at the first there is.
func (s *session) open(ctx context.Context) error {
	c := s.consumer
	count, err := c.cluster.partitions(ctx, c.o.Topic, c.o.LostAfter)
	if err != nil {
		return c.whileJoining(err)
	}
	assigned := s.gen.Assignments[c.o.Topic]
	ids := make([]int, len(assigned))
	for i, a := range assigned {
		ids[i] = a.ID
	}
	spans, err := c.cluster.spans(ctx, c.o.Topic, ids, c.o.LostAfter)
	if err != nil {
		return c.whileJoining(err)
	}
	s.readers = make(map[int]*reader, len(assigned))
	for _, a := range assigned {
		start, now := a.Offset, spans[a.ID]
		begun, known := s.begun[a.ID]
		if !known { // also one that the broker did not know of when a drain began: it is drained as far as it goes now
			begun = now
			s.begun[a.ID] = begun
		}
		if start < 0 { // nothing committed, or so long ago that the group has forgotten it
			start = begun.first
			if start > 0 {
				c.o.Logger.Warn("the group has no offset here and the first messages are gone: rows that nobody settled "+
					"before have to be imported again", "topic", c.o.Topic, "group", c.o.Group, "partition", a.ID, "first", start)
			}
		}
		switch {
		case start > now.end:
			return &AheadError{Topic: c.o.Topic, Group: c.o.Group, Partition: a.ID, Committed: start, End: now.end}
		case start < now.first:
			c.lose(a.ID, start, now.first)
			start = now.first
		}
		w := newWindow(start, c.o.MaxOutstanding)
		r := &reader{
			consumer:  c,
			partition: a.ID,
			window:    w,
			committed: max(a.Offset, -1),
			next:      start,
			target:    begun.end,
		}
		if a.Offset < 0 {
			r.committed = start // no commit before there is progress
		}
		settle := func(m pipeline.Message) { w.settle(m.Offset) }
		r.take = func(ctx context.Context, batch []pipeline.Message) error {
			return s.handler.Take(ctx, batch, settle)
		}
		s.readers[a.ID] = r
	}
	c.lease.hold(ids)
	c.o.Logger.Info("partitions assigned", "topic", c.o.Topic, "group", c.o.Group, "partitions", ids, "of", count)
	if c.o.OnAssigned != nil {
		c.o.OnAssigned(ids, count)
	}
	return s.restore(ctx, ids)
}

// restore prepares the partitions, a few at a time.
func (s *session) restore(ctx context.Context, partitions []int) error {
	if s.consumer.o.Restore == nil {
		return nil
	}
	group, working := errgroup.WithContext(ctx)
	group.SetLimit(restoring)
	for _, p := range partitions {
		group.Go(func() error { return s.consumer.o.Restore(working, p) })
	}
	return group.Wait()
}

// restoring is how many partitions are restored at once: one is read from the network while another is written.
const restoring = 4

func (s *session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

// release gives the handler the budget to finish what is in flight, whether or not ctx has ended.
func (s *session) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.consumer.o.budget())
	defer cancel()
	var all sync.WaitGroup
	for partition := range s.readers {
		all.Go(func() {
			s.handler.Release(ctx, partition)
			s.consumer.lease.drop(partition)
		})
	}
	all.Wait()
}

// commitUntil commits at every interval until all partitions are released.
func (s *session) commitUntil(released <-chan struct{}) {
	tick := time.NewTicker(s.consumer.o.CommitInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.commit()
		case <-released:
			return
		}
	}
}

// commit tells the group how far each partition is settled. Prefixes only grow, and the coordinator refuses a member of
// an older generation, so a committed offset never goes back. A commit that fails is no loss: the next one covers it,
// and if there is none the messages are delivered again. It reports whether all that is settled is committed.
func (s *session) commit() bool {
	c := s.consumer
	offsets := make(map[int]int64)
	for id, r := range s.readers {
		if at := r.window.prefix(); at > r.committed {
			offsets[id] = at
		}
	}
	if len(offsets) == 0 {
		return true
	}
	err := s.gen.CommitOffsets(map[string]map[int]int64{c.o.Topic: offsets})
	if err != nil {
		level := c.o.Logger.Warn
		if errors.Is(err, kafka.RebalanceInProgress) {
			level = c.o.Logger.Debug
		}
		level("committing offsets failed; what they cover may be delivered again", "group", c.o.Group, "error", err)
		return false
	}
	for id, at := range offsets {
		s.readers[id].committed = at
	}
	return true
}
