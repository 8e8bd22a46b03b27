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

	"github.com/purser-onboard/purser/pipeline"
)

// assignment is this member's work during one generation of the group, from joining to the release of its partitions.
type assignment struct {
	consumer *Consumer
	handler  pipeline.Handler
	gen      *kafka.Generation

	// These belong to Run and outlive the generation.
	initial   map[int]span // what partitions held when Run began, or when they were first assigned to us
	hasOffset map[int]bool // partitions of which the group was seen to have an offset
	known     *topicLayout

	readers     map[int]*reader
	coordinator net.Addr // of the group; nil: unknown. Only the goroutine that sends heartbeats uses it

	stop           context.CancelCauseFunc // ends the reading
	maybeRecreated atomic.Bool             // see suspectRecreated

	mu  sync.Mutex
	err error // the first failure
}

// assignmentResult is how an assignment ended. A final one ends Run; otherwise the next generation follows.
type assignmentResult struct {
	final          bool
	err            error
	started        bool // there was something to read from
	maybeRecreated bool // the topic may have been deleted or recreated
}

func (a *assignment) result(final bool, err error) assignmentResult {
	return assignmentResult{
		final: final, err: err, started: a.readers != nil, maybeRecreated: a.maybeRecreated.Load(),
	}
}

var errMaybeRecreated = errors.New("the topic may have been deleted or recreated")

// suspectRecreated ends the assignment because its topic may have been deleted or recreated. From now on nothing is
// committed: our offsets mean nothing in a recreated topic, and committing them would skip its messages. Kafka deletes
// the group's offsets together with the topic, so the next assignment, which begins at the group's offsets, begins at
// the right place in either case.
func (a *assignment) suspectRecreated(cause error) {
	if o := &a.consumer.o; !a.maybeRecreated.Swap(true) {
		o.Logger.Warn("the topic may have been deleted or recreated: reading and committing stop; restarting from the "+
			"group's offsets", "topic", o.Topic, "group", o.Group, "error", cause)
	}
	a.stop(errMaybeRecreated)
}

// serve reads until the generation ends, ctx ends, the drain is done, or something fails. Then, in this order: readers
// stop, the handler releases each partition, the acknowledged prefixes are committed, the lease ends.
func (a *assignment) serve(ctx, generation context.Context) assignmentResult {
	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	a.stop = stop
	defer context.AfterFunc(generation, func() { stop(kafka.ErrGenerationEnded) })()

	if member, err := a.confirmMembership(work); !member {
		return a.result(ctx.Err() != nil || err != nil, err)
	}
	renewing, stopRenewing := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	background.Go(func() { a.renewLease(renewing, func() { stop(kafka.ErrGenerationEnded) }) })
	background.Go(func() {
		<-work.Done()
		a.consumer.lease.close()
	})
	defer func() {
		stop(nil)
		stopRenewing()
		background.Wait()
		a.consumer.lease.revoke()
	}()

	if err := a.open(work); err != nil {
		missing := errors.As(err, new(*MissingTopicError))                        // Run looks again
		if work.Err() == nil && !missing && !errors.Is(err, pipeline.ErrFenced) { // fenced: work is about to end, too
			return a.result(true, err)
		}
		return a.result(ctx.Err() != nil, nil)
	}
	a.consumer.setCurrent(a)
	defer a.consumer.setCurrent(nil)

	var reading, committing sync.WaitGroup
	background.Go(func() { a.watchStalls(work) })
	for _, r := range a.readers {
		reading.Go(func() {
			switch err := r.read(work); {
			case errors.Is(err, errMaybeRecreated):
				a.suspectRecreated(err)
			case err != nil:
				a.fail(err)
				stop(err)
			}
		})
	}
	released := make(chan struct{})
	committing.Go(func() { a.commitUntil(ctx, released) })

	defer a.consumer.cluster.outages.forget(a.commitOperation())
	reading.Wait()
	if !a.consumer.o.Drain {
		<-work.Done() // without a partition there are no readers to wait for
	}
	drained := work.Err() == nil
	stop(nil)
	a.release(ctx)
	close(released)
	committing.Wait()
	committed := a.commit(ctx)

	if a.err != nil {
		return a.result(true, a.err)
	}
	// A drain that could not commit joins again: its messages are delivered again, skipped, and committed then.
	return a.result(drained && committed || ctx.Err() != nil, nil)
}

// open decides where each assigned partition begins: at the group's committed offset, or at the first offset there is.
func (a *assignment) open(ctx context.Context) error {
	c := a.consumer
	assigned := a.gen.Assignments[c.o.Topic]
	ids := make([]int, len(assigned))
	for i, p := range assigned {
		ids[i] = p.ID
	}
	count, err := a.countPartitions(ctx, ids)
	if err != nil {
		return err
	}
	spans, err := c.cluster.spans(ctx, c.o.Topic, ids, c.o.LostAfter)
	if err != nil {
		return c.joinError(err)
	}
	a.readers = make(map[int]*reader, len(assigned))
	for _, p := range assigned {
		start, now := p.Offset, spans[p.ID]
		initial, known := a.initial[p.ID]
		if p.Offset < 0 && a.hasOffset[p.ID] || now.first < initial.first {
			known = false // the topic was recreated
		}
		a.hasOffset[p.ID] = p.Offset >= 0
		if !known { // or the broker did not know the partition when a drain began: it is drained up to its present end
			initial = now
			a.initial[p.ID] = initial
		}
		if start < 0 { // no offset was committed, or the group's offset has expired
			start = initial.first
			if start > 0 {
				c.o.Logger.Warn("the group has no offset and the partition's first messages were deleted: import rows again "+
					"that were not settled before", "topic", c.o.Topic, "group", c.o.Group, "partition", p.ID, "first", start)
			}
		}
		switch {
		case start > now.end:
			return &AheadError{Topic: c.o.Topic, Group: c.o.Group, Partition: p.ID, Committed: start, End: now.end}
		case start < now.first:
			c.recordLost(p.ID, start, now.first)
			start = now.first
		}
		offsets := newOffsetTracker(start, c.o.MaxOutstanding)
		r := &reader{
			consumer:  c,
			partition: p.ID,
			offsets:   offsets,
			committed: max(p.Offset, -1),
			next:      start,
			target:    initial.end,
		}
		r.end.Store(now.end)
		if p.Offset < 0 {
			r.committed = start // no commit before there is progress
		}
		ack := func(m pipeline.Message) { offsets.ack(m.Offset) }
		r.handle = func(ctx context.Context, batch []pipeline.Message) error {
			return a.handler.Take(ctx, batch, ack)
		}
		a.readers[p.ID] = r
	}
	c.lease.assign(ids)
	c.o.Logger.Info("partitions assigned", "topic", c.o.Topic, "group", c.o.Group, "partitions", ids, "of", count)
	if c.o.Membership != nil {
		c.o.Membership.Assigned(ids, count)
		return c.o.Membership.Restore(ctx, ids)
	}
	return nil
}

// countPartitions returns how many partitions the topic has. The shared metadata may lag behind the assignment for a
// moment; a partition that stays unknown belongs to an earlier topic of that name.
func (a *assignment) countPartitions(ctx context.Context, assigned []int) (int, error) {
	c := a.consumer
	delays := retryDelays()
	for range 5 { // see Cluster.partitions
		n, err := c.cluster.partitions(ctx, c.o.Topic, c.o.LostAfter)
		if err != nil {
			return 0, c.joinError(err)
		}
		a.known.count.Store(int64(n))
		if len(assigned) == 0 || slices.Max(assigned) < n {
			return n, nil
		}
		sleepNext(ctx, delays)
	}
	a.suspectRecreated(kafka.UnknownTopicOrPartition)
	return 0, errMaybeRecreated
}

func (a *assignment) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = err
	}
}

// release gives the handler up to ConsumerOptions.budget to finish what is in flight, whether or not ctx has ended.
func (a *assignment) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.consumer.o.budget())
	defer cancel()
	var all sync.WaitGroup
	for partition := range a.readers {
		all.Go(func() {
			a.handler.Release(ctx, partition)
			a.consumer.lease.release(partition)
		})
	}
	all.Wait()
}

// commitUntil commits every CommitInterval until all partitions are released. Ten times less often it makes sure that
// the group still has the offsets that were committed: a broker may delete those of a deleted topic after we have
// committed offsets of the topic that replaced it, and a consumer that has nothing new to commit would not notice.
func (a *assignment) commitUntil(ctx context.Context, released <-chan struct{}) {
	tick := time.NewTicker(a.consumer.o.CommitInterval)
	defer tick.Stop()
	check := time.NewTicker(10 * a.consumer.o.CommitInterval)
	defer check.Stop()
	for {
		select {
		case <-tick.C:
			a.commit(ctx)
		case <-check.C:
			a.commitFailed(a.checkOffsets(ctx))
		case <-released:
			return
		}
	}
}

// commit commits the acknowledged prefix of each partition. Prefixes only grow, and the coordinator does not accept
// commits of an older generation, so a committed offset never decreases. A failed commit loses nothing: the next one
// covers it, and if there is none, the messages are delivered again. It reports whether all prefixes are committed.
//
// The coordinator accepts an offset for any topic of that name. While a partition has no room, only commits are sent,
// and a topic can be deleted and recreated without any of our requests failing. But Kafka deletes the group's offsets
// with the topic, so commit looks at them first. Two cases remain undetected: a topic of which nothing was committed
// yet, and a topic that is recreated between the two requests.
func (a *assignment) commit(ctx context.Context) bool {
	c := a.consumer
	if a.maybeRecreated.Load() {
		return false
	}
	offsets := make(map[int]int64)
	for id, r := range a.readers {
		if at := r.offsets.prefix(); at > r.committed {
			offsets[id] = at
		}
	}
	if len(offsets) == 0 {
		return true
	}
	err := a.checkOffsets(ctx)
	if err == nil && !a.maybeRecreated.Load() {
		err = a.gen.CommitOffsets(map[string]map[int]int64{c.o.Topic: offsets})
	}
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		a.suspectRecreated(fmt.Errorf("committing offsets: %w", err))
	}
	if a.maybeRecreated.Load() {
		return false
	}
	if a.commitFailed(err) {
		return false
	}
	for id, at := range offsets {
		a.readers[id].committed = at
		a.hasOffset[id] = true
	}
	return true
}

// commitFailed reports whether err is not nil, and keeps count of the outage. A rebalance is none.
func (a *assignment) commitFailed(err error) bool {
	outages := a.consumer.cluster.outages
	switch {
	case err == nil:
		outages.succeeded(a.commitOperation())
	case !errors.Is(err, kafka.RebalanceInProgress):
		outages.failed(a.commitOperation(), err)
	}
	return err != nil
}

func (a *assignment) commitOperation() string { return "commit offsets of group " + a.consumer.o.Group }

// checkOffsets makes sure that the group still has an offset where it had one, and suspects a recreated topic if not.
func (a *assignment) checkOffsets(ctx context.Context) error {
	c := a.consumer
	var ids []int
	for id := range a.readers {
		if a.hasOffset[id] {
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
			a.suspectRecreated(fmt.Errorf("the group no longer has an offset of partition %d", p.Partition))
			return nil
		}
	}
	return nil
}
