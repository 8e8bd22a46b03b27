package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/purser-onboard/purser/pipeline"
)

// ConsumerOptions says what a Consumer takes and how.
type ConsumerOptions struct {
	Topic string
	Group string

	// Drain ends Run when everything that was in the topic when it began has been acknowledged or deferred, as far as it
	// falls to this member of the group.
	Drain bool

	// SessionTimeout is how long the group waits for a member that went silent; default 45s.
	SessionTimeout time.Duration
	// HeartbeatInterval is how often we are heard, and so how long a rebalance may stay unnoticed; default 3s.
	HeartbeatInterval time.Duration
	// RebalanceTimeout is how long the group waits for a member to finish and join again; default as SessionTimeout,
	// because we are heard of no more when we join.
	RebalanceTimeout time.Duration
	// CommitInterval is how often settled prefixes are committed; default 1s.
	CommitInterval time.Duration

	// MaxBatch is the greatest number of messages in one Handler.Take; default 1000.
	MaxBatch int
	// MaxBytes is about the greatest size of one answer of the broker, per partition; default 1 MiB.
	MaxBytes int64
	// MaxWait is how long the broker holds a request back when there is nothing to deliver; default 500ms, at most 5s.
	MaxWait time.Duration
	// MaxOutstanding is the greatest number of delivered messages of one partition that are not settled; while it is
	// reached the partition is not read. Default 10,000.
	MaxOutstanding int

	// StalledAfter is how long no message of a partition may be acknowledged, although some are with the handler, before
	// Membership.Stalled is called; default 10m.
	StalledAfter time.Duration

	// LostAfter is how long the broker may be away before Run gives up with ErrBrokerLost; default 2m.
	LostAfter time.Duration

	// Membership follows what becomes of the consumer's partitions. nil: nothing does.
	Membership Membership

	Logger *slog.Logger // nil: silent
}

// Membership follows what becomes of a consumer's partitions. Apart from Restore, its methods must not block.
type Membership interface {
	// Assigned names the partitions that this consumer has after a rebalance, and how many the topic has. It is called
	// before the first Take of that assignment.
	Assigned(partitions []int, of int)
	// Restore brings what is kept of a partition's rows up to date. It is called for each partition, several at once,
	// after Assigned and before the first Take of it, while heartbeats go on. It returns early with ctx's error when ctx
	// ends; any other error ends Run.
	Restore(ctx context.Context, partition int) error
	// Lease says until when the group can give none of our partitions to another consumer, whenever that changes; the zero
	// time: none is ours. After that moment nothing may be done for their rows until a later one is announced, which
	// happens if the group has kept them for us.
	Lease(until time.Time)
	// Stalled reports a partition without progress for ConsumerOptions.StalledAfter, and again every StalledAfter.
	Stalled(Stall)
}

func (o *ConsumerOptions) normalize() error {
	if o.Topic == "" || o.Group == "" {
		return errors.New("a consumer needs a topic and a group")
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

// budget is how long a partition may take to be released. Heartbeats stop when a generation ends, so after
// SessionTimeout − HeartbeatInterval we may be counted as dead, and after RebalanceTimeout the others go on without us;
// what is then committed is refused and the rows are worked on again elsewhere. A tenth is kept for the commit itself.
func (o *ConsumerOptions) budget() time.Duration {
	b := min(o.SessionTimeout-o.HeartbeatInterval, o.RebalanceTimeout)
	return b - b/10
}

// Consumer implements pipeline.Queue on one topic and one consumer group.
//
// The settled callback looks only at Partition and Offset, so a handler need not keep a message's bytes until its row
// is settled; they share blocks with their neighbours.
type Consumer struct {
	cluster *Cluster
	o       ConsumerOptions
	lease   *lease

	mu      sync.Mutex
	serving *session // the present generation; nil between two
	lost    []LostRange
}

var _ pipeline.Queue = (*Consumer)(nil)

// NewConsumer checks the options. Nothing is asked of the broker before Run.
func NewConsumer(c *Cluster, o ConsumerOptions) (*Consumer, error) {
	if err := o.normalize(); err != nil {
		return nil, err
	}
	return &Consumer{cluster: c, o: o, lease: newLease(&o)}, nil
}

// Run implements pipeline.Queue. It blocks until
//
//   - ctx ends, or a drain is done: nil;
//   - the handler's Take fails: that error, as it is;
//   - the broker is away for LostAfter: ErrBrokerLost. When none answers at the start, Run waits for Options.Wait of
//
// the
//
//	  Cluster, then fails with the *UnreachableError of each broker that was tried;
//	- the topic is not there, or no longer (*MissingTopicError), the group's offset lies beyond a partition's end
//	  (*AheadError), or the broker refuses us (a kafka.Error): waiting would not help;
//	- in a drain, the broker hands nothing out for LostAfter although there is more: *WithheldError.
//
// In each case it first stops reading, has the handler release every partition, commits the settled prefixes and leaves
// the group. When all went well but messages had been deleted by retention before we came, it returns *LostError after
// the rest has been delivered.
//
// A drain looks at the ends of all partitions when Run begins, of one that shows up later when it is assigned, and does
// not deliver what comes after that. It is done when the partitions assigned to this member are settled up to there;
// partitions of other members are theirs to settle.
//
// Run may be called again after it returned, but not twice at a time.
func (c *Consumer) Run(ctx context.Context, h pipeline.Handler) error {
	c.mu.Lock()
	c.lost = nil
	c.mu.Unlock()
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

// Defer tells the consumer that a delivered message will not be settled in this run, because its row waits for
// something or somebody. A drain no longer waits for it and it takes no room; it is not committed and will be delivered
// again. Settling it later in the same generation is allowed. Abandon may be called from any goroutine.
func (c *Consumer) Defer(m pipeline.Message) {
	c.mu.Lock()
	s := c.serving
	c.mu.Unlock()
	if s == nil {
		return
	}
	if r := s.readers[m.Partition]; r != nil {
		r.offsets.postpone(m.Offset)
	}
}

func (c *Consumer) run(ctx context.Context, h pipeline.Handler) error {
	counts, err := c.cluster.Check(ctx, c.o.Topic)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	begun, kept := map[int]span{}, map[int]bool{}
	if c.o.Drain {
		begun, err = c.cluster.spans(ctx, c.o.Topic, upTo(counts[c.o.Topic]), c.o.LostAfter)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return c.whileJoining(err)
		}
	}
	known := new(layout)
	known.count.Store(int64(counts[c.o.Topic]))
	line := newLine(c.cluster.dialer.DialFunc)
	dialer := *c.cluster.dialer
	dialer.DialFunc = line.dialContext
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
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
	if err != nil {
		return err
	}
	defer group.Close()

	member := ""
	wait := pause()
	var lost <-chan time.Time // fires LostAfter after the first of sessions in a row that came to nothing
	for {
		gen, err := c.nextGeneration(ctx, group, member)
		if gen == nil {
			line.hurry()
			return err
		}
		member = gen.MemberID
		if known.outdated() {
			gen.Start(func(context.Context) {}) // whoever leads and joins again has the group agree anew
			continue
		}
		s := &session{consumer: c, handler: h, gen: gen, begun: begun, kept: kept, known: known}
		brief := time.After(requestTimeout)
		ended := make(chan outcome, 1)
		gen.Start(func(generation context.Context) {
			out := s.serve(ctx, generation)
			ended <- out
			if out.final {
				// Returning would end the generation and join the next one. Wait for Close, which leaves the group.
				<-generation.Done()
			}
		})
		out := <-ended
		if out.final {
			return out.err
		}
		if out.doubt {
			clear(begun) // of another topic, perhaps
		}
		if out.opened && (!out.doubt || fired(brief)) {
			wait, lost = pause(), nil
		}
		if out.opened && !out.doubt {
			continue
		}
		if lost == nil {
			lost = time.After(c.o.LostAfter)
		}
		err = c.present(ctx, known)
		if err == nil && fired(lost) {
			err = fmt.Errorf("%w (%s): group %q agreed again and again, but nothing of topic %q could be read",
				ErrBrokerLost, c.cluster.Brokers(), c.o.Group, c.o.Topic)
		}
		if err != nil {
			line.hurry()
			return err
		}
		d, _ := wait.Next()
		sleep(ctx, d) // whatever ended the session so soon may end the next one, too
	}
}

// present returns a *MissingTopicError when the topic is not there. It asks for about three seconds before it says so:
// a broker may not have heard yet of a topic just created, and one that is being made anew is gone in between.
func (c *Consumer) present(ctx context.Context, known *layout) error {
	wait := pause()
	for absent := 1; ctx.Err() == nil; absent++ {
		counts, err := c.cluster.checkOnce(ctx, c.o.Topic)
		if err == nil {
			known.count.Store(int64(counts[c.o.Topic]))
		}
		if !errors.As(err, new(*MissingTopicError)) {
			return nil // brokers that cannot be reached are waited for while joining
		}
		if absent == 7 {
			return err
		}
		d, _ := wait.Next()
		sleep(ctx, d)
	}
	return nil
}

// fired reports whether a timer has run out; nil has not.
func fired(timer <-chan time.Time) bool {
	select {
	case <-timer:
		return true
	default:
		return false
	}
}

// nextGeneration waits until the group has agreed on who reads what. It returns neither generation nor error when ctx
// ended. member is who we were in the generation before, "" for nobody.
//
// After any failure but a rebalance the library begins as a new member, and says goodbye for the old one only if the
// coordinator is there that very moment. The group would wait for the old one until its session runs out, and we with
// it, so it is said again.
func (c *Consumer) nextGeneration(
	ctx context.Context, group *kafka.ConsumerGroup, member string,
) (*kafka.Generation, error) {
	var departing sync.WaitGroup
	defer departing.Wait()
	// The brokers may have been away for some of the time already. One attempt is made in any case.
	patience, cancel := context.WithTimeout(ctx, max(c.o.LostAfter-c.cluster.troubles.lasting(), requestTimeout))
	defer cancel()
	operation := "join group " + c.o.Group
	defer c.cluster.troubles.dropped(operation)
	var last error
	for {
		gen, err := group.Next(patience)
		switch {
		case err == nil:
			c.cluster.troubles.passed(operation)
			return gen, nil
		case ctx.Err() != nil:
			return nil, nil
		case patience.Err() != nil:
			if last == nil {
				last = err
			}
			return nil, fmt.Errorf("%w (%s) while joining group %q: %w", ErrBrokerLost, c.cluster.Brokers(), c.o.Group,
				c.cluster.why(last))
		case fatalInGroup(err):
			return nil, c.whileJoining(err)
		}
		again := errors.Is(err, kafka.RebalanceInProgress) // somebody else joined or left meanwhile: nothing failed
		if !again {
			c.cluster.troubles.failed(operation, err)
		}
		if member != "" && !again {
			gone := member
			departing.Go(func() { c.depart(patience, gone) })
			member = ""
		}
		last = err
	}
}

// depart leaves the group for a member that we no longer are, again and again until ctx ends: a coordinator that is
// about to stop agrees and forgets it. Leaving for somebody who has left is no harm.
func (c *Consumer) depart(ctx context.Context, member string) {
	for wait := pause(); ctx.Err() == nil; {
		_, err := c.cluster.client.LeaveGroup(ctx, &kafka.LeaveGroupRequest{
			GroupID: c.o.Group, Members: []kafka.LeaveGroupRequestMember{{ID: member}},
		})
		c.o.Logger.Debug("left the group for an earlier self", "group", c.o.Group, "member", member, "error", err)
		if hangsUp(err) {
			// The library keeps connections to a broker that has gone and tries one after the other. Forget them, and
			// do not let the wait grow.
			c.cluster.transport.CloseIdleConnections()
			wait = pause()
		}
		d, _ := wait.Next()
		sleep(ctx, d)
	}
}

// whileJoining puts an error in its place: what was tried again until LostAfter is a lost broker.
func (c *Consumer) whileJoining(err error) error {
	if err = c.cluster.why(err); retriable(err) {
		return fmt.Errorf("%w (%s) while joining group %q: %w", ErrBrokerLost, c.cluster.Brokers(), c.o.Group, err)
	}
	err = denied(err, fmt.Sprintf("join group %q for topic %q", c.o.Group, c.o.Topic),
		fmt.Sprintf("Read on group %q and topic %q", c.o.Group, c.o.Topic))
	return fmt.Errorf("joining group %q: %w", c.o.Group, err)
}

// fatalInGroup reports what trying again does not mend. That we are not known, or belong to an older generation, is
// mended by joining again.
func fatalInGroup(err error) bool {
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

// lose remembers a range that retention deleted before we came.
func (c *Consumer) lose(partition int, from, to int64) {
	c.mu.Lock()
	c.lost = append(c.lost, LostRange{Partition: partition, From: from, To: to})
	c.mu.Unlock()
	c.o.Logger.Error("messages were deleted by the topic's retention before they were settled",
		"topic", c.o.Topic, "partition", partition, "from", from, "to", to-1, "count", to-from)
}

func (c *Consumer) serve(s *session) {
	c.mu.Lock()
	c.serving = s
	c.mu.Unlock()
}

func upTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// groupLog hands kafka-go's lines to slog.
type groupLog struct{ log *slog.Logger }

// Printf implements kafka.Logger.
func (g groupLog) Printf(format string, args ...any) {
	g.log.Debug("consumer group", "detail", fmt.Sprintf(format, args...))
}
