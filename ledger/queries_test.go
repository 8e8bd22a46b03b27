package ledger

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

func TestCounts(t *testing.T) {
	c := newClock()
	o := testOptions(t.TempDir() + "/ledger.db")
	o.Now = c.Now
	l := reopen(t, o)
	if counts, err := l.Counts(t.Context()); err != nil || len(counts) != 0 {
		t.Errorf("empty ledger: got %+v, %v; want no counts", counts, err)
	}
	n := 0
	next := func() pipeline.Record {
		n++
		c.advance(time.Second)
		return acceptOne(t, l, testRow(n, "i1"), pipeline.Open)
	}
	next()
	fail := func(class, reason string) {
		advance(t, l, next(), pipeline.Failed, func(r *pipeline.Record) { r.Class, r.Reason = class, reason })
	}
	fail("no-key", "no key for account 2")
	fail("invalid", "HTTP 400")
	fail("no-key", "no key for account 4")
	for range 2 {
		settle(t, l, next(), pipeline.Onboarded, fmt.Sprint("c", n))
	}
	r := advance(t, l, next(), pipeline.Creating, nil)
	advance(t, l, r, pipeline.Onboarded, func(r *pipeline.Record) { r.AlreadyOnboarded = true })
	counts, err := l.Counts(t.Context())
	want := []Count{
		{Stage: pipeline.Planned, Rows: 1},
		{Stage: pipeline.Onboarded, Rows: 3, AlreadyOnboarded: 1},
		{Stage: pipeline.Failed, Class: "no-key", Rows: 2, Reason: "no key for account 4"},
		{Stage: pipeline.Failed, Class: "invalid", Rows: 1, Reason: "HTTP 400"},
	}
	if err != nil || !reflect.DeepEqual(counts, want) {
		t.Errorf("got %+v, %v\nwant %+v", counts, err, want)
	}
}

func TestFailuresInFileOrder(t *testing.T) {
	l, _ := openTest(t)
	place := func(n int, file string, line int) pipeline.Row {
		row := testRow(n, "i1")
		row.File, row.Line = file, line
		return row
	}
	accept(t, l, place(1, "b.csv", 2), place(2, "a.csv", 10), place(3, "a.csv", 9), place(4, "a.csv", 2))
	settle(t, l, get(t, l, place(2, "", 0)), pipeline.Failed, "")
	settle(t, l, get(t, l, place(4, "", 0)), pipeline.Onboarded, "c4")
	var got []string
	err := l.Failures(t.Context(), func(r pipeline.Record) error {
		got = append(got, fmt.Sprintf("%s %s", r.Where(), r.Stage))
		return nil
	})
	want := []string{"a.csv:9 planned", "a.csv:10 failed", "b.csv:2 planned"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	stop := errors.New("stop")
	if err := l.Failures(t.Context(), func(pipeline.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want the error of yield", err)
	}
}

// TestEachWhileWriting: yield may write, as `consumer reconcile` does for rows whose status has changed.
func TestEachWhileWriting(t *testing.T) {
	l, _ := openTest(t)
	var rows []pipeline.Row
	for n := range 2*eachPage + 10 {
		rows = append(rows, testRow(n, "i1"))
	}
	accept(t, l, rows...)
	var seen int64
	err := l.Each(t.Context(), func(r pipeline.Record, _ []pipeline.Customer) error {
		if r.ID != seen+1 {
			t.Errorf("got row %d after %d, want %d", r.ID, seen, seen+1)
		}
		seen = r.ID
		if r.ID%100 == 0 {
			return l.SetPartnerStatuses(t.Context(), map[int64]string{r.ID: "active"})
		}
		return nil
	})
	if err != nil || seen != int64(len(rows)) {
		t.Errorf("got %d rows, %v; want %d", seen, err, len(rows))
	}
	stop := errors.New("stop")
	err = l.Each(t.Context(), func(pipeline.Record, []pipeline.Customer) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("got %v, want the error of yield", err)
	}
}
