package consumecmd

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// released is a handler that notes which partitions were released.
type released struct{ partitions []int }

func (r *released) Take(context.Context, []pipeline.Message, func(pipeline.Message)) error {
	return nil
}
func (r *released) Release(_ context.Context, p int) { r.partitions = append(r.partitions, p) }

// TestShare: two consumers never have more than the rate between them, however the partitions move.
func TestShare(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	inner := &released{}
	a, b := client.NewRateLimiter(20), client.NewRateLimiter(20)
	first, second := newShare(inner, a, 20, log), newShare(inner, b, 20, log)
	steps := []struct {
		name  string
		do    func()
		rates [2]float64
	}{
		{"no assignment yet", func() {}, [2]float64{0, 0}},
		{"the first has all", func() { first.assigned([]int{0, 1, 2, 3}, 4) }, [2]float64{20, 0}},
		{"two are released", func() { first.Release(t.Context(), 0); first.Release(t.Context(), 1) }, [2]float64{10, 0}},
		{"the second takes them", func() { second.assigned([]int{0, 1}, 4) }, [2]float64{10, 10}},
		{"the first ends", func() { first.Release(t.Context(), 2); first.Release(t.Context(), 3) }, [2]float64{0, 10}},
		{"the second has all", func() { second.assigned([]int{0, 1, 2, 3}, 4) }, [2]float64{0, 20}},
	}
	for _, s := range steps {
		s.do()
		if got := [2]float64{a.State().Rate, b.State().Rate}; got != s.rates {
			t.Errorf("%s: got rates %v, want %v", s.name, got, s.rates)
		}
	}
	if len(inner.partitions) != 4 {
		t.Errorf("got released partitions %v, want 4", inner.partitions)
	}
}

// TestShareGivesBack: a release stops the requests that wait for the rate limiter, and the next requests, too, until
// partitions are assigned again.
func TestShareGivesBack(t *testing.T) {
	limiter := client.NewRateLimiter(1000)
	s := newShare(&released{}, limiter, 1000, slog.New(slog.DiscardHandler))
	s.assigned([]int{0, 1}, 2)
	limiter.Throttled(time.Hour)
	waiting := make(chan error, 1)
	go func() { waiting <- limiter.Wait(t.Context()) }()
	s.Release(t.Context(), 0)
	if err := <-waiting; !errors.Is(err, client.ErrStopped) {
		t.Errorf("waiting request: got %v, want %v", err, client.ErrStopped)
	}
	s.Release(t.Context(), 1)
	if err := limiter.Wait(t.Context()); !errors.Is(err, client.ErrStopped) {
		t.Errorf("next request: got %v, want %v", err, client.ErrStopped)
	}
}
