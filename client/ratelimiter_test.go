package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// passages makes workers wait until so many attempts have passed, and returns when each did, since the beginning.
func passages(t *testing.T, l *RateLimiter, workers, total int) []time.Duration {
	t.Helper()
	begin := time.Now()
	var mu sync.Mutex
	var at []time.Duration
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for {
				if err := l.Wait(t.Context()); err != nil {
					t.Errorf("Wait: got %v, want nil", err)
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

// wantRate fails when any stretch of time between two passages holds more than rate·T + burst of them.
func wantRate(t *testing.T, at []time.Duration, rate float64, burst int) {
	t.Helper()
	for i := range at {
		for j := i; j < len(at); j++ {
			n, most := j-i+1, rate*(at[j]-at[i]).Seconds()+float64(burst)
			if float64(n) > most+1e-6 {
				t.Fatalf("got %d attempts between %v and %v, want at most %.2f", n, at[i], at[j], most)
			}
		}
	}
}

func TestRateLimiterHoldsTheRate(t *testing.T) {
	for _, tt := range []struct {
		rate  float64
		burst int
	}{{0.5, 1}, {20, 1}, {49, 1}, {50, 2}, {200, 5}, {1000, 21}} {
		t.Run(fmt.Sprint(tt.rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := NewRateLimiter(tt.rate)
				at := passages(t, l, 8, 300)
				wantRate(t, at, tt.rate, tt.burst)
				wantSecond(t, at, int(math.Ceil(tt.rate)))
				// The bucket was empty at the start, and no attempt is lost later.
				if want := time.Duration(float64(time.Second) / tt.rate); at[0] < want || at[0] > want+time.Millisecond {
					t.Errorf("first attempt: got it after %v, want %v", at[0], want)
				}
				if took, ideal := at[299].Seconds(), 300/tt.rate; took > ideal*1.01 {
					t.Errorf("300 attempts: got %.3f s, want %.3f s", took, ideal)
				}
				// After an idle hour, too, no more than the burst passes at once.
				time.Sleep(time.Hour)
				wantRate(t, passages(t, l, 8, 100), tt.rate, tt.burst)
			})
		})
	}
}

// wantSecond fails when any second has more attempts than most.
func wantSecond(t *testing.T, at []time.Duration, most int) {
	t.Helper()
	first := 0
	for last := range at {
		for at[last]-at[first] >= time.Second {
			first++
		}
		if n := last - first + 1; n > most {
			t.Fatalf("got %d attempts in the second after %v, want at most %d", n, at[first], most)
		}
	}
}

// TestRateLimiterAfterPauses: what is made up for a pause does not exceed the rate in the second after it, even if the
// rate changes for a moment.
func TestRateLimiterAfterPauses(t *testing.T) {
	for _, every := range []int{150, 200, 400, 700} { // attempts
		t.Run(fmt.Sprint(every), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := NewRateLimiter(200)
				var at []time.Duration
				for begin := time.Now(); len(at) < 2000; {
					if err := l.Wait(t.Context()); err != nil {
						t.Fatalf("Wait: got %v, want nil", err)
					}
					at = append(at, time.Since(begin))
					switch len(at) % every {
					case 0:
						time.Sleep(20 * time.Millisecond)
					case 104:
						l.SetRate(100)
						l.SetRate(0)
						l.SetRate(200)
					}
				}
				wantRate(t, at, 200, 5)
				wantSecond(t, at, 200)
				if took := at[len(at)-1]; took > 10200*time.Millisecond {
					t.Errorf("2,000 attempts: got %v, want at most 10.2s", took)
				}
			})
		})
	}
}

func TestRateLimiterSetRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewRateLimiter(0)
		passed := make(chan time.Time, 1)
		go func() {
			if err := l.Wait(t.Context()); err != nil {
				t.Errorf("Wait: got %v, want nil", err)
			}
			passed <- time.Now()
		}()
		time.Sleep(time.Hour)
		select {
		case <-passed:
			t.Fatal("rate 0: got an attempt through, want none")
		default:
		}
		// The caller that is waiting notices each change: at 0.001/s it would wait for a quarter of an hour.
		l.SetRate(0.001)
		synctest.Wait()
		begin := time.Now()
		l.SetRate(2)
		if at := <-passed; at.Sub(begin) > 600*time.Millisecond {
			t.Errorf("attempt at rate 2: got it after %v, want at most 600ms", at.Sub(begin))
		}

		l.SetRate(math.Inf(1))
		if at := passages(t, l, 4, 1000); at[999] != 0 {
			t.Errorf("1,000 attempts without a limit: got them after %v, want 0s", at[999])
		}
		l.SetRate(10)
		wantRate(t, passages(t, l, 4, 50), 10, 1)
		l.SetRate(math.NaN())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := l.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("at rate NaN: got %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

func TestRateLimiterWaitersLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewRateLimiter(1)
		l.Throttled(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		for range 10 { // the first in the queue and the others
			all.Go(func() {
				if err := l.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Wait: got %v, want %v", err, context.DeadlineExceeded)
				}
			})
		}
		all.Wait()
		begin := time.Now()
		if err := l.Wait(t.Context()); err != nil || time.Since(begin) > 61*time.Second {
			t.Errorf("the next caller: got %v after %v, want nil within 61s", err, time.Since(begin))
		}
		cancel()
		if err := l.Wait(ctx); err == nil {
			t.Error("Wait with a cancelled context: got nil, want an error")
		}
	})
}

// TestBegunRowsGoFirst: requests for customers that exist wait for at most two creations, however many wait.
func TestBegunRowsGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var order []string
		i := &issuer{lifetime: time.Hour}
		c := bubbleClient(t, 10, func(r *http.Request) *canned {
			if strings.HasSuffix(r.URL.Path, "/auth/token") {
				return i.token()
			}
			mu.Lock()
			defer mu.Unlock()
			order = append(order, r.Method)
			return response(404, "")
		})
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				_, err := c.CreateCustomer(t.Context(), testIdem, CreateBody(testChain, testExtern))
				wantKind(t, err, NotFound)
			})
		}
		synctest.Wait() // all creations wait
		impatient, stop := context.WithTimeout(t.Context(), time.Second/2)
		defer stop()
		all.Go(func() {
			_, err := c.CreateCustomer(impatient, testIdem, CreateBody(testChain, testExtern))
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a creation with a deadline: got %v, want %v", err, context.DeadlineExceeded)
			}
		})
		for range 3 {
			all.Go(func() {
				_, err := c.Customer(t.Context(), testID)
				wantKind(t, err, NotFound)
			})
		}
		all.Wait()
		if len(order) != 23 || slices.Contains(order[5:], "GET") {
			t.Errorf("got the order %v, want 20 POST and 3 GET, no GET behind more than two POST", order)
		}
	})
}
