package broker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// leaseWatch is a Membership that records the leases.
type leaseWatch struct{ leases *[]time.Time }

func (leaseWatch) Assigned([]int, int)                  {}
func (leaseWatch) Restore(context.Context, []int) error { return nil }
func (w leaseWatch) Lease(until time.Time)              { *w.leases = append(*w.leases, until) }
func (leaseWatch) Stalled(Stall)                        {}

func testLease(leases *[]time.Time) *lease {
	o := ConsumerOptions{SessionTimeout: 10 * time.Second, RebalanceTimeout: 20 * time.Second}
	if leases != nil {
		o.Membership = leaseWatch{leases}
	}
	return newLease(&o)
}

// The lease ends after nine tenths of each timeout, counted from when the heartbeat was sent.
func TestLeaseEnds(t *testing.T) {
	var leases []time.Time
	l := testLease(&leases)
	begun := time.Now()
	after := func(seconds int) time.Time { return begun.Add(time.Duration(seconds) * time.Second) }
	steps := []struct {
		name string
		do   func()
		want time.Time
	}{
		{"confirmed", func() { l.renew(begun, false) }, after(9)},
		{"confirmed again", func() { l.renew(after(3), false) }, after(12)},
		{"asked to join again", func() { l.renew(after(6), true) }, after(15)},
		{"still releasing", func() { l.renew(after(18), true) }, after(21)}, // 18 s after the last heartbeat without a rebalance
		{"a new generation", func() { l.renew(after(19), false) }, after(28)},
		{"revoked", func() { l.revoke() }, time.Time{}},
		{"a rebalance is no beginning", func() { l.renew(after(20), true) }, time.Time{}.Add(18 * time.Second)},
	}
	for i, s := range steps {
		s.do()
		if len(leases) != i+1 || !leases[i].Equal(s.want) {
			t.Fatalf("%s: got the leases %v, want %d with %v as the last", s.name, leases, i+1, s.want)
		}
	}
}

// wait returns while the lease lasts, blocks when it has expired, and fails when the partition is released.
func TestLeaseIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testLease(nil)
		l.assign([]int{1, 2})
		l.renew(time.Now(), false)
		if err := l.wait(t.Context(), 1); err != nil {
			t.Errorf("within the lease: got %v, want nil", err)
		}
		if err := l.wait(t.Context(), 3); !errors.Is(err, pipeline.ErrFenced) {
			t.Errorf("partition that is not assigned: got %v, want ErrFenced", err)
		}
		time.Sleep(9 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.wait(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("expired lease: got %v, want ctx's deadline", err)
		}
		waiting := make(chan error)
		go func() { waiting <- l.wait(t.Context(), 1) }()
		synctest.Wait()
		l.renew(time.Now(), false)
		if err := <-waiting; err != nil {
			t.Errorf("renewed lease: got %v, want nil", err)
		}
		time.Sleep(9 * time.Second)
		go func() { waiting <- l.wait(t.Context(), 2) }()
		synctest.Wait()
		l.close()
		if err := <-waiting; !errors.Is(err, pipeline.ErrFenced) {
			t.Errorf("expired lease of an ended generation: got %v, want ErrFenced", err)
		}
		l.assign([]int{1, 2})
		go func() { waiting <- l.wait(t.Context(), 1) }()
		synctest.Wait()
		l.release(1)
		if err := <-waiting; !errors.Is(err, pipeline.ErrFenced) {
			t.Errorf("released partition: got %v, want ErrFenced", err)
		}
		if l.epochOf(1) != 0 || l.epochOf(2) != 2 {
			t.Errorf("got epochs %d and %d, want 0 of the released partition and 2 of the other", l.epochOf(1), l.epochOf(2))
		}
	})
}
