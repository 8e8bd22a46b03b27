package client

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestLate401SparesTheNextToken(t *testing.T) {
	var tokens tokens
	now := time.Now()
	tokens.set(bearerToken{secret: "same"}, now.Add(time.Hour))
	old, _ := tokens.valid(now, bearerToken{})
	tokens.set(bearerToken{secret: "same"}, now.Add(time.Hour))
	tokens.refuse(old)
	tokens.refuse(old)
	if _, ok := tokens.valid(now, old); !ok {
		t.Error("after two late 401s for the old token: got no valid token, want the new one")
	}
	issued, _ := tokens.valid(now, old)
	tokens.refuse(issued)
	if _, ok := tokens.valid(now, issued); ok {
		t.Error("after a 401: got a token that is valid for the refused request, want none")
	}
	if _, ok := tokens.valid(now, bearerToken{}); !ok {
		t.Error("after one 401: got no token for other requests, want the same")
	}
	tokens.confirm(issued)
	tokens.refuse(issued)
	if _, ok := tokens.valid(now, bearerToken{}); !ok {
		t.Error("after a 401, a 2xx and a 401: got no token for other requests, want the same")
	}
	tokens.refuse(issued)
	if _, ok := tokens.valid(now, bearerToken{}); ok {
		t.Error("after two 401s: got a valid token, want none")
	}
}

// TestWrong401HoldsUpNobody: the partner answers 401 once although the token is valid. The others' requests go on at
// the rate while another token is fetched.
func TestWrong401HoldsUpNobody(t *testing.T) {
	for name, tt := range map[string]struct {
		broken   bool          // the first answer with the second token; then all wait for the next
		requests int           // in all
		waits    time.Duration // of all, for tokens
	}{
		"a token":        {false, 103, time.Second},
		"a broken token": {true, 104, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const rate, rows = 50, 100
				i := &issuer{lifetime: time.Hour, delay: time.Second}
				var refused, broken atomic.Bool
				var begun atomic.Int64
				begin := time.Now()
				c := bubbleClient(t, rate, func(r *http.Request) *canned {
					switch {
					case strings.HasSuffix(r.URL.Path, "/auth/token"):
						if i.issued == 1 && tt.broken && !broken.Swap(true) {
							return response(200, `{"token":"abc`)
						}
						return i.token()
					case !refused.Swap(true):
						return response(401, "")
					}
					return response(404, "")
				})
				var all sync.WaitGroup
				for range 10 {
					all.Go(func() {
						for begun.Add(1) <= rows {
							_, err := c.Customer(t.Context(), testID)
							wantKind(t, err, NotFound)
						}
					})
				}
				all.Wait()
				if s := c.Stats(); i.issued != 2 || s.Sent != int64(tt.requests) || s.Retried != 1 {
					t.Errorf("got %d tokens, %+v; want 2 tokens, %d requests, one sent twice", i.issued, s, tt.requests)
				}
				want := tt.waits + time.Duration(tt.requests)*time.Second/rate
				if took := time.Since(begin); took > want {
					t.Errorf("got the last answer after %v, want at most %v", took, want)
				}
			})
		})
	}
}

// TestSecondWrong401HoldsUpNobody: while the token is renewed after a 401, another request is answered 401, with 2xx in
// between. It waits for the renewal, and the others go on.
func TestSecondWrong401HoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, rows = 50, 100
		i := &issuer{lifetime: time.Hour, delay: 3 * time.Second} // longer than all rows take
		var answers, begun, before atomic.Int64
		c := bubbleClient(t, rate, func(r *http.Request) *canned {
			if strings.HasSuffix(r.URL.Path, "/auth/token") {
				token := i.token()
				before.Store(answers.Load())
				return token
			}
			if n := answers.Add(1); n == 1 || n == 10 {
				return response(401, "")
			}
			return response(200, `{"id":"`+testID+`","status":"initiated"}`)
		})
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				for begun.Add(1) <= rows {
					if _, err := c.Customer(t.Context(), testID); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if s := c.Stats(); i.issued != 2 || s.Retried != 2 || before.Load() != rows {
			t.Errorf("got %d tokens, %+v, %d answers before the second token; want 2 tokens, 2 sent twice, %d answers",
				i.issued, s, before.Load(), rows)
		}
	})
}

// Test401OfARepeatedRequestCounts: a request is refused with two tokens, and another with the second of them. No further
// request is sent with it.
func Test401OfARepeatedRequestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour, delay: time.Second}
		var answers atomic.Int64
		third := make(chan struct{}) // closed when the third token is fetched
		c := bubbleClient(t, 50, func(r *http.Request) *canned {
			if strings.HasSuffix(r.URL.Path, "/auth/token") {
				if i.issued == 2 {
					close(third)
				}
				return i.token()
			}
			if answers.Add(1); r.Header.Get("Authorization") != "Bearer t3" {
				return response(401, "")
			}
			return response(404, "")
		})
		_, err := c.Customer(t.Context(), testID)
		wantKind(t, err, Unauthorized)
		var all sync.WaitGroup
		all.Go(func() {
			_, err := c.Customer(t.Context(), testID)
			wantKind(t, err, NotFound)
		})
		<-third
		_, err = c.Customer(t.Context(), testID)
		wantKind(t, err, NotFound)
		all.Wait()
		if i.issued != 3 || answers.Load() != 5 {
			t.Errorf("got %d tokens and %d answers, want 3 and 5: two, two and one", i.issued, answers.Load())
		}
	})
}

// TestWorkerThatRenewsLeaves: the context of the worker that renews the token ends. The token was refused
// twice by then, and another worker fetches one.
func TestWorkerThatRenewsLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour}
		var hung atomic.Bool
		c := bubbleClient(t, 100, func(r *http.Request) *canned {
			if strings.HasSuffix(r.URL.Path, "/auth/token") && i.issued == 1 && !hung.Swap(true) {
				return nil // until its context ends
			}
			return i.answer(r)
		})
		_, err := c.Customer(t.Context(), testID)
		wantKind(t, err, NotFound)
		i.revoke()
		first, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := c.Customer(first, testID); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the worker that renews: got %v, want %v", err, context.DeadlineExceeded)
			}
		})
		synctest.Wait()
		time.Sleep(100 * time.Millisecond) // of synctest's clock: the first was refused and asks for a token
		begin := time.Now()
		for range 5 {
			all.Go(func() {
				_, err := c.Customer(t.Context(), testID)
				wantKind(t, err, NotFound)
			})
		}
		impatient, stop := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer stop()
		if _, err := c.Customer(impatient, testID); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a worker with a deadline: got %v, want %v", err, context.DeadlineExceeded)
		}
		all.Wait()
		if took := time.Since(begin); !hung.Load() || i.issued != 2 || took > 2*time.Second {
			t.Errorf("got a fetch that hung: %v, %d tokens, the last answer after %v; want true, 2, at most 2s", hung.Load(),
				i.issued, took)
		}
	})
}
