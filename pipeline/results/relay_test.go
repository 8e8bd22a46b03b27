package results

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/purser-onboard/purser/pipeline"
)

// memoryOutbox is an Outbox without a disk. Its rows leave in order.
type memoryOutbox struct {
	rows []pipeline.Record
	fail error // returned by Published; nil: it succeeds
}

func (o *memoryOutbox) Unpublished(_ context.Context, n int) ([]pipeline.Record, error) {
	return o.rows[:min(n, len(o.rows))], nil
}

func (o *memoryOutbox) Published(_ context.Context, rows []pipeline.Record) error {
	if o.fail != nil {
		return o.fail
	}
	o.rows = o.rows[len(rows):]
	return nil
}

// topic is a Publisher that keeps the messages of one topic.
type topic struct {
	name     string
	messages []pipeline.Message
	fail     error // returned by Publish; nil: it succeeds
}

func (p *topic) Publish(_ context.Context, name string, messages []pipeline.Message) error {
	if p.fail != nil {
		return p.fail
	}
	p.name, p.messages = name, append(p.messages, messages...)
	return nil
}

// TestFlush: the events of all rows are published in order, and a row leaves the outbox after its event is published.
func TestFlush(t *testing.T) {
	full := errors.New("disk full")
	lost := errors.New("broker lost")
	const rows = 2*publishBatch + 1
	for name, tt := range map[string]struct {
		publish, announced error // what the publisher and the outbox return
		want               error
		published, left    int
	}{
		"all published":     {published: rows},
		"broker lost":       {publish: lost, want: lost, left: rows},
		"partition fenced":  {announced: pipeline.ErrFenced, published: publishBatch, left: rows},
		"outbox not stored": {announced: full, want: full, published: publishBatch, left: rows},
	} {
		t.Run(name, func(t *testing.T) {
			outbox, results := &memoryOutbox{fail: tt.announced}, &topic{fail: tt.publish}
			for n := range rows {
				outbox.rows = append(outbox.rows, row(n, pipeline.Onboarded, "screening"))
			}
			if err := NewRelay(outbox, results, "results", Origin{Source: "/purser/api.example/v1"}).Flush(t.Context()); !errors.Is(err, tt.want) {
				t.Errorf("got error %v, want %v", err, tt.want)
			}
			if len(results.messages) != tt.published || len(outbox.rows) != tt.left {
				t.Errorf("got %d events published and %d rows left, want %d and %d",
					len(results.messages), len(outbox.rows), tt.published, tt.left)
			}
			for n, m := range results.messages {
				want := row(n, pipeline.Onboarded, "screening")
				var got Event
				if err := json.Unmarshal(m.Value, &got); err != nil || got != eventOf(want) || string(m.Key) != got.ChainID ||
					results.name != "results" {
					t.Fatalf("event %d: got key %s, %s (%v) on topic %s; want %+v on results with its account as key",
						n, m.Key, m.Value, err, results.name, eventOf(want))
				}
			}
		})
	}
}
