package client

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestRateLimiterAfterThrottling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewRateLimiter(100)
		passages(t, l, 4, 10)
		closings := l.closings
		begin := time.Now()
		for range 32 { // all attempts in flight are answered 429
			l.throttledAt(closings, 3*time.Second)
		}
		wantState(t, "after 32 responses 429", l, RateLimiterState{Rate: 100, InForce: 50, Closed: 3 * time.Second})
		at := passages(t, l, 4, 100)
		if at[0] < 3*time.Second {
			t.Errorf("first attempt after the gate closed: got it after %v, want 3s or more", at[0])
		}
		wantRate(t, at, 50, 2)

		// A late response to one of these attempts closes the gate, too, but does not lower the rate again.
		late := RateLimiterState{Rate: 100, InForce: 50, Closed: time.Second}
		l.throttledAt(closings, time.Second)
		wantState(t, "after a late 429", l, late)
		l.Throttled(time.Millisecond)
		wantState(t, "after a shorter Retry-After", l, late)
		if d := time.Since(begin); d > 7*time.Second {
			t.Fatalf("got here after %v, want at most 7s", d)
		}

		time.Sleep(time.Second + recoverAfter - time.Millisecond)
		wantState(t, "just before the rate rises", l, RateLimiterState{Rate: 100, InForce: 50})
		for _, want := range []float64{60, 70, 80, 90, 100, 100} {
			time.Sleep(recoverAfter)
			if s := l.State(); math.Abs(s.InForce-want) > 1e-9 {
				t.Errorf("rate in force: got %v, want %v", s.InForce, want)
			}
		}
	})
}

func wantState(t *testing.T, when string, l *RateLimiter, want RateLimiterState) {
	t.Helper()
	if got := l.State(); got != want {
		t.Errorf("%s: got %+v, want %+v", when, got, want)
	}
}

// TestRateLimiterBeginsSlowlyBehindTheGate: when the gate opens, there is no burst.
func TestRateLimiterBeginsSlowlyBehindTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewRateLimiter(1000) // at half of it, the burst is 11
		l.Throttled(3 * time.Second)
		at := passages(t, l, 20, 20)
		wantRate(t, at, 500, 1)
		if at[0] < 3*time.Second || at[0] > 3*time.Second+3*time.Millisecond {
			t.Errorf("first attempt: got it after %v, want 3s to 3.003s", at[0])
		}
	})
}

func TestRateLimiterWithoutRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewRateLimiter(1000)
		for i, seconds := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
			l.Throttled(0)
			l.Throttled(0) // changes nothing: the gate is closed already
			wantState(t, fmt.Sprintf("throttled %d times", i+1), l, RateLimiterState{Rate: 1000,
				InForce: max(10, 1000/math.Pow(2, float64(i+1))), Closed: time.Duration(seconds) * time.Second})
			time.Sleep(l.State().Closed)
		}
		time.Sleep(recoverAfter)
		l.Throttled(0)
		if s := l.State(); s.Closed != time.Second {
			t.Errorf("after 3s without throttling: got a gate closed for %v, want 1s", s.Closed)
		}
		l.Throttled(time.Hour)
		if s := l.State(); s.Closed != MaxRetryAfter {
			t.Errorf("Retry-After of an hour: got a gate closed for %v, want %v", s.Closed, MaxRetryAfter)
		}
	})
}

func TestRateLimiterFloor(t *testing.T) {
	for rate, floor := range map[float64]float64{0.5: 0.5, 1: 1, 20: 1, 100: 1, 500: 5, math.Inf(1): math.Inf(1)} {
		synctest.Test(t, func(t *testing.T) {
			l := NewRateLimiter(rate)
			for range 20 {
				l.Throttled(time.Second)
				time.Sleep(time.Second)
			}
			if s := l.State(); math.Abs(s.InForce-floor) > 1e-9 && s.InForce != floor {
				t.Errorf("rate %v, throttled 20 times: got %v in force, want %v", rate, s.InForce, floor)
			}
			time.Sleep(11 * recoverAfter)
			if s := l.State(); s.InForce != rate {
				t.Errorf("rate %v, recovered: got %v in force, want %[1]v", rate, s.InForce)
			}
		})
	}
}

// TestRateLimiterUnderWeather throttles and changes the rate at random: the bound of the highest rate always holds.
func TestRateLimiterUnderWeather(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(seed, 0))
		l := NewRateLimiter(100)
		ctx, cancel := context.WithCancel(t.Context())
		var weather sync.WaitGroup
		weather.Go(func() {
			for ctx.Err() == nil {
				switch r.IntN(3) {
				case 0:
					l.Throttled(time.Duration(r.IntN(3000)) * time.Millisecond)
				case 1:
					l.SetRate(1 + 99*r.Float64())
				}
				_ = sleep(ctx, time.Duration(r.IntN(4000))*time.Millisecond, nil)
			}
		})
		at := passages(t, l, 16, 2000)
		cancel()
		weather.Wait()
		wantRate(t, at, 100, 3)
	})
}
