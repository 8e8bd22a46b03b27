package client

import (
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

// watcher writes down what it is told.
type watcher struct {
	mu       sync.Mutex
	seen     []string
	waits    int
	inFlight int
}

func (w *watcher) Waited(time.Duration) { w.mu.Lock(); defer w.mu.Unlock(); w.waits++ }
func (w *watcher) Began(Operation)      { w.mu.Lock(); defer w.mu.Unlock(); w.inFlight++ }

func (w *watcher) Ended(op Operation, status int, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inFlight--
	w.seen = append(w.seen, fmt.Sprint(op, " ", status))
	if took <= 0 {
		w.seen = append(w.seen, fmt.Sprint(op, " took ", took))
	}
}

// TestObserver: it is told of every attempt, once, whatever came of it.
func TestObserver(t *testing.T) {
	p := newPartner(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/challenge"):
			panic(http.ErrAbortHandler)
		case r.Method == http.MethodPost:
			w.WriteHeader(http.StatusTooManyRequests)
		case strings.HasSuffix(r.URL.Path, "/customers"):
			_, _ = w.Write([]byte("[]"))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	var saw watcher
	config := testConfig(p.URL + "/v1")
	config.Observer = &saw
	c := newClient(t, config)
	const id = "7f3c8c1e-6f3b-4d0e-9a57-1d2f3a4b5c6d"
	_ = customersOf(t.Context(), c, func(Customer) error { return nil })
	_, _ = c.Challenge(t.Context(), id)
	_, _ = c.Customer(t.Context(), id)
	_, _ = c.Check(t.Context())
	_ = c.ReplaceSecret(t.Context(), "another")
	_ = c.DeleteKey(t.Context())
	want := []string{"token 200", "list 200", "challenge 0", "find 404", "probe 404", "credentials 404", "credentials 404"}
	if !slices.Equal(saw.seen, want) {
		t.Errorf("got %q, want %q", saw.seen, want)
	}
	if saw.inFlight != 0 || saw.waits != len(want) {
		t.Errorf("got %d in flight and %d waits, want 0 and %d", saw.inFlight, saw.waits, len(want))
	}
}

// TestRateLimiterClosedInAll: overlapping closings count once, and what is still to come does not count.
func TestRateLimiterClosedInAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewRateLimiter(math.Inf(1))
		l.Throttled(10 * time.Second)
		time.Sleep(4 * time.Second)
		l.Throttled(10 * time.Second) // until 14 s after the start
		if got := l.ClosedInAll(); got != 4*time.Second {
			t.Errorf("after 4 s: got %v, want 4s", got)
		}
		time.Sleep(20 * time.Second)
		l.Throttled(time.Second)
		time.Sleep(time.Minute)
		if got := l.ClosedInAll(); got != 15*time.Second {
			t.Errorf("at the end: got %v, want 15s", got)
		}
	})
}
