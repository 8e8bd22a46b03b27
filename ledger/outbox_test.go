package ledger

import (
	"slices"
	"testing"

	"github.com/purser-onboard/purser/pipeline"
)

// TestOutbox: a row is in the outbox from when it is settled until its event is published, also across a restart of the
// process, or until the row is restarted.
func TestOutbox(t *testing.T) {
	l, o := openTest(t)
	waiting := func(want ...pipeline.Stage) []pipeline.Record {
		t.Helper()
		rows, err := l.Unpublished(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		var got []pipeline.Stage
		for _, r := range rows {
			got = append(got, r.Stage)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("in the outbox: got %v, want %v", got, want)
		}
		return rows
	}
	accept := func(row pipeline.Row) pipeline.Record {
		t.Helper()
		a, err := l.Accept(t.Context(), []pipeline.Row{row})
		if err != nil {
			t.Fatal(err)
		}
		return a[0].Record
	}
	fail := func(r pipeline.Record) {
		t.Helper()
		r.Stage, r.Class = pipeline.Failed, "no-key"
		if _, err := l.Update(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	record := accept(pair(1, 1, "i1"))
	waiting()
	fail(record)
	accept(pair(1, 2, "i1")) // contradicts it: settled at once
	stale := waiting(pipeline.Failed, pipeline.Conflict)

	record = accept(pair(1, 1, "i2")) // a new import
	waiting(pipeline.Conflict)
	fail(record)
	if err := l.Published(t.Context(), stale); err != nil { // events of the earlier settlement
		t.Fatal(err)
	}
	fresh := waiting(pipeline.Failed)

	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if l, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	waiting(pipeline.Failed)
	if err := l.Published(t.Context(), fresh); err != nil {
		t.Fatal(err)
	}
	waiting()
}
