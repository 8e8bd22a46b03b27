package ledger

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/pipeline"
)

func TestImports(t *testing.T) {
	l, o := openTest(t)
	at := o.Now().UTC()
	counts := pipeline.ImportCounts{
		Lines: 9, Rows: 6, Published: 4, PublishedLines: 5, Invalid: 2, InvalidLines: 2, Header: 1, Blank: 1, Neither: 2,
	}
	first := pipeline.Import{
		ID: uuid.Must(uuid.NewV7()).String(), Program: "purser 0.3.0", Host: "night-1", StartedAt: at, Exit: 1,
		Reason: "it has not ended", Files: []pipeline.ImportFile{},
	}
	if err := l.PutImports(t.Context(), []pipeline.Import{first}); err != nil {
		t.Fatal(err)
	}
	first.EndedAt, first.Exit, first.Reason, first.ImportCounts = at.Add(time.Second), 3, "2 rows are invalid", counts
	first.Files = []pipeline.ImportFile{{
		Name: "customers.csv", Size: 700, SHA256: "0011", ImportCounts: counts,
		Reasons: []pipeline.InvalidReason{{Field: "address", Reason: "address is empty", Rows: 2}},
	}}
	second := first
	second.ID, second.StartedAt = uuid.Must(uuid.NewV7()).String(), at.Add(time.Hour)
	if err := l.PutImports(t.Context(), []pipeline.Import{second, first}); err != nil {
		t.Fatal(err)
	}
	got, err := l.Imports(t.Context(), 10)
	if want := []pipeline.Import{second, first}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	many := make([]pipeline.Import, keptImports)
	for i := range many {
		many[i] = second
		many[i].ID = uuid.Must(uuid.NewV7()).String()
	}
	if err := l.PutImports(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Imports(t.Context(), 2*keptImports); err != nil || len(got) != keptImports {
		t.Errorf("got %d imports, %v; want the latest %d", len(got), err, keptImports)
	}
}

// TestStagesByImport: a row counts for the latest import that started or continued it.
func TestStagesByImport(t *testing.T) {
	l, _ := openTest(t)
	settle(t, l, acceptOne(t, l, testRow(1, "i1"), pipeline.Open), pipeline.Failed, "")
	settle(t, l, acceptOne(t, l, testRow(2, "i1"), pipeline.Open), pipeline.Onboarded, "c2")
	settle(t, l, acceptOne(t, l, testRow(3, "i1"), pipeline.Open), pipeline.Onboarded, "c3")
	settle(t, l, acceptOne(t, l, testRow(4, "other"), pipeline.Open), pipeline.Onboarded, "c4")
	acceptOne(t, l, testRow(1, "i2"), pipeline.Open)    // it had failed: started again
	acceptOne(t, l, testRow(2, "i2"), pipeline.Settled) // it stays with its import
	got, err := l.StagesByImport(t.Context(), []string{"i1", "i2", "unknown"})
	const want = "map[i1:map[onboarded:2] i2:map[planned:1]]"
	if text := fmt.Sprint(got); err != nil || text != want {
		t.Errorf("got %s, %v; want %s", text, err, want)
	}
}
