package broker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// leaseWatch is a Membership that notes the leases.
type leaseWatch struct{ leases *[]time.Time }

func (leaseWatch) Assigned([]int, int)                {}
func (leaseWatch) Restore(context.Context, int) error { return nil }
func (w leaseWatch) Lease(until time.Time)            { *w.leases = append(*w.leases, until) }
func (leaseWatch) Stalled(Stall)                      {}

func testLease(told *[]time.Time) *lease {
	o := ConsumerOptions{SessionTimeout: 10 * time.Second, RebalanceTimeout: 20 * time.Second}
	if told != nil {
		o.Membership = leaseWatch{told}
	}
	return newLease(&o)
}

// A tenth is kept of each timeout, and both are counted from when we asked, not from when we were answered.
func TestLeaseEnds(t *testing.T) {
	var told []time.Time
	l := testLease(&told)
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
		{"still releasing", func() { l.renew(after(18), true) }, after(21)}, // 18 s after the last one at rest
		{"a new generation", func() { l.renew(after(19), false) }, after(28)},
		{"given away", func() { l.revoke() }, time.Time{}},
		{"a rebalance is no beginning", func() { l.renew(after(20), true) }, time.Time{}.Add(18 * time.Second)},
	}
	for i, s := range steps {
		s.do()
		if len(told) != i+1 || !told[i].Equal(s.want) {
			t.Fatalf("%s: until %v, want %v", s.name, told[i].Sub(begun), s.want.Sub(begun))
		}
	}
}

// Who waits for a partition gets it while the lease lasts, is held up when it ran out, and is sent away when the
// partition is given back.
func TestLeaseIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testLease(nil)
		l.assign([]int{1, 2})
		l.renew(time.Now(), false)
		if err := l.wait(t.Context(), 1); err != nil {
			t.Errorf("at once: %v", err)
		}
		if err := l.wait(t.Context(), 3); !errors.Is(err, pipeline.ErrFenced) {
			t.Errorf("another one's: %v", err)
		}
		time.Sleep(9 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.wait(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after its end: %v", err)
		}
		waiting := make(chan error)
		go func() { waiting <- l.wait(t.Context(), 1) }()
		synctest.Wait()
		l.renew(time.Now(), false)
		if err := <-waiting; err != nil {
			t.Errorf("renewed: %v", err)
		}
		time.Sleep(9 * time.Second)
		go func() { waiting <- l.wait(t.Context(), 2) }()
		synctest.Wait()
		l.close()
		if err := <-waiting; !errors.Is(err, pipeline.ErrFenced) {
			t.Errorf("without hope: %v", err)
		}
		l.assign([]int{1, 2})
		go func() { waiting <- l.wait(t.Context(), 1) }()
		synctest.Wait()
		l.release(1)
		if err := <-waiting; !errors.Is(err, pipeline.ErrFenced) {
			t.Errorf("given back: %v", err)
		}
		if l.epochOf(1) != 0 || l.epochOf(2) != 2 {
			t.Error("the other partition is held as before, by the second assignment; this one is not")
		}
	})
}
