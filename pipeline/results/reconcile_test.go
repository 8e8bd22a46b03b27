package results

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
)

// listAPI is a partner that answers only its list: the customers, then err.
type listAPI struct {
	onboard.API
	customers []client.Customer
	err       error
}

func (a listAPI) Customers(_ context.Context, yield func(client.Customer) error) (time.Duration, error) {
	for _, c := range a.customers {
		if err := yield(c); err != nil {
			return 0, err
		}
	}
	return 0, a.err
}

// memoryBook is a Book without a disk.
type memoryBook struct {
	records []pipeline.Record
	list    []pipeline.Customer
}

func (b *memoryBook) ReplaceDirectory(
	_ context.Context, _ time.Time, feed func(func(pipeline.Customer) error) error,
) error {
	var list []pipeline.Customer
	if err := feed(func(c pipeline.Customer) error { list = append(list, c); return nil }); err != nil {
		return err
	}
	b.list = list
	return nil
}

func (b *memoryBook) FindCustomers(_ context.Context, chainID, externalID string) ([]pipeline.Customer, error) {
	var found []pipeline.Customer
	for _, c := range b.list {
		if strings.EqualFold(c.ChainID, chainID) || c.ExternalID == externalID {
			found = append(found, c)
		}
	}
	return found, nil
}

func (b *memoryBook) Each(
	ctx context.Context, yield func(pipeline.Record, []pipeline.Customer) error,
) error {
	for _, r := range b.records {
		listed, _ := b.FindCustomers(ctx, r.Account.String(), "") // no error
		if err := yield(r, listed); err != nil {
			return err
		}
	}
	return nil
}

func (b *memoryBook) SetPartnerStatuses(_ context.Context, statuses map[int64]string) error {
	for id, status := range statuses {
		b.records[id].PartnerStatus = status
	}
	return nil
}

var errLost = errors.New("connection reset")

// row returns row n, in the stage, with the partner's status as the ledger has it.
func row(n int, stage pipeline.Stage, status string) pipeline.Record {
	return pipeline.Record{
		Row: pipeline.Row{
			Account:    pipeline.Account{Chain: 300, Address: common.Address{byte(n + 1)}},
			ExternalID: strconv.Itoa(n), ImportID: "i", File: "export.csv", Line: n + 2,
		},
		ID: int64(n), Stage: stage, PartnerStatus: status,
	}
}

// TestReconcile: each row is compared with the customer of its pair, and no row changes its stage.
func TestReconcile(t *testing.T) {
	for name, tt := range map[string]struct {
		stage    pipeline.Stage
		recorded string // the status in the ledger
		listed   string // the status in the partner's list; empty: not listed
		err      error  // at the end of the list
		want     Reconciled
	}{
		"as recorded": {stage: pipeline.Onboarded, recorded: "active", listed: "active",
			want: Reconciled{Customers: 1, Rows: 1, Matched: 1}},
		"status changed": {stage: pipeline.Onboarded, recorded: "screening", listed: "active",
			want: Reconciled{Customers: 1, Rows: 1, Matched: 1, Updated: 1}},
		"missing": {stage: pipeline.Onboarded, want: Reconciled{Rows: 1, Missing: 1}},
		"missing from a first page": {stage: pipeline.Onboarded, err: &client.PartialListError{Announced: "next"},
			want: Reconciled{Rows: 1}},
		"not onboarded, not listed": {stage: pipeline.Failed, want: Reconciled{Rows: 1}},
		"fallen back": {stage: pipeline.Onboarded, recorded: "active", listed: "initiating",
			want: Reconciled{Customers: 1, Rows: 1, Matched: 1, Updated: 1, Fallen: 1}},
		"rejected later": {stage: pipeline.Onboarded, recorded: "screening", listed: "rejected",
			want: Reconciled{Customers: 1, Rows: 1, Matched: 1, Updated: 1, Fallen: 1}},
		"undocumented status": {stage: pipeline.Onboarded, recorded: "active", listed: "paused",
			want: Reconciled{Customers: 1, Rows: 1, Matched: 1, Updated: 1, Odd: 1}},
		"ahead of a failed row": {stage: pipeline.Failed, listed: "screening",
			want: Reconciled{Customers: 1, Rows: 1, Matched: 1, Updated: 1, Ahead: 1}},
		"list lost": {stage: pipeline.Onboarded, err: errLost, want: Reconciled{}},
	} {
		t.Run(name, func(t *testing.T) {
			book := &memoryBook{records: []pipeline.Record{row(0, tt.stage, tt.recorded)}}
			api := listAPI{err: tt.err}
			statuses := map[string]int64{}
			if tt.listed != "" {
				r := book.records[0]
				api.customers = []client.Customer{{ID: "c", ChainID: strings.ToLower(r.Account.String()),
					ExternalID: r.ExternalID, Status: client.Status(tt.listed)}}
				statuses[tt.listed] = 1
			}
			got, err := Reconcile(t.Context(), api, book, time.Now)
			if fails := errors.Is(tt.err, errLost); errors.Is(err, errLost) != fails {
				t.Errorf("got error %v, want it to be %q: %v", err, errLost, fails)
			}
			if partial := errors.As(tt.err, new(*client.PartialListError)); partial != (got.Partial != nil) {
				t.Errorf("got partial %v, want a *client.PartialListError: %v", got.Partial, partial)
			}
			if !maps.Equal(got.Statuses, statuses) {
				t.Errorf("got statuses %v, want %v", got.Statuses, statuses)
			}
			got.Statuses, got.Partial = nil, nil
			if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", tt.want); g != w {
				t.Errorf("got %s, want %s", g, w)
			}
			wantStatus := tt.listed
			if wantStatus == "" {
				wantStatus = tt.recorded
			}
			if r := book.records[0]; r.Stage != tt.stage || r.PartnerStatus != wantStatus {
				t.Errorf("got stage %s, status %q; want %s, %q", r.Stage, r.PartnerStatus, tt.stage, wantStatus)
			}
		})
	}
}
