package ledger

import (
	"errors"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/pipeline"
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
	if err := l.EndRun(t.Context(), last, RunEnd{At: ended, Exit: 3, Report: `{"state":"ended"}`}); err != nil {
		t.Fatal(err)
	}
	if err := l.EndRun(t.Context(), uuid.New(), RunEnd{At: ended}); !errors.Is(err, errNotFound) {
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

// TestRunsOfAClockThatWasSet: the order of runs is that in which they began, also if the clock was ahead meanwhile.
func TestRunsOfAClockThatWasSet(t *testing.T) {
	l, o := openTest(t)
	var want []uuid.UUID
	for _, ahead := range []time.Duration{0, 24 * time.Hour, time.Hour} {
		id := uuid.Must(uuid.NewV7())
		want = append([]uuid.UUID{id}, want...)
		if err := l.BeginRun(t.Context(), Run{ID: id, StartedAt: o.Now().Add(ahead)}); err != nil {
			t.Fatal(err)
		}
	}
	runs, err := l.Runs(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range runs {
		if r.ID != want[i] {
			t.Errorf("run %d from the latest: got the one of %v, want that which began then", i, r.StartedAt)
		}
	}
}

// TestRunningIn: a run that goes on can be told from one whose process was killed, without opening the ledger.
func TestRunningIn(t *testing.T) {
	l, o := openTest(t)
	id := uuid.Must(uuid.NewV7())
	check := func(when string, want uuid.UUID) {
		t.Helper()
		if got, err := runningIn(o.Path); got != want || err != nil {
			t.Errorf("%s: got %v, %v; want %v", when, got, err, want)
		}
	}
	check("open, without a run", uuid.Nil)
	if err := l.BeginRun(t.Context(), Run{ID: id, StartedAt: o.Now()}); err != nil {
		t.Fatal(err)
	}
	check("begun", id)
	if err := l.EndRun(t.Context(), id, RunEnd{At: o.Now()}); err != nil {
		t.Fatal(err)
	}
	check("ended", uuid.Nil)
	if err := l.BeginRun(t.Context(), Run{ID: uuid.New(), StartedAt: o.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil { // the run has no end, as that of a killed process
		t.Fatal(err)
	}
	check("closed", uuid.Nil)
	if got, err := runningIn(filepath.Join(t.TempDir(), "none", "ledger.db")); got != uuid.Nil || err != nil {
		t.Errorf("no ledger: got %v, %v; want none", got, err)
	}
}

// TestStillBad: a run is red for the rows that it ended with, and for those that changed since a time, as long as they
// are bad.
func TestStillBad(t *testing.T) {
	clock := newClock()
	o := testOptions(t.TempDir() + "/ledger.db")
	o.Now = clock.Now
	l := reopen(t, o)
	failed := settle(t, l, acceptOne(t, l, testRow(1, "i1"), pipeline.Open), pipeline.Failed, "")
	refused := settle(t, l, acceptOne(t, l, testRow(2, "i1"), pipeline.Open), pipeline.Refused, "c2")
	well := settle(t, l, acceptOne(t, l, testRow(3, "i1"), pipeline.Open), pipeline.Onboarded, "c3")
	clock.advance(time.Hour)
	night := clock.Now()
	settle(t, l, acceptOne(t, l, testRow(4, "i2"), pipeline.Open), pipeline.Failed, "")
	run := uuid.Must(uuid.NewV7())
	if err := l.BeginRun(t.Context(), Run{ID: run, StartedAt: night}); err != nil {
		t.Fatal(err)
	}
	end := RunEnd{At: night, Exit: 3, Bad: []int64{failed.ID, refused.ID, well.ID}}
	if err := l.EndRun(t.Context(), run, end); err != nil {
		t.Fatal(err)
	}
	check := func(when string, runs []uuid.UUID, since time.Time, want map[pipeline.Stage]int64) {
		t.Helper()
		var rows int64
		for _, n := range want {
			rows += n
		}
		got, first, err := l.StillBad(t.Context(), BadQuery{Runs: runs, Since: since})
		if err != nil || len(got) != 1 || !maps.Equal(got[0], want) || int64(len(first)) != rows {
			t.Errorf("%s: got %v, rows %v, %v; want %v", when, got, first, err, want)
		}
	}
	check("no run, no time", nil, time.Time{}, nil)
	check("the run", []uuid.UUID{run}, time.Time{}, map[pipeline.Stage]int64{pipeline.Failed: 1, pipeline.Refused: 1})
	check("since the night", nil, night, map[pipeline.Stage]int64{pipeline.Failed: 1})
	check("both", []uuid.UUID{run}, night, map[pipeline.Stage]int64{pipeline.Failed: 2, pipeline.Refused: 1})
	ended := []int64{failed.ID, refused.ID}
	b := BadQuery{
		Runs: []uuid.UUID{run}, Since: night, Own: ended, Begun: night.Add(-time.Hour),
		Splits: []time.Time{night.Add(time.Hour), night},
	}
	got, _, err := l.StillBad(t.Context(), b)
	want := []map[pipeline.Stage]int64{{}, {pipeline.Failed: 1}, {}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("without own rows: got %v, %v; want %v", got, err, want)
	}
	b.Begun = night // rows that had ended before the run began, whatever it was given of them
	got, _, err = l.StillBad(t.Context(), b)
	want[0] = map[pipeline.Stage]int64{pipeline.Failed: 1, pipeline.Refused: 1}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("own rows of before: got %v, %v; want %v", got, err, want)
	}
	acceptOne(t, l, testRow(1, "i3"), pipeline.Open) // imported again
	check("after a row was imported again", []uuid.UUID{run}, time.Time{}, map[pipeline.Stage]int64{pipeline.Refused: 1})
}

// TestMinutes: the minutes of a run are replaced by later counts, and bounded by two days; those of old runs go.
func TestMinutes(t *testing.T) {
	l, o := openTest(t)
	run := uuid.Must(uuid.NewV7())
	begin := func(id uuid.UUID, at time.Time) {
		t.Helper()
		if err := l.BeginRun(t.Context(), Run{ID: id, StartedAt: at}); err != nil {
			t.Fatal(err)
		}
	}
	put := func(at time.Time, data string) {
		t.Helper()
		if err := l.PutMinute(t.Context(), run, Minute{At: at, Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	begun := o.Now().Truncate(time.Minute)
	begin(run, begun)
	put(begun, "first")
	put(begun.Add(time.Minute+3*time.Second), "half of the second")
	put(begun.Add(time.Minute+59*time.Second), "second")
	want := []Minute{{begun, "first"}, {begun.Add(time.Minute), "second"}}
	if got, err := l.Minutes(t.Context(), run); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	put(begun.Add(keptMinutes*time.Minute), "two days later")
	want = []Minute{want[1], {begun.Add(keptMinutes * time.Minute), "two days later"}}
	if got, err := l.Minutes(t.Context(), run); err != nil || !slices.Equal(got, want) {
		t.Errorf("two days later: got %v, %v; want %v", got, err, want)
	}
	if err := l.PutMinute(t.Context(), uuid.New(), Minute{At: begun}); err == nil {
		t.Error("a minute of a run that never began: got no error, want one")
	}
	for i := range keptMinuteRuns {
		begin(uuid.Must(uuid.NewV7()), begun.Add(time.Duration(i+1)*time.Hour))
	}
	if got, err := l.Minutes(t.Context(), run); err != nil || len(got) != 0 {
		t.Errorf("after %d more runs: got minutes %v, %v; want none", keptMinuteRuns, got, err)
	}
}
