package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/purser-onboard/purser/pipeline"
)

// ConsumerOptions configures a Consumer. Topic and Group are required; a zero value of the others means the default.
type ConsumerOptions struct {
	Topic string
	Group string

	// Drain ends Run when all messages that were in the topic when it began, and that were assigned to this consumer, are
	// acknowledged or deferred.
	Drain bool

	// SessionTimeout is how long the group waits for a member that sends no heartbeats; default 45s.
	SessionTimeout time.Duration
	// HeartbeatInterval is how often heartbeats are sent, and so how long a rebalance may stay unnoticed; default 3s.
	HeartbeatInterval time.Duration
	// RebalanceTimeout is how long the group waits for a member to release its partitions and join again; default
	// SessionTimeout, because the library sends no heartbeats in that time.
	RebalanceTimeout time.Duration
	// CommitInterval is how often offsets are committed; default 1s.
	CommitInterval time.Duration

	// MaxBatch is the maximum number of messages in one Handler.Take; default 1000.
	MaxBatch int
	// MaxBytes is the approximate maximum size of one fetch response, in bytes per partition; default 1 MiB.
	MaxBytes int64
	// MaxWait is how long the broker holds back a fetch response when there is nothing to deliver; default 500ms, at
	// most 5s.
	MaxWait time.Duration
	// MaxOutstanding is the maximum number of messages of one partition that are delivered and neither acknowledged nor
	// deferred; the partition is not read while this number is reached. Default 10,000.
	MaxOutstanding int

	// StalledAfter is how long no message of a partition may be acknowledged, although some are with the handler, before
	// Membership.Stalled is called; default 10m.
	StalledAfter time.Duration

	// LostAfter is how long the brokers may be unavailable before Run ends with ErrBrokerLost; default 2m.
	LostAfter time.Duration

	// Membership is notified of changes to the consumer's partitions; nil: no notifications.
	Membership Membership

	Logger *slog.Logger // nil: silent
}

// Membership follows which partitions a consumer has, and for how long. Apart from Restore, its methods must not block.
type Membership interface {
	// Assigned names the partitions that this consumer has after a rebalance; of is the number of partitions of the topic.
	// It is called before the first Take of that assignment.
	Assigned(partitions []int, of int)
	// Restore updates what is stored about the rows of the partitions that Assigned named. It is called after Assigned and
	// before the first Take, while heartbeats are sent. It returns early with ctx's error when ctx ends; any other error
	// ends Run.
	Restore(ctx context.Context, partitions []int) error
	// Lease is called, whenever it changes, with the time before which the group cannot reassign this consumer's
	// partitions; the zero time: it has none. After that time no work may be done for their rows until Lease is called
	// with a later time, which happens if the group has not reassigned them.
	Lease(until time.Time)
	// Stalled reports a partition without progress for ConsumerOptions.StalledAfter, and again every StalledAfter.
	Stalled(Stall)
}

func (o *ConsumerOptions) normalize() error {
	if o.Topic == "" || o.Group == "" {
		return errors.New("topic and group are required")
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{
		{&o.SessionTimeout, 45 * time.Second},
		{&o.HeartbeatInterval, 3 * time.Second},
		{&o.CommitInterval, time.Second},
		{&o.MaxWait, 500 * time.Millisecond},
		{&o.LostAfter, 2 * time.Minute},
		{&o.StalledAfter, 10 * time.Minute},
	} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	if o.RebalanceTimeout <= 0 {
		o.RebalanceTimeout = o.SessionTimeout
	}
	o.MaxWait = min(o.MaxWait, requestTimeout/2)
	if o.HeartbeatInterval >= o.SessionTimeout {
		return fmt.Errorf("the heartbeat interval (%v) must be shorter than the session timeout (%v)",
			o.HeartbeatInterval, o.SessionTimeout)
	}
	if o.MaxBatch <= 0 {
		o.MaxBatch = 1000
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 20
	}
	if o.MaxOutstanding <= 0 {
		o.MaxOutstanding = 10_000
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// budget returns how long the handler may take to release its partitions. The library's heartbeats stop when a
// generation ends, so the group may remove us after SessionTimeout − HeartbeatInterval, and completes the rebalance
// without us after RebalanceTimeout. Commits fail from then on, and the rows are processed again elsewhere. A tenth of
// the time is kept for the commit itself.
func (o *ConsumerOptions) budget() time.Duration {
	b := min(o.SessionTimeout-o.HeartbeatInterval, o.RebalanceTimeout)
	return b - b/10
}

// Consumer implements pipeline.Queue on one topic and one consumer group.
//
// The ack callback uses only Partition and Offset of a message, so a handler need not keep its key and value until the
// row is settled; they share blocks of memory with those of other messages.
type Consumer struct {
	cluster *Cluster
	o       ConsumerOptions
	lease   *lease

	mu      sync.Mutex
	current *assignment // nil between generations
	lost    []LostRange
}

var _ pipeline.Queue = (*Consumer)(nil)

// NewConsumer checks the options and returns a consumer that can Run. It sends no request.
func NewConsumer(c *Cluster, o ConsumerOptions) (*Consumer, error) {
	if err := o.normalize(); err != nil {
		return nil, err
	}
	return &Consumer{cluster: c, o: o, lease: newLease(&o)}, nil
}

// Run implements pipeline.Queue. It blocks until
//
//   - ctx ends, or a drain is done: nil;
//   - the handler's Take fails: its error, not wrapped;
//   - the brokers are unavailable for LostAfter: ErrBrokerLost. When none answers at the start, Run waits for
//     Options.Wait of the Cluster, then fails with the *UnreachableError of each broker that was tried;
//   - the topic does not exist (*MissingTopicError), the group's offset lies beyond a partition's end (*AheadError), or
//     a broker answers with an error that retrying does not change (kafka.Error);
//   - in a drain, fetches below the high watermark stay empty for LostAfter: *EmptyFetchError.
//
// In each case it stops reading, has the handler release every partition, commits the acknowledged prefixes, and leaves
// the group. If it would return nil, but messages had been deleted by retention before they were acknowledged, it
// delivers the rest and returns *LostError.
//
// A drain looks up the ends of all partitions when Run begins, of a new partition when it is assigned, and delivers no
// later messages. It is done when the partitions assigned to this consumer are acknowledged or deferred up to there,
// whatever the state of partitions of other consumers.
//
// Run may be called again after it has returned, but not concurrently.
func (c *Consumer) Run(ctx context.Context, h pipeline.Handler) error {
	c.mu.Lock()
	c.lost = nil
	c.mu.Unlock()
	defer c.cluster.readers.add(c.o.Topic, c.o.Group)()
	err := c.run(ctx, h)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.lost) > 0 {
			return &LostError{Topic: c.o.Topic, Group: c.o.Group, Ranges: c.lost}
		}
	}
	return err
}

// Defer tells the consumer that a delivered message will not be acknowledged in this run, because its row has to wait.
// A drain does not wait for the message, and the message does not count towards MaxOutstanding; its offset is not
// committed, so a later run delivers it again. It may still be acknowledged later in the same generation. Defer may be
// called from any goroutine.
func (c *Consumer) Defer(m pipeline.Message) {
	c.mu.Lock()
	a := c.current
	c.mu.Unlock()
	if a == nil {
		return
	}
	if r := a.readers[m.Partition]; r != nil {
		r.offsets.deferOffset(m.Offset)
	}
}

// Position is the progress of a consumer in a partition.
type Position struct {
	Partition int
	Settled   int64 // the offset below which all messages are acknowledged
	Lag       int64 // messages from there on, as of the latest fetch
	Left      int64 // … apart from those that are acknowledged
}

// Positions returns this consumer's progress in each of its partitions; none between two assignments.
func (c *Consumer) Positions() []Position {
	c.mu.Lock()
	a := c.current
	c.mu.Unlock()
	if a == nil {
		return nil
	}
	all := make([]Position, 0, len(a.readers))
	for id, r := range a.readers {
		settled, ahead := r.offsets.position()
		lag := max(0, r.end.Load()-settled)
		all = append(all, Position{Partition: id, Settled: settled, Lag: lag, Left: max(0, lag-ahead)})
	}
	return all
}

// Reachable reports whether no request to the brokers has failed since the latest answered request.
func (c *Consumer) Reachable() bool { return c.cluster.outages.duration() == 0 }

func (c *Consumer) run(ctx context.Context, h pipeline.Handler) error {
	counts, err := c.cluster.Check(ctx, c.o.Topic)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	initial, hasOffset := map[int]span{}, map[int]bool{}
	if c.o.Drain {
		initial, err = c.cluster.spans(ctx, c.o.Topic, partitionIDs(counts[c.o.Topic]), c.o.LostAfter)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return c.joinError(err)
		}
	}
	known := new(topicLayout)
	known.count.Store(int64(counts[c.o.Topic]))
	conns := newGroupConns(ctx, c.cluster)
	defer conns.end()
	group, err := c.newGroup(conns, known)
	if err != nil {
		return err
	}
	defer group.Close()

	member := ""
	delays := retryDelays()
	var lost <-chan time.Time // fires LostAfter after the first of several assignments in a row that read nothing
	for {
		gen, err := c.nextGeneration(ctx, group, conns, member)
		if gen == nil {
			conns.cut()
			return err
		}
		member = gen.MemberID
		if known.outdated() {
			gen.Start(func(context.Context) {}) // returning at once ends the generation: a leader that joins again rebalances
			continue
		}
		a := &assignment{consumer: c, handler: h, gen: gen, initial: initial, hasOffset: hasOffset, known: known}
		longEnough := time.After(requestTimeout)
		ended := make(chan assignmentResult, 1)
		gen.Start(func(generation context.Context) {
			out := a.serve(ctx, generation)
			ended <- out
			if out.final {
				// Returning would join the next generation. Wait for Close, which leaves the group.
				<-generation.Done()
			}
		})
		out := <-ended
		if out.final {
			return out.err
		}
		if out.maybeRecreated {
			clear(initial) // it may describe a deleted topic
		}
		if out.started && (!out.maybeRecreated || fired(longEnough)) {
			delays, lost = retryDelays(), nil
		}
		if out.started && !out.maybeRecreated {
			continue
		}
		if lost == nil {
			lost = time.After(c.o.LostAfter)
		}
		err = c.checkTopic(ctx, known)
		if err == nil && fired(lost) {
			err = fmt.Errorf("%w (%s): group %q rebalanced repeatedly without fetching from topic %q",
				ErrBrokerLost, c.cluster.Brokers(), c.o.Group, c.o.Topic)
		}
		if err != nil {
			conns.cut()
			return err
		}
		sleepNext(ctx, delays) // the next assignment may end for the same reason
	}
}

// newGroup begins to join the group in the background; Next of the group blocks until it has.
func (c *Consumer) newGroup(conns *groupConns, known *topicLayout) (*kafka.ConsumerGroup, error) {
	dialer := *c.cluster.dialer
	dialer.DialFunc = conns.dialContext
	return kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID:                     c.o.Group,
		Brokers:                c.cluster.brokers,
		Dialer:                 &dialer,
		Topics:                 []string{c.o.Topic},
		GroupBalancers:         balancers(c.o.Topic, known),
		HeartbeatInterval:      c.o.HeartbeatInterval,
		SessionTimeout:         c.o.SessionTimeout,
		RebalanceTimeout:       c.o.RebalanceTimeout,
		JoinGroupBackoff:       250 * time.Millisecond,
		WatchPartitionChanges:  true,
		PartitionWatchInterval: 30 * time.Second,
		StartOffset:            kafka.FirstOffset,
		Timeout:                requestTimeout / 2,
		Logger:                 groupLog{c.o.Logger},
		ErrorLogger:            groupLog{c.o.Logger},
	})
}

// checkTopic returns a *MissingTopicError when the topic does not exist. It asks for about three seconds: a broker may
// not know a new topic yet, and a topic that is being recreated is missing in between.
func (c *Consumer) checkTopic(ctx context.Context, known *topicLayout) error {
	delays := retryDelays()
	for absent := 1; ctx.Err() == nil; absent++ {
		counts, err := c.cluster.checkOnce(ctx, c.o.Topic)
		if err == nil {
			known.count.Store(int64(counts[c.o.Topic]))
		}
		if !errors.As(err, new(*MissingTopicError)) {
			return nil // joining waits for brokers that cannot be reached
		}
		if absent == 7 {
			return err
		}
		sleepNext(ctx, delays)
	}
	return nil
}

// fired reports whether a timer has fired; nil has not.
func fired(timer <-chan time.Time) bool {
	select {
	case <-timer:
		return true
	default:
		return false
	}
}

// nextGeneration joins the group and returns its next generation. It returns neither generation nor error when ctx has
// ended. member is our member id in the generation before, "" if there was none.
//
// After any failure except a rebalance the library joins as a new member. It sends one LeaveGroup request for the old
// member, which is lost when the coordinator is unavailable. The group would then wait for the old member until its
// session times out, so removeMember repeats the request.
func (c *Consumer) nextGeneration(
	ctx context.Context, group *kafka.ConsumerGroup, conns *groupConns, member string,
) (*kafka.Generation, error) {
	var removing sync.WaitGroup
	defer removing.Wait()
	// An outage may have lasted for some of LostAfter already. There is one attempt in any case.
	patience, cancel := context.WithTimeout(ctx, max(c.o.LostAfter-c.cluster.outages.duration(), requestTimeout))
	defer cancel()
	operation := "join group " + c.o.Group
	defer c.cluster.outages.forget(operation)
	var last error
	for {
		gen, err := group.Next(patience)
		switch {
		case err == nil:
			conns.probing.Store(false)
			c.cluster.outages.succeeded(operation)
			return gen, nil
		case ctx.Err() != nil:
			return nil, nil
		case patience.Err() != nil:
			switch {
			case last == nil:
				last = fmt.Errorf("%w; if the brokers answer, a member of the group holds up the rebalance", err)
			case foreignMember(last):
				return nil, c.joinError(last)
			}
			return nil, fmt.Errorf("%w (%s) while joining group %q: %w", ErrBrokerLost, c.cluster.Brokers(), c.o.Group,
				c.cluster.causeOf(last))
		case fatalJoinError(err):
			return nil, c.joinError(err)
		}
		rebalance := errors.Is(err, kafka.RebalanceInProgress) // another member joined or left: not a failure
		if !rebalance {
			conns.probing.Store(true)
			c.cluster.outages.failed(operation, err)
		}
		if member != "" && !rebalance {
			stale := member
			removing.Go(func() { c.removeMember(patience, stale) })
			member = ""
		}
		last = err
	}
}

// removeMember removes a stale member of ours from the group. It repeats the request until ctx ends, because a
// coordinator that is about to stop accepts it and loses it. Removing a member twice does no harm.
func (c *Consumer) removeMember(ctx context.Context, member string) {
	for delays := retryDelays(); ctx.Err() == nil; {
		_, err := c.cluster.client.LeaveGroup(ctx, &kafka.LeaveGroupRequest{
			GroupID: c.o.Group, Members: []kafka.LeaveGroupRequestMember{{ID: member}},
		})
		c.o.Logger.Debug("removed a stale member", "group", c.o.Group, "member", member, "error", err)
		if closedByPeer(err) {
			// The library keeps connections to a stopped broker and tries them one after the other. Close them, and do not
			// let the delay grow.
			c.cluster.transport.CloseIdleConnections()
			delays = retryDelays()
		}
		sleepNext(ctx, delays)
	}
}

// joinError adds what failed to an error of joining the group. An error that was retried for LostAfter is
// ErrBrokerLost.
func (c *Consumer) joinError(err error) error {
	if err = c.cluster.causeOf(err); retriable(err) && !foreignMember(err) {
		return fmt.Errorf("%w (%s) while joining group %q: %w", ErrBrokerLost, c.cluster.Brokers(), c.o.Group, err)
	}
	if foreignMember(err) {
		err = &SetUpError{Cause: CauseGroup, Err: err}
	}
	err = denied(err, fmt.Sprintf("join group %q for topic %q", c.o.Group, c.o.Topic),
		fmt.Sprintf("Read on group %q and topic %q", c.o.Group, c.o.Topic))
	return fmt.Errorf("joining group %q: %w", c.o.Group, err)
}

// fatalJoinError reports an error that joining again does not fix. An unknown member or an old generation is fixed by
// that.
func fatalJoinError(err error) bool {
	var code kafka.Error
	if !errors.As(err, &code) {
		return !retriable(err)
	}
	switch code {
	case kafka.UnknownMemberId, kafka.IllegalGeneration, kafka.RebalanceInProgress, kafka.MemberIDRequired:
		return false
	}
	return !retriable(err)
}

// foreignMember reports that a member of the group uses another client library: as the leader we cannot read its
// subscription, or it has no protocol in common with us. The library has no type for the first.
func foreignMember(err error) bool {
	return errors.Is(err, kafka.InconsistentGroupProtocol) ||
		strings.Contains(err.Error(), "unable to read metadata for member")
}

// recordLost notes a range of offsets that retention deleted before it was acknowledged.
func (c *Consumer) recordLost(partition int, from, to int64) {
	c.mu.Lock()
	c.lost = append(c.lost, LostRange{Partition: partition, From: from, To: to})
	c.mu.Unlock()
	c.o.Logger.Error("messages were deleted by the topic's retention before they were acknowledged",
		"topic", c.o.Topic, "partition", partition, "from", from, "to", to-1, "count", to-from)
}

func (c *Consumer) setCurrent(a *assignment) {
	c.mu.Lock()
	c.current = a
	c.mu.Unlock()
}

// partitionIDs returns the numbers of n partitions.
func partitionIDs(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// groupLog writes kafka-go's log to slog.
type groupLog struct{ log *slog.Logger }

// Printf implements kafka.Logger.
func (g groupLog) Printf(format string, args ...any) {
	g.log.Debug("consumer group", "detail", fmt.Sprintf(format, args...))
}
