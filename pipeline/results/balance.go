package results

import (
	"cmp"
	"slices"

	"github.com/purser-onboard/purser/pipeline"
)

// ReportImport is an import whose rows a run handled.
type ReportImport struct {
	ID       string `json:"id"`
	Received int64  `json:"received"` // messages of the import that the run took
	// Earlier are those of Received whose row an earlier import had settled. Such a row stays with the earlier import and
	// is not in Outcome.
	Earlier int64 `json:"earlier"`
	// EarlierOutcome is that of the rows of Earlier, each row once.
	EarlierOutcome *ImportOutcome `json:"earlierOutcome,omitempty"`
	Outcome        ImportOutcome  `json:"outcome"` // of the rows of the import in the ledger, at the end of the run
	// NotSeen is how many published rows of the import no run of this ledger has received, at least. It is absent if that
	// is not certain: the import or a run since has no end, or other consumers may have received the rows.
	NotSeen *int64 `json:"notSeen,omitempty"`
	// Importer is what the importer recorded; absent if it used another data directory.
	Importer *pipeline.Import `json:"importer,omitempty"`
}

// ImportOutcome counts the rows of an import. Rows is the sum of the others.
type ImportOutcome struct {
	Rows      int64 `json:"rows"`
	Open      int64 `json:"open"` // not settled
	Onboarded int64 `json:"onboarded"`
	Conflict  int64 `json:"conflict"`
	Refused   int64 `json:"refused"`
	Rejected  int64 `json:"rejected"`
	Failed    int64 `json:"failed"`
}

// Plus returns the sum of the outcomes of different rows.
func (o ImportOutcome) Plus(other ImportOutcome) ImportOutcome {
	return ImportOutcome{
		Rows: o.Rows + other.Rows, Open: o.Open + other.Open, Onboarded: o.Onboarded + other.Onboarded,
		Conflict: o.Conflict + other.Conflict, Refused: o.Refused + other.Refused, Rejected: o.Rejected + other.Rejected,
		Failed: o.Failed + other.Failed,
	}
}

// OutcomeOf sums up the rows of an import by stage.
func OutcomeOf(stages map[pipeline.Stage]int64) (o ImportOutcome) {
	for stage, n := range stages {
		o.Rows += n
		switch stage {
		case pipeline.Onboarded:
			o.Onboarded += n
		case pipeline.Conflict:
			o.Conflict += n
		case pipeline.Refused:
			o.Refused += n
		case pipeline.Rejected:
			o.Rejected += n
		case pipeline.Failed:
			o.Failed += n
		default:
			o.Open += n
		}
	}
	return o
}

// Balance shows that no row was lost between the lines of the exports and the queue, in the queue, or between the queue
// and the outcomes.
type Balance struct {
	// Lines is the sum over the imports that have ended and whose importer's record is known; absent if there is none.
	Lines    *LineBalance    `json:"lines,omitempty"`
	Received ReceivedBalance `json:"received"`
	// Published is the sum over the imports of the night whose NotSeen is known, also over those of which no row came to
	// the run, without those of which not all rows were seen and whose files were imported again, byte for byte; absent if
	// there is none.
	Published *PublishedBalance `json:"published,omitempty"`
}

// PublishedBalance: the rows published are those in the ledger, those that are not the import's there, and those that
// no run has seen.
type PublishedBalance struct {
	Published int64 `json:"published"`
	InLedger  int64 `json:"inLedger"`
	Others    int64 `json:"others"` // repeated, of another import, or dead-lettered
	NotSeen   int64 `json:"notSeen"`
	OK        bool  `json:"ok"` // NotSeen is 0
}

// LineBalance: the lines read are those of published rows, those of invalid rows, those that are neither (headers and
// blank lines), and those that were not finished.
type LineBalance struct {
	Read      int64 `json:"read"`
	Published int64 `json:"published"`
	Invalid   int64 `json:"invalid"`
	Neither   int64 `json:"neither"`
	// NotFinished are lines of which nothing had come when their import ended early.
	NotFinished int64 `json:"notFinished,omitempty"`
	OK          bool  `json:"ok"` // Read is the sum of the others
}

// ReceivedBalance: the messages received are those with an outcome and those that were given back.
type ReceivedBalance struct {
	Received int64 `json:"received"`
	Outcomes int64 `json:"outcomes"` // skipped, onboarded, conflict, refused, rejected, failed and dead-lettered
	Returned int64 `json:"returned"` // returned unsettled: they are delivered again
	OK       bool  `json:"ok"`       // Received is the sum of the others
}

// BalanceOf returns the balance of a run that has ended.
func BalanceOf(t pipeline.Tally, imports []ReportImport) *Balance {
	b := &Balance{Received: ReceivedBalance{
		Received: t.Received, Returned: t.Returned,
		Outcomes: t.Skipped + t.Onboarded + t.Conflict + t.Refused + t.Rejected + t.Failed + t.DeadLettered,
	}}
	b.Received.OK = b.Received.Received == b.Received.Outcomes+b.Received.Returned
	for _, i := range imports {
		if i.Importer == nil || !i.Importer.Ended() {
			continue
		}
		if b.Lines == nil {
			b.Lines = new(LineBalance)
		}
		b.Lines.Read += i.Importer.Lines
		b.Lines.Published += i.Importer.PublishedLines
		b.Lines.Invalid += i.Importer.InvalidLines
		b.Lines.Neither += i.Importer.Neither
		b.Lines.NotFinished += i.Importer.NotFinished()
		b.Lines.OK = b.Lines.Read == b.Lines.Published+b.Lines.Invalid+b.Lines.Neither+b.Lines.NotFinished
	}
	return b
}

// ImportedLater reports whether the files at the paths of an import's, or of the same names where a path is not known,
// were imported since, by imports that came to their end: the exports may have been corrected.
func ImportedLater(imports []ReportImport, first pipeline.Import) bool {
	return later(imports, first, func(f pipeline.ImportFile) string { return cmp.Or(f.Path, f.Name) })
}

// PublishedAgain reports whether what an import published was published since: its files were imported again, byte for
// byte. Of a file that was not read to its end only path and name are known.
func PublishedAgain(imports []ReportImport, first pipeline.Import) bool {
	return later(imports, first, func(f pipeline.ImportFile) string { return cmp.Or(f.SHA256, f.Path, f.Name) })
}

func later(imports []ReportImport, first pipeline.Import, key func(pipeline.ImportFile) string) bool {
	done := map[string]bool{}
	for _, i := range imports {
		if m := i.Importer; m != nil && !m.Unfinished() && m.StartedAt.After(first.StartedAt) {
			for _, f := range m.Files {
				done[f.Name], done[f.Path], done[f.SHA256] = true, true, true
			}
		}
	}
	return len(done) > 0 && !slices.ContainsFunc(first.Files, func(f pipeline.ImportFile) bool { return !done[key(f)] })
}

// PublishedOf returns the balance of the imports' published rows.
func PublishedOf(imports []ReportImport) *PublishedBalance {
	var b *PublishedBalance
	for _, i := range imports {
		if i.Importer == nil || i.NotSeen == nil || *i.NotSeen > 0 && PublishedAgain(imports, *i.Importer) {
			continue
		}
		if b == nil {
			b = new(PublishedBalance)
		}
		b.Published += i.Importer.Published
		b.InLedger += i.Outcome.Rows
		b.Others += i.Others()
		b.NotSeen += *i.NotSeen
		b.OK = b.NotSeen == 0
	}
	return b
}

// Others is how many published rows are neither in the ledger as rows of the import, nor unseen: they repeat a row, are
// another import's, or became dead letters. NotSeen must be known.
func (i ReportImport) Others() int64 { return i.Importer.Published - i.Outcome.Rows - *i.NotSeen }
