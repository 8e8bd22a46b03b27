package onboard

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// queuedPartner answers its list at once, to a client that has waited for the rate limiter.
type queuedPartner struct {
	API
	waits, took time.Duration
	err         error
	read        int
}

func (p *queuedPartner) Customers(context.Context, func(client.Customer) error) (time.Duration, error) {
	p.read++
	time.Sleep(p.waits + p.took)
	return p.took, p.err
}

type noDirectory struct{ pipeline.Directory }

func (noDirectory) ReplaceDirectory(
	_ context.Context, _ time.Time, fill func(func(pipeline.Customer) error) error,
) error {
	return fill(func(pipeline.Customer) error { return nil })
}

// TestPauseAfterAList: the partner is spared by the time that it took, however long the client waited for the rate.
func TestPauseAfterAList(t *testing.T) {
	for name, tt := range map[string]struct {
		took, setting time.Duration
		err           error
		want          time.Duration
	}{
		"short":   {50 * time.Millisecond, 0, nil, 150 * time.Millisecond},
		"long":    {2 * time.Second, 0, nil, 20 * time.Second},
		"setting": {50 * time.Millisecond, time.Minute, nil, time.Minute},
		"failed":  {50 * time.Millisecond, 0, errors.New("cut off"), 150 * time.Millisecond},
		"ended":   {time.Minute, time.Second, client.ErrStopped, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &queuedPartner{waits: 8 * time.Second, took: tt.took, err: tt.err}
				l := newLister(p, noDirectory{}, time.Now, tt.setting)
				refresh := func(want error) {
					t.Helper()
					if err := l.refresh(t.Context(), pipeline.Monotonic()); !errors.Is(err, want) {
						t.Fatalf("got %v, want %v", err, want)
					}
				}
				refresh(tt.err)
				time.Sleep(tt.want - time.Millisecond)
				refresh(tooSoonError{after: time.Millisecond})
				time.Sleep(time.Millisecond)
				refresh(tt.err)
				if p.read != 2 {
					t.Errorf("got the list read %d times, want 2", p.read)
				}
			})
		})
	}
}
