package broker

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/purser-onboard/purser/pipeline"
)

// lease is what this member knows of how long its partitions are its own. The group gives them to somebody else when it
// has not heard of us for the session timeout, or when we have not joined again within the rebalance timeout; both are
// counted from something that we sent, so that whoever counts from the sending counts too early and never too late. A
// process that was stopped, or cut off from the brokers, thus knows by its own clock when it has to keep still, before
// anybody can tell it.
type lease struct {
	session, rebalance time.Duration
	onChange           func(until time.Time) // may be nil

	mu        sync.Mutex
	until     time.Time // nobody else can have the partitions before; zero: nothing is ours
	confirmed time.Time // when the last heartbeat was sent that found the group at rest
	held      map[int]bool
	epoch     int64         // grows with each assignment
	closing   bool          // the generation is over: what runs out now is not renewed
	changed   chan struct{} // closed and replaced at every change
}

func newLease(o *ConsumerOptions) *lease {
	l := &lease{
		session: shorter(o.SessionTimeout), rebalance: shorter(o.RebalanceTimeout), changed: make(chan struct{}),
	}
	if o.Membership != nil {
		l.onChange = o.Membership.Lease
	}
	return l
}

// shorter keeps a tenth for what has passed a check of the lease and is still on its way.
func shorter(d time.Duration) time.Duration { return d - d/10 }

// hold takes over an assignment.
func (l *lease) hold(partitions []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held, l.closing = make(map[int]bool, len(partitions)), false
	l.epoch++
	for _, p := range partitions {
		l.held[p] = true
	}
	l.tell()
}

// close notes that the generation is over and its partitions are about to be released.
func (l *lease) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing = true
	l.tell()
}

// drop gives one partition back.
func (l *lease) drop(partition int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, partition)
	l.tell()
}

// renew notes that the coordinator answered a heartbeat that was sent at that time. While a rebalance is under way it
// still knows us, but waits for us no longer than the rebalance timeout.
func (l *lease) renew(sent time.Time, rebalancing bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = sent.Add(l.session)
	if !rebalancing {
		l.confirmed = sent
	} else if last := l.confirmed.Add(l.rebalance); last.Before(l.until) {
		l.until = last
	}
	l.tell()
}

// end notes that nothing is ours any more.
func (l *lease) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until, l.confirmed, l.held = time.Time{}, time.Time{}, nil
	l.tell()
}

// tell wakes who waits. The lock is held.
func (l *lease) tell() {
	close(l.changed)
	l.changed = make(chan struct{})
	if l.onChange != nil {
		l.onChange(l.until)
	}
}

// wait returns nil as soon as the partition is ours for certain, now; pipeline.ErrFenced once it is not held. A lease
// that ran out in the midst of a generation may still be renewed, if the coordinator was as cut off as we were: that is
// waited for.
func (l *lease) wait(ctx context.Context, partition int) error {
	for {
		l.mu.Lock()
		held, until, closing, changed := l.held[partition], l.until, l.closing, l.changed
		l.mu.Unlock()
		switch {
		case !held:
			return pipeline.ErrFenced
		case !past(time.Now(), until): //nolint:forbidigo // the coordinator's clock, by which it counts, is the real one
			return nil
		case closing:
			return pipeline.ErrFenced
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// past reports whether a moment has passed, by either clock: the monotonic one may stand still while the machine
// sleeps, the other one may be set.
func past(now, moment time.Time) bool {
	return !now.Before(moment) || !now.Round(0).Before(moment.Round(0))
}

// epochOf numbers the assignment by which the partition is ours and not yet released, without asking for how long; 0
// when it is not ours.
func (l *lease) epochOf(partition int) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held[partition] {
		return 0
	}
	return l.epoch
}

// confirm sends heartbeats until one is answered, and reports whether the generation stands. The library sends its
// own, but says neither when one was sent nor what came of it, and stops with the generation; ours go on until the
// partitions are released. It returns false when ctx ends, too, and an error when no answer comes for LostAfter or can
// come: the library's own connection may be alive all the while.
func (s *session) confirm(ctx context.Context) (bool, error) {
	c := s.consumer
	operation := "heartbeat of group " + c.o.Group
	defer c.cluster.troubles.dropped(operation)
	lost := time.After(c.o.LostAfter)
	for wait := pause(); ctx.Err() == nil; {
		place, err := s.heartbeat(ctx)
		switch place {
		case member:
			c.cluster.troubles.passed(operation)
			return true, nil
		case leaving, gone:
			return false, nil
		}
		if err = c.cluster.why(err); ctx.Err() == nil && (outOfFiles(err) || fired(lost)) {
			return false, c.whileJoining(err)
		}
		c.cluster.troubles.failed(operation, err)
		d, _ := wait.Next()
		sleep(ctx, d)
	}
	return false, nil
}

// position is what a heartbeat says of our place in the group.
type standing int

const (
	unheard standing = iota // no answer: the lease is not renewed
	member
	leaving // the group agrees anew: we are to finish and join again
	gone    // we were given up
)

// heartbeat sends one. Its error is that of one that was unheard.
func (s *session) heartbeat(ctx context.Context) (standing, error) {
	c := s.consumer
	asking, cancel := context.WithTimeout(ctx, min(requestTimeout, c.o.SessionTimeout/2))
	defer cancel()
	sent, err := s.beat(asking)
	switch {
	case err == nil:
		c.lease.renew(sent, false)
		return member, nil
	case errors.Is(err, kafka.RebalanceInProgress):
		c.lease.renew(sent, true)
		return leaving, nil
	case errors.Is(err, kafka.UnknownMemberId), errors.Is(err, kafka.IllegalGeneration),
		errors.Is(err, kafka.FencedInstanceID):
		c.o.Logger.Warn("the group has given our partitions to others; what is under way is dropped and comes again",
			"group", c.o.Group, "answer", err)
		c.lease.end()
		return gone, nil
	case ctx.Err() == nil:
		c.o.Logger.Debug("a heartbeat was not answered", "group", c.o.Group, "error", err)
	}
	s.coordinator = nil // it may be another one now
	return unheard, err
}

// beat asks the group's coordinator whether we are still of the group, and returns when it asked. The library would
// send the heartbeat to any broker.
func (s *session) beat(ctx context.Context) (sent time.Time, err error) {
	c := s.consumer
	if s.coordinator == nil {
		res, err := c.cluster.client.FindCoordinator(ctx, &kafka.FindCoordinatorRequest{
			Key: c.o.Group, KeyType: kafka.CoordinatorKeyTypeConsumer,
		})
		if err == nil {
			err = res.Error
		}
		if err != nil {
			return time.Time{}, err
		}
		s.coordinator = kafka.TCP(net.JoinHostPort(res.Coordinator.Host, strconv.Itoa(res.Coordinator.Port)))
	}
	sent = time.Now() //nolint:forbidigo // see lease.wait
	res, err := c.cluster.client.Heartbeat(ctx, &kafka.HeartbeatRequest{
		Addr: s.coordinator, GroupID: c.o.Group, GenerationID: s.gen.ID, MemberID: s.gen.MemberID,
	})
	if err != nil {
		return sent, err
	}
	return sent, heartbeatError(res)
}

// heartbeatError is what the coordinator said. The library (v0.4.51) declares the answer's two fields in the wrong
// order, so that from version 1 of the message on the code arrives as the lower half of the throttling time.
func heartbeatError(res *kafka.HeartbeatResponse) error {
	if code := int16(res.Throttle.Milliseconds() & 0xffff); code != 0 {
		return kafka.Error(code)
	}
	return nil
}

// keepAlive renews the lease until ctx ends, or the group does not know us any more. It calls over when the generation
// is at its end, which may be before the library knows, and again at every heartbeat while we release our partitions.
func (s *session) keepAlive(ctx context.Context, over func()) {
	tick := time.NewTicker(min(s.consumer.o.HeartbeatInterval, s.consumer.o.SessionTimeout/3))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		switch place, _ := s.heartbeat(ctx); place {
		case leaving:
			over()
		case gone:
			over()
			return
		}
	}
}
