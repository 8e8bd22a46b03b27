package ledger

import (
	"fmt"
	"testing"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// TestDismiss: a dismissed row is left out of what ended badly until it changes.
func TestDismiss(t *testing.T) {
	l, o := openTest(t)
	stages := []pipeline.Stage{
		pipeline.Failed, pipeline.Rejected, pipeline.Refused, pipeline.Conflict, pipeline.Onboarded, pipeline.Planned,
	}
	rows := make([]pipeline.Row, len(stages)+1) // the last one is not in the ledger
	for n := range rows {
		rows[n] = testRow(n, "i1")
		if n == len(stages) {
			continue
		}
		r := acceptOne(t, l, rows[n], pipeline.Open)
		if stages[n] == pipeline.Conflict || stages[n] == pipeline.Refused {
			r = advance(t, l, r, pipeline.Creating, nil)
		}
		if stages[n] == pipeline.Refused {
			r = advance(t, l, r, pipeline.Challenged, nil)
		}
		if stages[n] != pipeline.Planned {
			advance(t, l, r, stages[n], nil)
		}
	}
	// bad are the rows that ended badly by each way of counting, and dismissed those that are marked.
	wantBad := func(when string, bad, dismissed int64) {
		t.Helper()
		ends, err := l.BadEnds(t.Context(), time.Time{}, o.Now(), 10)
		if err != nil {
			t.Fatal(err)
		}
		var total, examples int64
		for _, e := range ends {
			total, examples = total+e.Total, examples+int64(len(e.Examples))
		}
		still, _, err := l.StillBad(t.Context(), BadQuery{Since: time.UnixMicro(1)})
		if err != nil {
			t.Fatal(err)
		}
		var stillBad, counted, marked int64
		for _, n := range still[0] {
			stillBad += n
		}
		counts, err := l.Counts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range counts {
			counted += n.Dismissed
		}
		err = l.Failures(t.Context(), func(r pipeline.Record) error {
			if r.Dismissed {
				marked++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(total, examples, stillBad, counted, marked)
		if want := fmt.Sprint(bad, bad, bad, dismissed, dismissed); got != want {
			t.Errorf("%s: got BadEnds, examples, StillBad, Counts, Failures of %s; want %s", when, got, want)
		}
	}
	dismiss := func(undo bool, want ...string) {
		t.Helper()
		problems, err := l.Dismiss(t.Context(), rows, undo)
		if err != nil || len(problems) != len(rows) {
			t.Fatalf("got %v, %v; want an entry for each row", problems, err)
		}
		for n, problem := range problems {
			if got := fmt.Sprint(problem); got != want[n] {
				t.Errorf("row %d, undo %t: got %s, want %s", n, undo, got, want[n])
			}
		}
	}
	wantBad("before", 4, 0)
	others := []string{"the row is onboarded", "the row is not settled: it is planned", "the row is not in the ledger"}
	dismiss(false, append([]string{"<nil>", "<nil>", "<nil>", "<nil>"}, others...)...)
	wantBad("dismissed", 0, 4)
	again := testRow(0, "i2") // failed
	acceptOne(t, l, again, pipeline.Open)
	wantBad("restarted by a new import", 0, 3)
	if err := l.SetPartnerStatuses(t.Context(), map[int64]string{2: "active"}); err != nil { // row 1, rejected
		t.Fatal(err)
	}
	wantBad("of another status at the partner", 1, 2)
	dismiss(true, append([]string{others[1], "the row is not dismissed", "<nil>", "<nil>"}, others...)...)
	wantBad("undone", 3, 0)
	problems, err := l.Dismiss(t.Context(), rows[1:2], true)
	if err != nil || fmt.Sprint(problems) != "[the row is not dismissed]" {
		t.Errorf("undone twice: got %v, %v; want that the row is not dismissed", problems, err)
	}
}
