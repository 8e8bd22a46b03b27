package results

import (
	"testing"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// TestBalanceOf: lines and messages that disappear are shown. Imports that have not ended say nothing yet.
func TestBalanceOf(t *testing.T) {
	ended := time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)
	importer := func(lines int64, at time.Time) *pipeline.Import {
		return &pipeline.Import{EndedAt: at, ImportCounts: pipeline.ImportCounts{
			Lines: lines, Published: 5, PublishedLines: 6, Invalid: 1, InvalidLines: 2, Header: 1, Blank: 1, Neither: 2,
		}}
	}
	early := importer(21, ended)
	early.Exit = 2
	defect := importer(11, ended)
	defect.Exit, defect.Unaccounted = 1, true
	tally := pipeline.Tally{
		Received: 20, Skipped: 1, Onboarded: 8, AlreadyOnboarded: 2, Conflict: 1, Refused: 2, Rejected: 3, Failed: 2,
		DeadLettered: 1, Returned: 2,
	}
	short := tally
	short.Returned--
	for name, tt := range map[string]struct {
		tally    pipeline.Tally
		imports  []ReportImport
		received ReceivedBalance
		lines    *LineBalance
	}{
		"no importer known": {tally, []ReportImport{{ID: "theirs"}},
			ReceivedBalance{Received: 20, Outcomes: 18, Returned: 2, OK: true}, nil},
		"message lost": {short, nil, ReceivedBalance{Received: 20, Outcomes: 18, Returned: 1}, nil},
		"lines add up": {tally, []ReportImport{{Importer: importer(10, ended)}, {Importer: importer(7, time.Time{})}},
			ReceivedBalance{Received: 20, Outcomes: 18, Returned: 2, OK: true},
			&LineBalance{Read: 10, Published: 6, Invalid: 2, Neither: 2, OK: true}},
		"ended early": {tally, []ReportImport{{Importer: early}},
			ReceivedBalance{Received: 20, Outcomes: 18, Returned: 2, OK: true},
			&LineBalance{Read: 21, Published: 6, Invalid: 2, Neither: 2, NotFinished: 11, OK: true}},
		"line lost": {tally, []ReportImport{{Importer: importer(10, ended)}, {Importer: defect}},
			ReceivedBalance{Received: 20, Outcomes: 18, Returned: 2, OK: true},
			&LineBalance{Read: 21, Published: 12, Invalid: 4, Neither: 4}},
	} {
		got := BalanceOf(tt.tally, tt.imports)
		if got.Received != tt.received {
			t.Errorf("%s: got %+v, want %+v", name, got.Received, tt.received)
		}
		if (got.Lines == nil) != (tt.lines == nil) || got.Lines != nil && *got.Lines != *tt.lines {
			t.Errorf("%s: got lines %+v, want %+v", name, got.Lines, tt.lines)
		}
	}
}

// TestPublishedOf: imports of which it is not certain what was seen are left out.
func TestPublishedOf(t *testing.T) {
	published := &pipeline.Import{ImportCounts: pipeline.ImportCounts{Published: 10}}
	none, some := int64(0), int64(4)
	imports := []ReportImport{
		{Importer: published}, {NotSeen: &none},
		{Importer: published, Outcome: ImportOutcome{Rows: 7}, NotSeen: &none},
	}
	if got := PublishedOf(imports[:2]); got != nil {
		t.Errorf("not certain: got %+v, want none", got)
	}
	want := PublishedBalance{Published: 10, InLedger: 7, Others: 3, OK: true}
	if got := PublishedOf(imports); got == nil || *got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	imports = append(imports, ReportImport{Importer: published, Outcome: ImportOutcome{Rows: 6}, NotSeen: &some})
	want = PublishedBalance{Published: 20, InLedger: 13, Others: 3, NotSeen: 4}
	if got := PublishedOf(imports); got == nil || *got != want {
		t.Errorf("rows that were not seen: got %+v, want %+v", got, want)
	}
}

// TestImportedLater: a file of the same name in another directory is another one, if both directories are known.
func TestImportedLater(t *testing.T) {
	at := time.Date(2026, 11, 28, 1, 0, 0, 0, time.UTC)
	imported := func(after time.Duration, path string) ReportImport {
		return ReportImport{Importer: &pipeline.Import{
			StartedAt: at.Add(after), EndedAt: at.Add(after), Files: []pipeline.ImportFile{{Name: "today.csv", Path: path}},
		}}
	}
	for _, tt := range []struct {
		first, second string
		want          bool
	}{{"/a/today.csv", "/a/today.csv", true}, {"/a/today.csv", "/b/today.csv", false}, {"", "/b/today.csv", true}} {
		imports := []ReportImport{imported(0, tt.first), imported(time.Hour, tt.second)}
		if got := ImportedLater(imports, *imports[0].Importer); got != tt.want {
			t.Errorf("%q and then %q: got %t, want %t", tt.first, tt.second, got, tt.want)
		}
	}
}

// TestPublishedAgain: an export of the same name does not stand in for rows that no run has seen.
func TestPublishedAgain(t *testing.T) {
	at := time.Date(2026, 11, 28, 1, 0, 0, 0, time.UTC)
	imported := func(after time.Duration, digest string, notSeen int64) ReportImport {
		return ReportImport{NotSeen: &notSeen, Importer: &pipeline.Import{
			StartedAt: at.Add(after), EndedAt: at.Add(after), ImportCounts: pipeline.ImportCounts{Published: 10},
			Files: []pipeline.ImportFile{{Name: "today.csv", SHA256: digest}},
		}}
	}
	for _, tt := range []struct {
		first, second string
		want          int64
	}{{"a", "a", 0}, {"a", "b", 4}, {"", "b", 0}} { // "": not read to its end
		imports := []ReportImport{imported(0, tt.first, 4), imported(time.Hour, tt.second, 0)}
		if got := PublishedOf(imports); got.NotSeen != tt.want {
			t.Errorf("%q and then %q: got %d rows not seen, want %d", tt.first, tt.second, got.NotSeen, tt.want)
		}
		if !ImportedLater(imports, *imports[0].Importer) {
			t.Errorf("%q and then %q: got an export that was not imported later, want that it was", tt.first, tt.second)
		}
	}
}
