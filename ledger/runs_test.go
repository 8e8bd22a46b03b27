package ledger

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestRuns(t *testing.T) {
	l, o := openTest(t)
	begun := o.Now()
	ids := make([]uuid.UUID, keptRuns+2)
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7())
		run := Run{
			ID: ids[i], Program: "purser 0.2.0", Host: "night\x1b-1", Drain: i%2 == 0,
			StartedAt: begun.Add(time.Duration(i) * time.Minute), Report: `{"state":"running"}`,
		}
		if err := l.BeginRun(t.Context(), run); err != nil {
			t.Fatal(err)
		}
	}
	last := ids[len(ids)-1]
	ended := begun.Add(48 * time.Hour)
	if err := l.EndRun(t.Context(), last, ended, 3, `{"state":"ended"}`); err != nil {
		t.Fatal(err)
	}
	if err := l.EndRun(t.Context(), uuid.New(), ended, 0, ""); !errors.Is(err, errNotFound) {
		t.Errorf("end of a run that never began: got %v, want errNotFound", err)
	}
	runs, err := l.Runs(t.Context(), 2*keptRuns)
	if err != nil || len(runs) != keptRuns {
		t.Fatalf("got %d runs, %v; want the latest %d", len(runs), err, keptRuns)
	}
	want := Run{
		ID: last, Program: "purser 0.2.0", Host: `night\x1b-1`, Drain: true,
		StartedAt: begun.Add(time.Duration(len(ids)-1) * time.Minute), EndedAt: ended, Exit: 3, Report: `{"state":"ended"}`,
	}
	want.Drain = (len(ids)-1)%2 == 0
	if runs[0] != want || !runs[0].Ended() {
		t.Errorf("the latest run: got %+v, want %+v", runs[0], want)
	}
	if runs[1].ID != ids[len(ids)-2] || runs[1].Ended() {
		t.Errorf("the run before: got %+v, want %v without an end", runs[1], ids[len(ids)-2])
	}
	if oldest := runs[len(runs)-1].ID; oldest != ids[2] {
		t.Errorf("the oldest run kept: got %v, want %v", oldest, ids[2])
	}
}
