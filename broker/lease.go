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

// lease is how long this member may rely on its partitions. The group reassigns them when it has received no heartbeat
// for the session timeout, or when the member has not joined again within the rebalance timeout. The lease counts both
// from when we sent a request, so it ends before the group acts. A process that was suspended, or is cut off from the
// brokers, thus knows by its own clock when it must stop working on its rows.
type lease struct {
	session, rebalance time.Duration
	onChange           func(until time.Time) // may be nil

	mu        sync.Mutex
	until     time.Time // the group cannot reassign the partitions before; zero: no lease
	confirmed time.Time // when the last heartbeat was sent that was answered without a rebalance
	held      map[int]bool
	epoch     int64         // grows with each assignment
	closing   bool          // the generation is over: the lease is not renewed after it expires
	changed   chan struct{} // closed and replaced at every change
}

func newLease(o *ConsumerOptions) *lease {
	l := &lease{
		session: withMargin(o.SessionTimeout), rebalance: withMargin(o.RebalanceTimeout), changed: make(chan struct{}),
	}
	if o.Membership != nil {
		l.onChange = o.Membership.Lease
	}
	return l
}

// withMargin subtracts a tenth, for requests that passed a check of the lease and have not arrived yet.
func withMargin(d time.Duration) time.Duration { return d - d/10 }

// assign begins a new epoch with these partitions.
func (l *lease) assign(partitions []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held, l.closing = make(map[int]bool, len(partitions)), false
	l.epoch++
	for _, p := range partitions {
		l.held[p] = true
	}
	l.notify()
}

// close notes that the generation is over and its partitions are about to be released.
func (l *lease) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing = true
	l.notify()
}

// release gives up one partition.
func (l *lease) release(partition int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, partition)
	l.notify()
}

// renew notes that the coordinator answered a heartbeat that was sent at that time. During a rebalance the member is
// still known, but the group waits for it no longer than the rebalance timeout.
func (l *lease) renew(sent time.Time, rebalancing bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = sent.Add(l.session)
	if !rebalancing {
		l.confirmed = sent
	} else if last := l.confirmed.Add(l.rebalance); last.Before(l.until) {
		l.until = last
	}
	l.notify()
}

// revoke gives up all partitions and the lease.
func (l *lease) revoke() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until, l.confirmed, l.held = time.Time{}, time.Time{}, nil
	l.notify()
}

// notify wakes wait and calls onChange. The caller holds the lock.
func (l *lease) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
	if l.onChange != nil {
		l.onChange(l.until)
	}
}

// wait returns nil as soon as the lease covers the partition, and pipeline.ErrFenced when the partition is not held. It
// blocks while the lease has expired in the middle of a generation: the coordinator may have been cut off, too, and
// still renew it. It returns ctx's error when ctx ends.
func (l *lease) wait(ctx context.Context, partition int) error {
	for {
		l.mu.Lock()
		held, until, closing, changed := l.held[partition], l.until, l.closing, l.changed
		l.mu.Unlock()
		switch {
		case !held:
			return pipeline.ErrFenced
		case !past(time.Now(), until): //nolint:forbidigo // the coordinator counts by the real clock
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

// past reports whether a moment has passed by the monotonic or by the wall clock: the monotonic clock may stop while
// the machine sleeps, and the wall clock may be set.
func past(now, moment time.Time) bool {
	return !now.Before(moment) || !now.Round(0).Before(moment.Round(0))
}

// epochOf returns the epoch of a held partition, even if the lease has expired, and 0 for a partition that is not held.
func (l *lease) epochOf(partition int) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held[partition] {
		return 0
	}
	return l.epoch
}

// confirmMembership sends heartbeats until one is answered, and reports whether we are a member of the generation. The
// library sends heartbeats of its own, but reports neither when it sent one nor the response, and stops when the
// generation ends; ours continue until the partitions are released. It returns false when ctx ends, and an error when
// no response arrives for LostAfter, or none can: the library's own connection may work all the while.
func (a *assignment) confirmMembership(ctx context.Context) (bool, error) {
	c := a.consumer
	operation := "heartbeat of group " + c.o.Group
	defer c.cluster.outages.forget(operation)
	lost := time.After(c.o.LostAfter)
	for delays := retryDelays(); ctx.Err() == nil; {
		state, err := a.heartbeat(ctx)
		switch state {
		case member:
			c.cluster.outages.succeeded(operation)
			return true, nil
		case rebalancing, removed:
			return false, nil
		}
		if err = c.cluster.causeOf(err); ctx.Err() == nil && (outOfFiles(err) || fired(lost)) {
			return false, c.joinError(err)
		}
		c.cluster.outages.failed(operation, err)
		sleepNext(ctx, delays)
	}
	return false, nil
}

// membershipState is the result of a heartbeat.
type membershipState int

const (
	noResponse  membershipState = iota // the lease is not renewed
	member                             // of the generation
	rebalancing                        // we are to release our partitions and join again
	removed                            // the group no longer knows this member
)

// heartbeat sends a heartbeat and renews the lease. The error is nil unless the state is noResponse.
func (a *assignment) heartbeat(ctx context.Context) (membershipState, error) {
	c := a.consumer
	asking, cancel := context.WithTimeout(ctx, min(requestTimeout, c.o.SessionTimeout/2))
	defer cancel()
	sent, err := a.sendHeartbeat(asking)
	switch {
	case err == nil:
		c.lease.renew(sent, false)
		return member, nil
	case errors.Is(err, kafka.RebalanceInProgress):
		c.lease.renew(sent, true)
		return rebalancing, nil
	case errors.Is(err, kafka.UnknownMemberId), errors.Is(err, kafka.IllegalGeneration),
		errors.Is(err, kafka.FencedInstanceID):
		c.o.Logger.Warn("the group has removed this consumer and reassigned its partitions; rows in progress are dropped "+
			"and will be delivered again", "group", c.o.Group, "answer", err)
		c.lease.revoke()
		return removed, nil
	case ctx.Err() == nil:
		c.o.Logger.Debug("no response to a heartbeat", "group", c.o.Group, "error", err)
	}
	a.coordinator = nil // another broker may be the coordinator now
	return noResponse, err
}

// sendHeartbeat sends a heartbeat to the group's coordinator and returns when it was sent. The library would send it to
// any broker.
func (a *assignment) sendHeartbeat(ctx context.Context) (sent time.Time, err error) {
	c := a.consumer
	if a.coordinator == nil {
		res, err := c.cluster.client.FindCoordinator(ctx, &kafka.FindCoordinatorRequest{
			Key: c.o.Group, KeyType: kafka.CoordinatorKeyTypeConsumer,
		})
		if err == nil {
			err = res.Error
		}
		if err != nil {
			return time.Time{}, err
		}
		a.coordinator = kafka.TCP(net.JoinHostPort(res.Coordinator.Host, strconv.Itoa(res.Coordinator.Port)))
	}
	sent = time.Now() //nolint:forbidigo // see lease.wait
	res, err := c.cluster.client.Heartbeat(ctx, &kafka.HeartbeatRequest{
		Addr: a.coordinator, GroupID: c.o.Group, GenerationID: a.gen.ID, MemberID: a.gen.MemberID,
	})
	if err != nil {
		return sent, err
	}
	return sent, heartbeatError(res)
}

// heartbeatError returns the error code of a response. The library (v0.4.51) declares the response's two fields in the
// wrong order, so that from version 1 of the message on the code arrives as the lower half of the throttling time.
func heartbeatError(res *kafka.HeartbeatResponse) error {
	if code := int16(res.Throttle.Milliseconds() & 0xffff); code != 0 {
		return kafka.Error(code)
	}
	return nil
}

// renewLease sends heartbeats until ctx ends, or the group has removed this member. It calls over when the generation
// has ended, which may be before the library knows, and again at every heartbeat while the partitions are released.
func (a *assignment) renewLease(ctx context.Context, over func()) {
	tick := time.NewTicker(min(a.consumer.o.HeartbeatInterval, a.consumer.o.SessionTimeout/3))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		switch state, _ := a.heartbeat(ctx); state {
		case rebalancing:
			over()
		case removed:
			over()
			return
		}
	}
}
