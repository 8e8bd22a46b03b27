package client

import (
	"context"
	"errors"
	"net/http"
	"strings"
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
		select {
		case <-l.halted():
			t.Error("after Admit: requests in flight are still ended")
		default:
		}
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

// hungBody is a body of which no byte arrives before the request ends.
type hungBody struct{ request *http.Request }

func (b hungBody) Read([]byte) (int, error) {
	<-b.request.Context().Done()
	return 0, b.request.Context().Err()
}

// TestStopDoesNotWaitForReadings: a stop or recall ends the requests in flight that change nothing at the partner, and
// waits for the answer to the others.
func TestStopDoesNotWaitForReadings(t *testing.T) {
	const slow = 5 * time.Second // of the answer to a POST
	get := func(ctx context.Context, c *Client) error { _, err := c.Customer(ctx, testID); return err }
	list := func(ctx context.Context, c *Client) error {
		return customersOf(ctx, c, func(Customer) error { return nil })
	}
	create := func(ctx context.Context, c *Client) error {
		_, err := c.CreateCustomer(ctx, testIdem, CreateBody(testChain, testExtern))
		return err
	}
	for _, test := range []struct {
		name       string
		hung       string // the path of requests that are not answered
		headerOnly bool   // of the answer the header arrives
		call       func(context.Context, *Client) error
		want       error
		after      time.Duration
	}{
		{"token", "/auth/token", false, create, ErrStopped, 0},
		{"token, body", "/auth/token", true, create, ErrStopped, 0},
		{"GET", "/customers/" + testID, false, get, ErrStopped, 0},
		{"GET, body", "/customers/" + testID, true, get, ErrStopped, 0},
		{"list", "/customers", false, list, ErrStopped, 0},
		{"list, body", "/customers", true, list, ErrStopped, 0},
		{"POST", "", false, create, nil, slow},
	} {
		for name, stop := range map[string]func(*RateLimiter){"Stop": (*RateLimiter).Stop, "Recall": (*RateLimiter).Recall} {
			t.Run(test.name+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					config := testConfig("https://api.example/v1")
					config.Transport = roundTripper(func(r *http.Request) *canned {
						switch path := strings.TrimPrefix(r.URL.Path, "/v1"); {
						case path == test.hung && test.headerOnly:
							return &canned{status: http.StatusOK, body: hungBody{r}}
						case path == test.hung:
							return nil
						case path == "/auth/token":
							return response(200, `{"token":"t","tokenType":"Bearer"}`)
						}
						time.Sleep(slow)
						return response(201, `{"id":"`+testID+`","externalId":"`+testExtern+`","chainId":"`+testChain+`"}`)
					})
					c := newClient(t, config)
					ended := make(chan error, 1)
					go func() { ended <- test.call(t.Context(), c) }()
					synctest.Wait()
					begin := time.Now()
					stop(config.RateLimiter)
					if err := <-ended; !errors.Is(err, test.want) || time.Since(begin) != test.after {
						t.Errorf("got %v after %v, want %v after %v", err, time.Since(begin), test.want, test.after)
					}
				})
			})
		}
	}
}
