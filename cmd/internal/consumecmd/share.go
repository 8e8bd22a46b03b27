package consumecmd

import (
	"context"
	"log/slog"
	"sync"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// share gives this consumer the part of --rate that its part of the partitions gives, so that a fleet of consumers
// keeps the rate as one does. It stands before the dispatcher: a partition that is released takes its part of the rate
// with it before another consumer can be given both.
//
// In a rebalance all partitions are released, and from then on nothing is sent until there is a new
// assignment: rows that wait for their place in the rate are given back at once. Were they waited for, the hand-over
// would take as long as the rate needs for all workers, which can be longer than the group waits for us.
type share struct {
	pipeline.Handler
	limiter *client.RateLimiter
	rate    float64
	log     *slog.Logger

	mu   sync.Mutex
	held map[int]bool
	of   int

	assignedAll bool // the latest assignment named every partition
}

func newShare(h pipeline.Handler, limiter *client.RateLimiter, rate float64, log *slog.Logger) *share {
	limiter.SetRate(0) // nothing is ours yet
	return &share{Handler: h, limiter: limiter, rate: rate, log: log}
}

// assigned takes over a new assignment: these partitions of so many.
func (s *share) assigned(partitions []int, of int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held, s.of = make(map[int]bool, len(partitions)), of
	s.assignedAll = of > 0 && len(partitions) == of
	for _, p := range partitions {
		s.held[p] = true
	}
	s.set()
	s.limiter.Admit()
	if len(partitions) < of {
		s.log.Info("this consumer's share of the rate has changed",
			"partitions", len(partitions), "of", of, "requests_per_second", s.rate*float64(len(partitions))/float64(of))
	}
}

// Release implements pipeline.Handler.
func (s *share) Release(ctx context.Context, partition int) {
	s.limiter.Recall()
	s.Handler.Release(ctx, partition)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, partition)
	s.set()
}

func (s *share) set() {
	if s.of == 0 {
		return
	}
	mine := s.rate * float64(len(s.held)) / float64(s.of)
	if len(s.held) == s.of {
		s.limiter.SetRate(mine)
		return
	}
	// The phase is the first held partition divided by the number of partitions.
	first := s.of
	for p := range s.held {
		first = min(first, p)
	}
	s.limiter.SetShare(mine, float64(first%s.of)/float64(s.of))
}

// whole reports whether the latest assignment gave all partitions to this consumer.
func (s *share) whole() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.assignedAll
}
