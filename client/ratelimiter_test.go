package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// passages lets workers wait for places until so many have passed, and returns when each did, since the beginning.
func passages(t *testing.T, p *RateLimiter, workers, total int) []time.Duration {
	t.Helper()
	begin := time.Now()
	var mu sync.Mutex
	var at []time.Duration
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for {
				if err := p.Wait(t.Context()); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if len(at) >= total {
					mu.Unlock()
					return
				}
				at = append(at, time.Since(begin))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return at
}

// inWindows fails when any stretch between two passages holds more than rate·T + burst.
func inWindows(t *testing.T, at []time.Duration, rate float64, burst int) {
	t.Helper()
	for i := range at {
		for j := i; j < len(at); j++ {
			n, most := j-i+1, rate*(at[j]-at[i]).Seconds()+float64(burst)
			if float64(n) > most+1e-6 {
				t.Fatalf("%d passed between %v and %v, at most %.2f may", n, at[i], at[j], most)
			}
		}
	}
}

func TestPaceHoldsTheRate(t *testing.T) {
	for _, tt := range []struct {
		rate  float64
		burst int
	}{{0.5, 1}, {20, 1}, {49, 1}, {50, 2}, {200, 5}, {1000, 21}} {
		t.Run(fmt.Sprint(tt.rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := NewRateLimiter(tt.rate)
				at := passages(t, p, 8, 300)
				inWindows(t, at, tt.rate, tt.burst)
				// Nothing was in the bucket at the start, and nothing is lost later.
				if want := time.Duration(float64(time.Second) / tt.rate); at[0] < want || at[0] > want+time.Millisecond {
					t.Errorf("the first passed after %v, want %v", at[0], want)
				}
				if took, ideal := at[299].Seconds(), 300/tt.rate; took > ideal*1.01 {
					t.Errorf("300 took %.3f s, want %.3f s", took, ideal)
				}
				// Nor does a long rest give more than the burst.
				time.Sleep(time.Hour)
				inWindows(t, passages(t, p, 8, 100), tt.rate, tt.burst)
			})
		})
	}
}

func TestPaceAfterThrottling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewRateLimiter(100)
		passages(t, p, 4, 10)
		period := p.period
		begin := time.Now()
		for range 32 { // all that were under way come back with 429
			p.throttledIn(period, 3*time.Second)
		}
		if s := p.State(); s != (RateLimiterState{Rate: 100, Pace: 50, Closed: 3 * time.Second}) {
			t.Fatalf("after a wave of 429: %+v", s)
		}
		at := passages(t, p, 4, 100)
		if at[0] < 3*time.Second {
			t.Errorf("one passed a closed gate after %v", at[0])
		}
		inWindows(t, at, 50, 2)

		// One more answer to the same wave, late: its pause counts, the pace stays.
		p.throttledIn(period, time.Second)
		if s := p.State(); s.Pace != 50 || s.Closed != time.Second {
			t.Errorf("after a late 429: %+v", s)
		}
		// A shorter pause does not open the gate earlier.
		p.Throttled(time.Millisecond)
		if s := p.State(); s.Pace != 50 || s.Closed != time.Second {
			t.Errorf("after a shorter pause: %+v", s)
		}
		if d := time.Since(begin); d > 7*time.Second {
			t.Fatalf("took %v", d)
		}

		time.Sleep(time.Second + calm - time.Millisecond)
		if s := p.State(); s.Pace != 50 {
			t.Errorf("just before the calm time is over: %+v", s)
		}
		for _, want := range []float64{60, 70, 80, 90, 100, 100} {
			time.Sleep(calm)
			if s := p.State(); math.Abs(s.Pace-want) > 1e-9 {
				t.Errorf("pace %v, want %v", s.Pace, want)
			}
		}
	})
}

func TestPaceBeginsSlowlyBehindTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewRateLimiter(1000) // halved: a burst of 11 would be within its right
		p.Throttled(3 * time.Second)
		at := passages(t, p, 20, 20)
		inWindows(t, at, 500, 1)
		if at[0] < 3*time.Second || at[0] > 3*time.Second+3*time.Millisecond {
			t.Errorf("the first passed after %v", at[0])
		}
	})
}

func TestPaceWithoutRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewRateLimiter(1000)
		for i, seconds := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
			p.Throttled(0)
			p.Throttled(0) // the gate is closed already: no news
			if s := p.State(); s.Closed.Seconds() != float64(seconds) || s.Pace != max(10, 1000/math.Pow(2, float64(i+1))) {
				t.Errorf("throttled %d times: %+v, want closed for %d s", i+1, s, seconds)
			}
			time.Sleep(p.State().Closed)
		}
		time.Sleep(calm)
		p.Throttled(0)
		if s := p.State(); s.Closed != time.Second {
			t.Errorf("after a calm time: %+v", s)
		}
		p.Throttled(time.Hour)
		if s := p.State(); s.Closed != MaxRetryAfter {
			t.Errorf("an hour asked: %+v", s)
		}
	})
}

func TestPaceFloor(t *testing.T) {
	for rate, floor := range map[float64]float64{0.5: 0.5, 1: 1, 20: 1, 100: 1, 500: 5, math.Inf(1): math.Inf(1)} {
		synctest.Test(t, func(t *testing.T) {
			p := NewRateLimiter(rate)
			for range 20 {
				p.Throttled(time.Second)
				time.Sleep(time.Second)
			}
			if s := p.State(); math.Abs(s.Pace-floor) > 1e-9 && s.Pace != floor {
				t.Errorf("rate %v: pace %v, want %v", rate, s.Pace, floor)
			}
			time.Sleep(11 * calm)
			if s := p.State(); s.Pace != rate {
				t.Errorf("rate %v: pace %v after a long calm", rate, s.Pace)
			}
		})
	}
}

func TestPaceSetRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewRateLimiter(0)
		passed := make(chan time.Time, 1)
		go func() {
			if err := p.Wait(t.Context()); err != nil {
				t.Error(err)
			}
			passed <- time.Now()
		}()
		time.Sleep(time.Hour)
		select {
		case <-passed:
			t.Fatal("one passed at rate 0")
		default:
		}
		// The one that waits already notices each change: at 0.001/s it would be a quarter of an hour.
		p.SetRate(0.001)
		synctest.Wait()
		begin := time.Now()
		p.SetRate(2)
		if at := <-passed; at.Sub(begin) > 600*time.Millisecond {
			t.Errorf("passed after %v, want half a second", at.Sub(begin))
		}

		p.SetRate(math.Inf(1))
		if at := passages(t, p, 4, 1000); at[999] != 0 {
			t.Errorf("1,000 took %v without a limit", at[999])
		}
		p.SetRate(10)
		inWindows(t, passages(t, p, 4, 50), 10, 1)
		p.SetRate(math.NaN())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("at rate NaN: %v", err)
		}
	})
}

// TestPaceUnderWeather throttles and changes the rate at random: within every stretch of one rate the bound holds.
func TestPaceUnderWeather(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(seed, 0))
		p := NewRateLimiter(100)
		ctx, cancel := context.WithCancel(t.Context())
		var weather sync.WaitGroup
		weather.Go(func() {
			for ctx.Err() == nil {
				switch r.IntN(3) {
				case 0:
					p.Throttled(time.Duration(r.IntN(3000)) * time.Millisecond)
				case 1:
					p.SetRate(1 + 99*r.Float64())
				}
				_ = sleep(ctx, time.Duration(r.IntN(4000))*time.Millisecond, nil)
			}
		})
		at := passages(t, p, 16, 2000)
		cancel()
		weather.Wait()
		inWindows(t, at, 100, 3)
	})
}

func TestPaceWaitersLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewRateLimiter(1)
		p.Throttled(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		for range 10 { // the head of the line and those behind it
			all.Go(func() {
				if err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		begin := time.Now()
		if err := p.Wait(t.Context()); err != nil || time.Since(begin) > 61*time.Second {
			t.Errorf("the next: %v after %v", err, time.Since(begin))
		}
		cancel()
		if err := p.Wait(ctx); err == nil {
			t.Error("an ended context got a place")
		}
	})
}

func TestPaceStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewRateLimiter(1)
		p.Throttled(time.Hour) // no matter what one waits for
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if err := p.Wait(t.Context()); !errors.Is(err, ErrStopped) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		begin := time.Now()
		p.Stop()
		p.Stop()
		all.Wait()
		if err := p.Wait(t.Context()); !errors.Is(err, ErrStopped) || time.Since(begin) != 0 {
			t.Errorf("%v after %v", err, time.Since(begin))
		}

		config := testConfig("https://api.example/v1")
		config.Pace = p
		config.Transport = roundTripper(func(r *http.Request) *canned {
			t.Errorf("%s was sent", r.URL)
			return response(404, "")
		})
		if _, err := newClient(t, config).Customer(t.Context(), testID); !errors.Is(err, ErrStopped) {
			t.Errorf("call: %v", err)
		}
	})
}

// TestPaceRecall: whoever waits when the pace is recalled, or comes later, is turned away; who comes after that is let
// through as before.
func TestPaceRecall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewRateLimiter(1)
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if err := p.Wait(t.Context()); !errors.Is(err, ErrStopped) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		begin := time.Now()
		p.Recall()
		all.Wait()
		p.SetRate(10) // which admits nobody
		if err := p.Wait(t.Context()); !errors.Is(err, ErrStopped) || time.Since(begin) != 0 {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		p.Admit()
		for range 10 {
			if err := p.Wait(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(begin); took < 900*time.Millisecond || took > 1100*time.Millisecond {
			t.Errorf("10 passed in %v", took)
		}
	})
}

// TestPacesShareARate: however many share a rate, and whoever of them is idle for a while, together they pass no more than
// one would, but for what timers bunch; and whoever has something to do has all of its share.
func TestPacesShareARate(t *testing.T) {
	for name, tt := range map[string]struct {
		shares []int // how many partitions each has
		burst  int   // grids of different periods meet now and then
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
					p := NewRateLimiter(rate)
					p.SetShare(rate*float64(n)/partitions, float64(first)/partitions)
					first += n
					random := rand.New(rand.NewPCG(1, uint64(i)))
					for range 3 {
						all.Go(func() {
							for p.Wait(ctx) == nil {
								mu.Lock()
								at = append(at, time.Since(begin))
								counts[i]++
								idle := time.Duration(0)
								if i == 0 && random.IntN(4) == 0 { // the first one has not always something to do
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
				inWindows(t, at, rate, tt.burst)
				for i, n := range shares[1:] {
					if want := rate * float64(n) / partitions * seconds; float64(counts[i+1]) < want-2 {
						t.Errorf("the one with %d partitions passed %d times, want %.0f", n, counts[i+1], want)
					}
				}
			})
		})
	}
}

// TestPaceGridAndTheClock: a clock that is set back, a share that changes and a gate that opens let nobody pass twice at
// once, or hold anybody up for long.
func TestPaceGridAndTheClock(t *testing.T) {
	p := NewRateLimiter(10)
	p.SetShare(10, 0.5)
	now := time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)
	pass := func(at time.Time) time.Duration {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.tryGrid(at)
	}
	p.slot, p.passed = 0, time.Time{}
	if wait := pass(now); wait != 0 {
		t.Fatalf("the first waits %v", wait)
	}
	if wait := pass(now); wait <= 0 || wait > 100*time.Millisecond+time.Microsecond {
		t.Errorf("a second one in the same slot waits %v", wait)
	}
	if wait := pass(now.Add(51 * time.Millisecond)); wait != 39*time.Millisecond {
		t.Errorf("in the next slot, half a period later, it waits %v", wait)
	}
	if wait := pass(now.Add(90 * time.Millisecond)); wait != 0 {
		t.Errorf("in the next slot, nearly a period later, it waits %v", wait)
	}
	back := now.Add(-time.Hour)
	if wait := pass(back); wait <= 0 || wait > 100*time.Millisecond+time.Microsecond {
		t.Errorf("the clock was set back: it waits %v", wait)
	}
	if wait := pass(back.Add(101 * time.Millisecond)); wait != 0 {
		t.Errorf("a slot later it waits %v", wait)
	}
}

// TestPaceUntil: nobody passes from the moment on that was said, those who wait already included, until a later one is
// said; then the pace is what it was.
func TestPaceUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := NewRateLimiter(10)
		p.Until(begin.Add(time.Second))
		var mu sync.Mutex
		var at []time.Duration
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				for p.Wait(ctx) == nil {
					mu.Lock()
					at = append(at, time.Since(begin))
					mu.Unlock()
				}
			})
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		mu.Lock()
		if n := len(at); n < 9 || at[n-1] >= time.Second {
			t.Errorf("%d passed, the last %v after the beginning", n, at[n-1])
		}
		early := len(at)
		mu.Unlock()
		p.Until(time.Now().Add(time.Second))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		cancel()
		all.Wait()
		late := at[early:]
		if len(late) < 9 || late[len(late)-1] >= 11*time.Second {
			t.Errorf("later %v passed", late)
		}
		inWindows(t, at, 10, 1)
	})
}
