package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
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
	kept     map[int]bool // partitions of which the group was seen to have an offset; belongs to Run
	known    *layout

	readers     map[int]*reader
	coordinator net.Addr // of the group; nil: to be found. It belongs to whoever sends the heartbeats

	stop   context.CancelCauseFunc // ends the reading
	doubts atomic.Bool             // see doubt

	mu  sync.Mutex
	err error // the first failure
}

// outcome of a session: a final one ends Run, another one is followed by the next generation.
type outcome struct {
	final  bool
	err    error
	opened bool // there was something to read from
	doubt  bool // the topic may be gone, or another one of the same name
}

func (s *session) ended(final bool, err error) outcome {
	return outcome{final: final, err: err, opened: s.readers != nil, doubt: s.doubts.Load()}
}

// errInDoubt ends a session whose topic may have been deleted.
var errInDoubt = errors.New("the topic may have been deleted or made anew")

// doubt ends the session because the topic that it began with may be gone. From now on nothing is committed: of a topic
// made anew under the same name our offsets say nothing, and what they would pass over is lost. Kafka has forgotten the
// group's offsets together with the old topic, so the next session, which begins from them, finds the right place in
// either case.
func (s *session) doubt(why error) {
	if o := &s.consumer.o; !s.doubts.Swap(true) {
		o.Logger.Warn("the topic may have been deleted or made anew: reading stops, nothing more is committed, and we begin "+
			"again from the group's offsets", "topic", o.Topic, "group", o.Group, "error", why)
	}
	s.stop(errInDoubt)
}

// serve reads until the generation ends, ctx ends, the drain is done, or something fails. Then, in this order: readers
// stop, the handler releases each partition, the settled prefixes are committed, the lease ends.
func (s *session) serve(ctx, generation context.Context) outcome {
	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s.stop = stop
	defer context.AfterFunc(generation, func() { stop(kafka.ErrGenerationEnded) })()

	if member, err := s.confirm(work); !member {
		return s.ended(ctx.Err() != nil || err != nil, err)
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
		missing := errors.As(err, new(*MissingTopicError))                        // Run makes sure of it
		if work.Err() == nil && !missing && !errors.Is(err, pipeline.ErrFenced) { // which work is about to hear of, too
			return s.ended(true, err)
		}
		return s.ended(ctx.Err() != nil, nil)
	}
	s.consumer.serve(s)
	defer s.consumer.serve(nil)

	var reading, committing sync.WaitGroup
	beating.Go(func() { s.watch(work) })
	for _, r := range s.readers {
		reading.Go(func() {
			switch err := r.read(work); {
			case errors.Is(err, errInDoubt):
				s.doubt(err)
			case err != nil:
				s.fail(err)
				stop(err)
			}
		})
	}
	released := make(chan struct{})
	committing.Go(func() { s.commitUntil(ctx, released) })

	defer s.consumer.cluster.troubles.dropped(s.committing())
	reading.Wait()
	if !s.consumer.o.Drain {
		<-work.Done() // with no partition there is nobody to wait for
	}
	drained := work.Err() == nil
	stop(nil)
	s.release(ctx)
	close(released)
	committing.Wait()
	committed := s.commit(ctx)

	if s.err != nil {
		return s.ended(true, s.err)
	}
	// A drain that could not commit joins again: what it settled comes once more, is skipped, and is committed then.
	return s.ended(drained && committed || ctx.Err() != nil, nil)
}

// open decides where each assigned partition begins: at the group's committed offset, or at the first there is.
func (s *session) open(ctx context.Context) error {
	c := s.consumer
	assigned := s.gen.Assignments[c.o.Topic]
	ids := make([]int, len(assigned))
	for i, a := range assigned {
		ids[i] = a.ID
	}
	count, err := s.count(ctx, ids)
	if err != nil {
		return err
	}
	spans, err := c.cluster.spans(ctx, c.o.Topic, ids, c.o.LostAfter)
	if err != nil {
		return c.whileJoining(err)
	}
	s.readers = make(map[int]*reader, len(assigned))
	for _, a := range assigned {
		start, now := a.Offset, spans[a.ID]
		begun, known := s.begun[a.ID]
		if a.Offset < 0 && s.kept[a.ID] || now.first < begun.first {
			known = false // it is another topic's: this one was made anew
		}
		s.kept[a.ID] = a.Offset >= 0
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
		offsets := newOffsetTracker(start, c.o.MaxOutstanding)
		r := &reader{
			consumer:  c,
			partition: a.ID,
			offsets:   offsets,
			committed: max(a.Offset, -1),
			next:      start,
			target:    begun.end,
		}
		if a.Offset < 0 {
			r.committed = start // no commit before there is progress
		}
		ack := func(m pipeline.Message) { offsets.ack(m.Offset) }
		r.take = func(ctx context.Context, batch []pipeline.Message) error {
			return s.handler.Take(ctx, batch, ack)
		}
		s.readers[a.ID] = r
	}
	c.lease.hold(ids)
	c.o.Logger.Info("partitions assigned", "topic", c.o.Topic, "group", c.o.Group, "partitions", ids, "of", count)
	if c.o.Membership != nil {
		c.o.Membership.Assigned(ids, count)
	}
	return s.restore(ctx, ids)
}

// count returns how many partitions the topic has. What was assigned may be ahead of the shared metadata for a moment;
// a partition that stays unknown is of a topic that had more.
func (s *session) count(ctx context.Context, assigned []int) (int, error) {
	c := s.consumer
	wait := pause()
	for range 5 { // see Cluster.partitions
		n, err := c.cluster.partitions(ctx, c.o.Topic, c.o.LostAfter)
		if err != nil {
			return 0, c.whileJoining(err)
		}
		s.known.count.Store(int64(n))
		if len(assigned) == 0 || slices.Max(assigned) < n {
			return n, nil
		}
		d, _ := wait.Next()
		sleep(ctx, d)
	}
	s.doubt(kafka.UnknownTopicOrPartition)
	return 0, errInDoubt
}

// restore prepares the partitions, a few at a time.
func (s *session) restore(ctx context.Context, partitions []int) error {
	membership := s.consumer.o.Membership
	if membership == nil {
		return nil
	}
	group, working := errgroup.WithContext(ctx)
	group.SetLimit(restoring)
	for _, p := range partitions {
		group.Go(func() error { return membership.Restore(working, p) })
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
func (s *session) commitUntil(ctx context.Context, released <-chan struct{}) {
	tick := time.NewTicker(s.consumer.o.CommitInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.commit(ctx)
		case <-released:
			return
		}
	}
}

// commit tells the group how far each partition is settled. Prefixes only grow, and the coordinator refuses a member of
// an older generation, so a committed offset never goes back. A commit that fails is no loss: the next one covers it,
// and if there is none the messages are delivered again. It reports whether all that is settled is committed.
//
// The coordinator takes an offset for a topic of that name, whatever we read it from. A topic may be deleted and made
// anew without any of our requests failing, as long as we have no room and only commit. That the group's offsets went
// with the old one gives it away, so they are looked at before. What remains is a topic of which nothing was committed
// yet, and the moment between the two requests.
func (s *session) commit(ctx context.Context) bool {
	c := s.consumer
	if s.doubts.Load() {
		return false
	}
	offsets := make(map[int]int64)
	for id, r := range s.readers {
		if at := r.offsets.prefix(); at > r.committed {
			offsets[id] = at
		}
	}
	if len(offsets) == 0 {
		return true
	}
	err := s.recall(ctx, offsets)
	if err == nil && !s.doubts.Load() {
		err = s.gen.CommitOffsets(map[string]map[int]int64{c.o.Topic: offsets})
	}
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		s.doubt(fmt.Errorf("committing offsets: %w", err))
	}
	if s.doubts.Load() {
		return false
	}
	if err != nil {
		if !errors.Is(err, kafka.RebalanceInProgress) {
			c.cluster.troubles.failed(s.committing(), err)
		}
		return false
	}
	c.cluster.troubles.passed(s.committing())
	for id, at := range offsets {
		s.readers[id].committed = at
		s.kept[id] = true
	}
	return true
}

func (s *session) committing() string { return "commit offsets of group " + s.consumer.o.Group }

// recall sees to it that the group still has the offsets that it had; if not, the topic is in doubt.
func (s *session) recall(ctx context.Context, offsets map[int]int64) error {
	c := s.consumer
	var ids []int
	for id := range offsets {
		if s.kept[id] {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout/2)
	defer cancel()
	res, err := c.cluster.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{
		GroupID: c.o.Group, Topics: map[string][]int{c.o.Topic: ids},
	})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return err
	}
	for _, p := range res.Topics[c.o.Topic] {
		switch {
		case p.Error != nil:
			return p.Error
		case p.CommittedOffset < 0:
			s.doubt(fmt.Errorf("the group has no offset of partition %d any more", p.Partition))
			return nil
		}
	}
	return nil
}
