package ledger

import (
	"fmt"
	"testing"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// TestBadEnds: rows that ended badly are counted by stage and class, in all and within a time, with the first examples
// of that time.
func TestBadEnds(t *testing.T) {
	c := newClock()
	o := testOptions(t.TempDir() + "/ledger.db")
	o.Now = c.Now
	l := reopen(t, o)
	if ends, err := l.BadEnds(t.Context(), c.Now(), c.Now(), 2); err != nil || ends == nil || len(ends) != 0 {
		t.Errorf("empty ledger: got %+v, %v; want an empty list", ends, err)
	}
	n := 0
	end := func(stage pipeline.Stage, class string, count int) {
		for range count {
			n++
			row := testRow(n, "i1")
			row.Line = 1000 - n
			advance(t, l, acceptOne(t, l, row, pipeline.Open), stage, func(r *pipeline.Record) { r.Class = class })
		}
	}
	end(pipeline.Failed, "no-key", 2) // yesterday
	c.advance(24 * time.Hour)
	from := c.Now()
	end(pipeline.Failed, "no-key", 3)
	end(pipeline.Failed, "invalid", 1)
	end(pipeline.Rejected, "", 4)
	end(pipeline.Onboarded, "", 5)
	acceptOne(t, l, testRow(99, "i1"), pipeline.Open)
	ends, err := l.BadEnds(t.Context(), from, c.Now(), 2)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, e := range ends {
		got += fmt.Sprintf("%s %s %d of %d:", e.Stage, e.Class, e.Since, e.Total)
		for _, r := range e.Examples {
			got += fmt.Sprint(" ", r.Line)
		}
		got += "; "
	}
	want := "failed no-key 3 of 5: 995 996; rejected  4 of 4: 990 991; failed invalid 1 of 1: 994; "
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestWhatIsLeft: rows at the custodian, the oldest first, and events that are not published.
func TestWhatIsLeft(t *testing.T) {
	c := newClock()
	o := testOptions(t.TempDir() + "/ledger.db")
	o.Now = c.Now
	l := reopen(t, o)
	for n := 1; n <= 3; n++ {
		at := c.Now().Add(-time.Duration(n) * time.Hour)
		r := advance(t, l, acceptOne(t, l, testRow(n, "i1"), pipeline.Open), pipeline.Challenged, func(r *pipeline.Record) {
			r.Challenge, r.ChallengeAt = "challenge", at
		})
		advance(t, l, r, pipeline.Signing, func(r *pipeline.Record) { r.ExternalTxID = fmt.Sprint("tx-", n) })
	}
	settle(t, l, acceptOne(t, l, testRow(4, "i1"), pipeline.Open), pipeline.Onboarded, "c4")
	count, oldest, err := l.AtCustodian(t.Context(), 2)
	if err != nil || count != 3 || len(oldest) != 2 || oldest[0].ExternalTxID != "tx-3" || oldest[1].ExternalTxID != "tx-2" {
		t.Errorf("got %d rows at the custodian, %+v, %v; want 3, and tx-3 and tx-2", count, oldest, err)
	}
	if n, err := l.UnpublishedCount(t.Context()); err != nil || n != 1 {
		t.Errorf("got %d unpublished events, %v; want 1", n, err)
	}
}
