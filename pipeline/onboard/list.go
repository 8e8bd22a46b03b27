package onboard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// lister finds a pair among the partner's customers (rule "409 is a question"). The partner's list has no filter, so it
// is streamed as a whole into the ledger: when first needed, and again only when the stored list is too old.
type lister struct {
	api    API
	dir    pipeline.Directory
	now    func() time.Time
	pause  time.Duration // least time between the beginnings of two readings
	mu     chan struct{} // a lock that can be waited for with a context
	begun  time.Time     // when the last reading of this process was begun, by the monotonic clock
	ended  time.Time     // and when it ended
	took   time.Duration // of the partner
	onRead func(customers int, took time.Duration)

	partial   error // why the last complete reading is not the whole list; nil: it is
	onPartial func(cause error)
}

func newLister(api API, dir pipeline.Directory, now func() time.Time, pause time.Duration) *lister {
	return &lister{api: api, dir: dir, now: now, pause: pause, mu: make(chan struct{}, 1)}
}

// tooSoonError says that the stored list cannot answer and that it is too early to read it again.
type tooSoonError struct{ after time.Duration }

func (e tooSoonError) Error() string {
	return fmt.Sprintf("the partner's list was just read; the next read is in %v", e.after.Round(time.Second))
}

// find returns the listed customers that have the row's account or externalId. The list may be from an earlier run: it
// only names candidates, which are then read.
func (l *lister) find(ctx context.Context, r pipeline.Row) ([]pipeline.Customer, error) {
	return l.dir.FindCustomers(ctx, r.Account.String(), r.ExternalID)
}

// current reports whether the list was read after sent (when this process last sent the creation, monotonic; zero: not
// sent by this process). Only such a list proves absence. partial: why it is incomplete; a customer that is not in it
// may exist.
func (l *lister) current(ctx context.Context, sent time.Time) (current bool, partial, err error) {
	if err := l.lock(ctx); err != nil {
		return false, nil, err
	}
	defer l.unlock()
	return l.isCurrent(sent), l.partial, nil
}

func (l *lister) isCurrent(sent time.Time) bool { return !l.begun.IsZero() && l.begun.After(sent) }

// refresh reads the list unless it is current by now.
func (l *lister) refresh(ctx context.Context, sent time.Time) error {
	if err := l.lock(ctx); err != nil {
		return err
	}
	defer l.unlock()
	if l.isCurrent(sent) {
		return nil
	}
	return l.read(ctx)
}

func (l *lister) lock(ctx context.Context) error {
	select {
	case l.mu <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *lister) unlock() { <-l.mu }

// restAfter is the pause after a reading of the given duration: three times as long, ten times if it took more than a
// second.
func restAfter(took time.Duration) time.Duration {
	if took > time.Second {
		return 10 * took
	}
	return 3 * took
}

// read reads the whole list, unless the pause after the last reading is still running.
func (l *lister) read(ctx context.Context) error {
	begun := pipeline.Monotonic()
	if !l.ended.IsZero() {
		if due := l.ended.Add(max(l.pause, restAfter(l.took))); begun.Before(due) {
			return tooSoonError{after: due.Sub(begun)}
		}
	}
	reading, err := ReadList(ctx, l.api, l.dir, l.now)
	l.ended, l.took = pipeline.Monotonic(), reading.Took
	if errors.Is(err, client.ErrStopped) { // a rebalance has ended it; restAfter is for whole readings
		l.took = 0
	}
	if err != nil {
		return err
	}
	l.begun, l.partial = begun, reading.Partial
	if l.onRead != nil {
		l.onRead(reading.Customers, reading.Took)
	}
	if reading.Partial != nil && l.onPartial != nil {
		l.onPartial(reading.Partial)
	}
	return nil
}

// Reading is one reading of the partner's list.
type Reading struct {
	Customers int
	Took      time.Duration // of the partner: without the waits for the rate limiter
	Partial   error         // why it is not the whole list; nil: it is. Customers that are not in it may exist.
}

// ReadList reads the partner's whole list into the directory, as a stream. After an error only Took is set.
func ReadList(ctx context.Context, api API, dir pipeline.Directory, now func() time.Time) (Reading, error) {
	var r Reading
	err := dir.ReplaceDirectory(ctx, now(), func(add func(pipeline.Customer) error) error {
		r.Customers = 0
		took, err := api.Customers(ctx, func(c client.Customer) error {
			r.Customers++
			return add(pipeline.Customer{
				ID: c.ID, ChainID: c.ChainID, ExternalID: c.ExternalID, Status: string(c.Status),
				CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt,
			})
		})
		r.Took = took
		var part *client.PartialListError
		if errors.As(err, &part) {
			r.Partial, err = part, nil
		}
		return err
	})
	if err != nil {
		return Reading{Took: r.Took}, err
	}
	return r, nil
}
