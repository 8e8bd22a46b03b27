package results

import (
	"context"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
)

// Book is the part of the ledger that Reconcile needs in addition to the copy of the list.
type Book interface {
	pipeline.Directory
	// Each hands over every row with the listed customers of its account (in any case), in the list's order; yield may
	// write to the ledger.
	Each(ctx context.Context, yield func(r pipeline.Record, listed []pipeline.Customer) error) error
	// SetPartnerStatuses records statuses by row id, all or none, without touching the rows' stages.
	SetPartnerStatuses(ctx context.Context, statuses map[int64]string) error
}

// Reconciled is the result of Reconcile.
type Reconciled struct {
	Customers int64            // customers in the partner's list
	Rows      int64            // rows in the ledger
	Matched   int64            // rows whose pair is in the list
	Updated   int64            // rows whose status had changed
	Statuses  map[string]int64 // matched rows by the partner's status
	// Partial says why the list that was read is not the whole one; nil: it is. Nothing is missing from a part.
	Partial error
	// Missing are onboarded rows that the partner's list does not have; 0 when it was read in part.
	Missing int64
	// Fallen are onboarded rows whose customer is initiating or rejected at the partner.
	Fallen int64
	// Odd are matched rows whose status the partner does not document.
	Odd int64
	// Ahead are unsettled rows and rows that ended badly whose customer is past initiating: the next import or run
	// settles them as onboarded.
	Ahead int64
}

// statusesPerCommit is the number of changed statuses per commit: a crash loses at most these, and the next
// reconciliation records them.
const statusesPerCommit = 5000

// Reconcile reads the partner's list, as a stream, and records the partner's status of every row. Stages are left
// to the worker: only it may settle a row.
func Reconcile(ctx context.Context, api onboard.API, book Book, now func() time.Time) (Reconciled, error) {
	r := Reconciled{Statuses: map[string]int64{}}
	list, err := onboard.ReadList(ctx, api, book, now)
	if err != nil {
		return r, err
	}
	r.Customers, r.Partial = int64(list.Customers), list.Partial
	changed := map[int64]string{}
	record := func() error {
		err := book.SetPartnerStatuses(ctx, changed)
		if err == nil {
			r.Updated += int64(len(changed))
			clear(changed)
		}
		return err
	}
	err = book.Each(ctx, func(rec pipeline.Record, found []pipeline.Customer) error {
		r.Rows++
		var customer *pipeline.Customer
		for i := range found {
			if onboard.IsPair(rec.Row, found[i].ChainID, found[i].ExternalID) {
				customer = &found[i]
			}
		}
		if customer == nil {
			if rec.Stage == pipeline.Onboarded && r.Partial == nil {
				r.Missing++
			}
			return nil
		}
		r.Matched++
		r.Statuses[customer.Status]++
		status := client.ParseStatus(customer.Status) // a stored one may be in another case
		switch {
		case !status.Known():
			r.Odd++
		case rec.Stage == pipeline.Onboarded && !status.Past():
			r.Fallen++
		}
		if rec.Stage != pipeline.Onboarded && rec.Stage != pipeline.Rejected && status.Past() {
			r.Ahead++
		}
		if rec.PartnerStatus == customer.Status {
			return nil
		}
		if changed[rec.ID] = customer.Status; len(changed) < statusesPerCommit {
			return nil
		}
		return record()
	})
	if err == nil {
		err = record()
	}
	return r, err
}
