package onboard

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// lookUp searches the partner's list for the pair and reads the customer found: its status may have changed since, or
// it may be gone. A customer that is initiating in a list whose reading started after the creation was sent is not
// read: the request for its challenge shows its status. Only a list that was read after the creation was last sent can
// prove that there is no customer, and only to a search that started when that list was in use.
func (w *Worker) lookUp(ctx context.Context, t *Task) (result, error) {
	for {
		current, partial, err := w.list.current(ctx, t.sent)
		if err != nil {
			return w.listFailed(ctx, t, err)
		}
		found, err := w.list.find(ctx, t.Row)
		if err != nil {
			return w.listFailed(ctx, t, err)
		}
		// The pair itself first: a customer that shares only one half of it matters if there is no such customer.
		rank := func(c pipeline.Customer) int {
			if IsPair(t.Row, c.ChainID, c.ExternalID) {
				return 0
			}
			return 1
		}
		slices.SortStableFunc(found, func(a, b pipeline.Customer) int { return rank(a) - rank(b) })
		for _, c := range found {
			if current && !t.sent.IsZero() && IsPair(t.Row, c.ChainID, c.ExternalID) &&
				statusOutcome(client.Status(c.Status)) == initiating {
				return result{outcome: initiating, change: func(r *pipeline.Record) {
					r.CustomerID, r.PartnerStatus = c.ID, c.Status
				}}, nil
			}
			if res, err := w.readCustomer(ctx, t.Row, c.ID); err != nil || res.outcome != absent {
				return res, err
			}
		}
		switch {
		case current && partial != nil:
			return result{outcome: unlisted, err: partial}, nil
		case current:
			return result{outcome: absent}, nil
		}
		if err := w.list.refresh(ctx, t.sent); err != nil {
			return w.listFailed(ctx, t, err)
		}
	}
}

// listFailed classifies a failure to read the list: it is too early to read it again, the partner failed, or the
// ledger.
func (w *Worker) listFailed(ctx context.Context, t *Task, err error) (result, error) {
	var soon tooSoonError
	if errors.As(err, &soon) {
		return result{outcome: notSent, after: soon.after, err: err}, nil
	}
	var partner *client.Error
	if !errors.As(err, &partner) && !errors.Is(err, client.ErrStopped) && ctx.Err() == nil {
		return result{}, &HaltError{Class: HaltLedger, Row: t.Row, Err: err}
	}
	outcome, after := readOutcome(err)
	if outcome == absent { // of the list itself: there is no such endpoint
		outcome = misconfigured
	}
	return result{outcome: outcome, after: after, err: err}, nil
}

// readCustomer reads one customer and returns what it means for the row.
func (w *Worker) readCustomer(ctx context.Context, row pipeline.Row, id string) (result, error) {
	customer, err := w.API.Customer(ctx, id)
	if err != nil {
		outcome, after := readOutcome(err)
		return result{outcome: outcome, after: after, err: err}, nil
	}
	outcome := customerOutcome(row, customer)
	if outcome == other {
		return result{outcome: other, err: takenBy(customer)}, nil
	}
	res := result{outcome: outcome, change: func(r *pipeline.Record) {
		r.CustomerID, r.PartnerStatus = customer.ID, string(customer.Status)
	}}
	if outcome == oddCustomer {
		res.err = oddStatus(customer)
	}
	return res, nil
}

func oddStatus(c client.Customer) error {
	return fmt.Errorf("customer %s has status %q, which the partner does not document", c.ID, c.Status)
}

func takenBy(c client.Customer) error {
	return fmt.Errorf("customer %s has account %s and externalId %q", c.ID, c.ChainID, c.ExternalID)
}
