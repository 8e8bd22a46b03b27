package broker

import (
	"context"
	"time"

	"github.com/sethvargo/go-retry"
)

// retryDelays returns delays that grow from 50 ms to 2 s, without end.
func retryDelays() retry.Backoff {
	b := retry.NewExponential(50 * time.Millisecond)
	b = retry.WithCappedDuration(2*time.Second, b)
	return retry.WithJitterPercent(20, b)
}

// backoff returns retryDelays that end after patience. retry.Do then returns the last error.
func backoff(patience time.Duration) retry.Backoff {
	return retry.WithMaxDuration(patience, retryDelays())
}

// sleepNext blocks for the next of the delays, or until ctx ends.
func sleepNext(ctx context.Context, delays retry.Backoff) {
	d, _ := delays.Next()
	sleep(ctx, d)
}

// sleep blocks for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
