package client

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestRateLimitersShareARate: limiters that share a rate keep it together, even if one of them is idle now and then,
// and each of the others has its whole share.
func TestRateLimitersShareARate(t *testing.T) {
	for name, tt := range map[string]struct {
		shares []int // partitions of each limiter
		burst  int   // slots of different lengths coincide now and then
	}{
		"twelve of one": {[]int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 2},
		"six of two":    {[]int{2, 2, 2, 2, 2, 2}, 2},
		"five":          {[]int{3, 3, 2, 2, 2}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			shares := tt.shares
			synctest.Test(t, func(t *testing.T) {
				const rate, partitions, seconds = 20.0, 12, 60
				begin := time.Now()
				ctx, cancel := context.WithCancel(t.Context())
				var mu sync.Mutex
				var at []time.Duration
				counts := make([]int, len(shares))
				var all sync.WaitGroup
				first := 0
				for i, n := range shares {
					l := NewRateLimiter(rate)
					l.SetShare(rate*float64(n)/partitions, float64(first)/partitions)
					first += n
					random := rand.New(rand.NewPCG(1, uint64(i)))
					for range 3 {
						all.Go(func() {
							for l.Wait(ctx) == nil {
								mu.Lock()
								at = append(at, time.Since(begin))
								counts[i]++
								idle := time.Duration(0)
								if i == 0 && random.IntN(4) == 0 { // the first limiter is idle now and then
									idle = time.Duration(random.IntN(5)) * time.Second
								}
								mu.Unlock()
								time.Sleep(idle)
							}
						})
					}
				}
				time.Sleep(seconds * time.Second)
				cancel()
				all.Wait()
				for i := range at { // slots begin at whole microseconds
					at[i] = at[i].Round(time.Millisecond)
				}
				wantRate(t, at, rate, tt.burst)
				for i, n := range shares[1:] {
					if want := rate * float64(n) / partitions * seconds; float64(counts[i+1]) < want-2 {
						t.Errorf("limiter with %d partitions: got %d attempts, want at least %.0f", n, counts[i+1], want-2)
					}
				}
			})
		})
	}
}

// TestRateLimiterSlots: two attempts are never close together, also when the clock is set back.
func TestRateLimiterSlots(t *testing.T) {
	l := NewRateLimiter(10)
	l.SetShare(10, 0.5)
	l.slot, l.passed = 0, time.Time{}
	now := time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)
	back := now.Add(-time.Hour)
	const slot = 100*time.Millisecond + time.Microsecond
	for _, tt := range []struct {
		when        string
		at          time.Time
		least, most time.Duration
	}{
		{"the first attempt", now, 0, 0},
		{"in the same slot", now, 1, slot},
		{"in the next slot, half a slot later", now.Add(51 * time.Millisecond), 39 * time.Millisecond, 39 * time.Millisecond},
		{"in the next slot, nearly a slot later", now.Add(90 * time.Millisecond), 0, 0},
		{"after the clock was set back", back, 1, slot},
		{"a slot after that", back.Add(101 * time.Millisecond), 0, 0},
	} {
		l.mu.Lock()
		wait := l.takeSlot(tt.at)
		l.mu.Unlock()
		if wait < tt.least || wait > tt.most {
			t.Errorf("%s: got a wait of %v, want %v to %v", tt.when, wait, tt.least, tt.most)
		}
	}
}

// TestRateLimiterLongSlots: a rate that throttling cannot lower does not skip slots while it would recover.
func TestRateLimiterLongSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewRateLimiter(20)
		l.Throttled(time.Second)
		l.SetShare(0.25, 0.5)
		begin := time.Now()
		for range 3 {
			if err := l.Wait(t.Context()); err != nil {
				t.Fatalf("Wait: got %v, want nil", err)
			}
		}
		if took := time.Since(begin); took > 13*time.Second {
			t.Errorf("3 attempts: got them after %v, want at most 13s", took)
		}
	})
}
