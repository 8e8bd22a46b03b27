package client

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestRateLimiterStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewRateLimiter(1)
		l.Throttled(time.Hour) // a closed gate does not delay Stop
		all := wantStopped(t, l)
		begin := time.Now()
		l.Stop()
		l.Stop()
		all.Wait()
		if err := l.Wait(t.Context()); !errors.Is(err, ErrStopped) || time.Since(begin) != 0 {
			t.Errorf("after Stop: got %v after %v, want %v at once", err, time.Since(begin), ErrStopped)
		}

		config := testConfig("https://api.example/v1")
		config.RateLimiter = l
		config.Transport = roundTripper(func(r *http.Request) *canned {
			t.Errorf("after Stop: got a request to %s, want none", r.URL)
			return response(404, "")
		})
		if _, err := newClient(t, config).Customer(t.Context(), testID); !errors.Is(err, ErrStopped) {
			t.Errorf("Customer after Stop: got %v, want %v", err, ErrStopped)
		}
	})
}

// wantStopped makes five callers wait, each of which wants ErrStopped.
func wantStopped(t *testing.T, l *RateLimiter) *sync.WaitGroup {
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			if err := l.Wait(t.Context()); !errors.Is(err, ErrStopped) {
				t.Errorf("Wait: got %v, want %v", err, ErrStopped)
			}
		})
	}
	synctest.Wait()
	return &all
}

// TestRateLimiterRecall: between Recall and Admit every caller gets ErrStopped, those that are waiting too; afterwards
// attempts pass as before.
func TestRateLimiterRecall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewRateLimiter(1)
		all := wantStopped(t, l)
		begin := time.Now()
		l.Recall()
		all.Wait()
		l.SetRate(10) // does not undo Recall
		if err := l.Wait(t.Context()); !errors.Is(err, ErrStopped) || time.Since(begin) != 0 {
			t.Errorf("after Recall: got %v after %v, want %v at once", err, time.Since(begin), ErrStopped)
		}
		l.Admit()
		for range 10 {
			if err := l.Wait(t.Context()); err != nil {
				t.Errorf("after Admit: got %v, want nil", err)
			}
		}
		if took := time.Since(begin); took < 900*time.Millisecond || took > 1100*time.Millisecond {
			t.Errorf("10 attempts at rate 10: got %v, want 0.9s to 1.1s", took)
		}
	})
}

// TestRateLimiterUntil: from the given moment on no attempt passes, until a later moment is given; then the rate is
// what it was.
func TestRateLimiterUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		l := NewRateLimiter(10)
		l.Until(begin.Add(time.Second))
		var mu sync.Mutex
		var at []time.Duration
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				for l.Wait(ctx) == nil {
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
			t.Errorf("got attempts at %v, want 9 or more, all before 1s", at)
		}
		early := len(at)
		mu.Unlock()
		l.Until(time.Now().Add(time.Second))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		cancel()
		all.Wait()
		late := at[early:]
		if len(late) < 9 || late[len(late)-1] >= 11*time.Second {
			t.Errorf("with a later moment: got attempts at %v, want 9 or more, all before 11s", late)
		}
		wantRate(t, at, 10, 1)
	})
}
