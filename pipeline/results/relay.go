package results

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// Outbox is the ledger's memory of events that are still to be published; package ledger implements it. A row enters it
// in the transaction that settles it.
type Outbox interface {
	// Unpublished returns up to n settled rows whose event is still to be published.
	Unpublished(ctx context.Context, n int) ([]pipeline.Record, error)
	// Published takes rows out whose events are published; a row that was settled again meanwhile stays. ErrFenced:
	// nothing was taken out, because one of the rows is about to be another consumer's.
	Published(ctx context.Context, rows []pipeline.Record) error
}

// Event is the event of a settled row on the results topic. Its key is the CAIP-10 account, like the work message's, so
// that a compacted topic keeps the latest event of each account. It may be published twice after a crash. The field
// names are a contract.
type Event struct {
	V                int            `json:"v"` // 1
	ChainID          string         `json:"chainId"`
	ExternalID       string         `json:"externalId"`
	Stage            pipeline.Stage `json:"stage"`
	Class            string         `json:"class,omitempty"`
	Reason           string         `json:"reason,omitempty"`
	CustomerID       string         `json:"customerId,omitempty"`
	PartnerStatus    string         `json:"partnerStatus,omitempty"`
	AlreadyOnboarded bool           `json:"alreadyOnboarded,omitempty"`
	ImportID         string         `json:"importId"`
	File             string         `json:"file"`
	Line             int            `json:"line"`
	SettledAt        time.Time      `json:"settledAt"`
}

func eventOf(r pipeline.Record) Event {
	return Event{
		V: 1, ChainID: r.Account.String(), ExternalID: r.ExternalID, Stage: r.Stage, Class: r.Class, Reason: r.Reason,
		CustomerID: r.CustomerID, PartnerStatus: r.PartnerStatus, AlreadyOnboarded: r.AlreadyOnboarded,
		ImportID: r.ImportID, File: r.File, Line: r.Line, SettledAt: r.UpdatedAt.UTC(),
	}
}

// Relay publishes an event for each settled row. After a crash or a lost broker, unpublished events stay in the outbox
// for the next run.
type Relay struct {
	Outbox    Outbox
	Publisher pipeline.Publisher
	Topic     string
	Origin    Origin // of the events
	// OnTrouble gets the reason when events cannot be published for now. It must not block. May be nil.
	OnTrouble func(error)

	wake     chan struct{}
	flushing sync.Mutex
}

const (
	// publishBatch is how many events are published at once.
	publishBatch = 1000
	// publishGather is how long events are gathered: publishing events one by one costs more than the row's
	// requests.
	publishGather = 100 * time.Millisecond
	// publishRetry is how long to wait after a publication that failed; the publisher itself has tried for long by then.
	publishRetry = 10 * time.Second
)

// NewRelay returns a Relay; Run it.
func NewRelay(outbox Outbox, publisher pipeline.Publisher, topic string, from Origin) *Relay {
	return &Relay{Outbox: outbox, Publisher: publisher, Topic: topic, Origin: from, wake: make(chan struct{}, 1)}
}

// Wake tells that a row was settled. It never blocks.
func (a *Relay) Wake() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Run publishes what is in the outbox, now and a moment after it is woken, until ctx ends. What goes wrong is reported
// and tried again.
func (a *Relay) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := a.Flush(ctx); err != nil && ctx.Err() == nil {
			if a.OnTrouble != nil {
				a.OnTrouble(err)
			}
			wait(ctx, publishRetry)
			continue
		}
		select {
		case <-a.wake:
			wait(ctx, publishGather)
		case <-ctx.Done():
		}
	}
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// Flush publishes until the outbox is empty. It may be called while Run is running, and waits for it then.
func (a *Relay) Flush(ctx context.Context) error {
	a.flushing.Lock()
	defer a.flushing.Unlock()
	for {
		rows, err := a.Outbox.Unpublished(ctx, publishBatch)
		if err != nil || len(rows) == 0 {
			return err
		}
		messages := make([]pipeline.Message, len(rows))
		for i, r := range rows {
			event := eventOf(r)
			value, err := json.Marshal(event)
			if err != nil {
				return fmt.Errorf("event of %s: %w", r.Where(), err)
			}
			messages[i] = pipeline.Message{
				Key: []byte(r.Account.String()), Value: value, Headers: headersOf(r, event, a.Origin),
			}
		}
		if err := a.Publisher.Publish(ctx, a.Topic, messages); err != nil {
			return fmt.Errorf("publish the results: %w; the next run publishes them", err)
		}
		err = a.Outbox.Published(ctx, rows)
		if errors.Is(err, pipeline.ErrFenced) { // nothing was noted, so they are published once more, here or elsewhere
			return nil
		}
		if err != nil {
			return err
		}
	}
}
