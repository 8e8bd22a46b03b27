package consumecmd

import (
	"testing"
	"time"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/results"
)

// TestNotSeen: rows are called unseen only if it is certain.
func TestNotSeen(t *testing.T) {
	at := time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)
	run := func(from, to int, received, dead int64) seenRun {
		r := seenRun{from: at.Add(time.Duration(from) * time.Hour), to: at.Add(time.Duration(to) * time.Hour)}
		r.Balance, r.Rows.DeadLettered = &results.Balance{}, dead
		r.Imports = []results.ReportImport{{ID: "i", Received: received}, {ID: "other", Received: 100}}
		return r
	}
	killed, old, kafka, full := run(1, 2, 0, 0), run(1, 2, 0, 0), run(1, 2, 0, 0), run(1, 2, 0, 0)
	killed.to, old.Balance = time.Time{}, nil
	kafka.Settings = map[string]string{"brokers": "kafka-1:9092"}
	full.Imports = make([]results.ReportImport, mostImports)
	before, killedBefore := run(-3, -2, 6, 0), run(-5, 0, 0, 0)
	before.Imports, killedBefore.Imports, killedBefore.to = before.Imports[1:], nil, time.Time{}
	for name, tt := range map[string]struct {
		runs sight
		rows int64
		want int64 // -1: not certain
	}{
		"all received":              {sight{run(3, 4, 6, 0), run(1, 2, 4, 0)}, 10, 0},
		"received twice":            {sight{run(1, 2, 15, 0)}, 10, 0},
		"none received":             {sight{run(1, 2, 0, 0)}, 0, 10},
		"some received":             {sight{run(3, 4, 3, 0), run(1, 2, 1, 0)}, 2, 6},
		"in the ledger":             {sight{run(1, 2, 0, 0)}, 8, 2},
		"dead letters":              {sight{run(1, 2, 4, 5)}, 4, 1},
		"a run before the import":   {sight{run(1, 2, 4, 0), before}, 4, 6},
		"killed before the import":  {sight{run(1, 2, 4, 0), run(-1, 0, 0, 0), killedBefore}, 4, 6},
		"imported by a clock ahead": {sight{before, run(-4, -3, 10, 0)}, 0, 0},
		"a killed run":              {sight{run(3, 4, 4, 0), killed}, 4, -1},
		"a run of earlier versions": {sight{old}, 4, -1},
		"a cluster":                 {sight{kafka}, 4, -1},
		"too many imports":          {sight{full}, 4, -1},
		"more than published":       {sight{run(1, 2, 4, 0)}, 11, -1},
		"no run":                    {nil, 0, -1},
	} {
		i := &pipeline.Import{
			ID: "i", StartedAt: at.Add(30 * time.Minute), EndedAt: at.Add(40 * time.Minute),
			ImportCounts: pipeline.ImportCounts{Published: 10},
		}
		got := int64(-1)
		if n := tt.runs.notSeen(i, results.ImportOutcome{Rows: tt.rows}); n != nil {
			got = *n
		}
		if got != tt.want {
			t.Errorf("%s: got %d, want %d", name, got, tt.want)
		}
		i.EndedAt = time.Time{}
		if n := tt.runs.notSeen(i, results.ImportOutcome{Rows: tt.rows}); n != nil {
			t.Errorf("%s, of an import without an end: got %d, want none", name, *n)
		}
	}
}
