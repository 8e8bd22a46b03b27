package night

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/printable"
)

// Verdict is the night in a sentence.
type Verdict struct {
	Level    Level  `json:"level"`
	Sentence string `json:"sentence"`
	Reason   string `json:"reason,omitempty"` // why the latest run could not finish
	Exit     int    `json:"exit"`             // of the latest run
}

// Level is how the night went.
type Level string

// The levels of a verdict.
const (
	Good       Level = "good"       // all rows are onboarded
	Bad        Level = "bad"        // some rows ended badly, or rows are missing
	Unfinished Level = "unfinished" // the latest run halted, was interrupted, or has no end
	Empty      Level = "empty"      // there was nothing to do
)

// Commands are the programs, and the arguments by which the commands of an account find what the runs used: quoted for
// a shell, each with a space before it.
type Commands struct {
	Consume, Import string // programs; empty: consumer and importer

	Ledger   string // for commands of the consumer that read the ledger
	Queue    string // for those that need the queue, too
	Importer string

	Export string // of the latest run's report
}

// Conclude derives the verdict, what to do now, the balance and the incidents from the rest of the account.
func (a *Account) Conclude(c Commands) {
	c.Consume, c.Import = cmp.Or(c.Consume, "consumer"), cmp.Or(c.Import, "importer")
	a.consume = c.Consume
	slices.SortStableFunc(a.Minutes, func(x, y results.Minute) int { return x.At.Compare(y.At) })
	a.Balance = a.balance()
	a.Verdict = a.verdict()
	a.Verdict.Sentence += a.ofRuns()
	a.Todo = a.todo(c)
	a.Incidents = a.incidents()
}

// balance has a sum for each import whose record is known, and for the runs that have ended.
func (a *Account) balance() []Sum {
	sums := []Sum{}
	for _, i := range a.Imports {
		if i.Importer == nil {
			continue
		}
		if !i.Importer.Ended() {
			sums = append(sums, Sum{
				Name: "Import of " + filesOf(i), Of: "lines read", Parts: []Part{},
				Unknown: "not known: the import of " + filesOf(i) + " has not ended",
			})
			continue
		}
		c := i.Importer.ImportCounts
		sums = append(sums, Sum{
			Name: "Import of " + filesOf(i), Of: "lines read", Total: c.Lines,
			Parts:      []Part{{published, c.PublishedLines}, {invalid, c.InvalidLines}, {"header or blank", c.Neither}},
			Difference: c.Lines - c.PublishedLines - c.InvalidLines - c.Neither - i.Importer.NotFinished(),
		})
		if n := i.Importer.NotFinished(); n > 0 {
			s := &sums[len(sums)-1]
			s.Parts = append(s.Parts, Part{"not finished when the import ended", n})
		}
		if i.NotSeen != nil {
			sums = append(sums, a.publishedSum(i))
		}
	}
	if !slices.ContainsFunc(a.Runs, Run.Ended) {
		return sums
	}
	n := a.Rows()
	s := Sum{Name: "Run", Of: "received", Total: n.Received, Parts: []Part{
		{"onboarded", n.Onboarded}, {"skipped", n.Skipped}, {"failed", n.Failed}, {"refused", n.Refused},
		{"in conflict", n.Conflict}, {"rejected", n.Rejected}, {"dead-lettered", n.DeadLettered},
	}}
	if len(a.Runs) > 1 {
		s.Name = a.counted()
	}
	var returned int64
	for _, r := range a.Runs {
		returned += r.returned()
	}
	if returned > 0 {
		s.Parts = append(s.Parts, Part{"returned unsettled", returned})
	}
	s.Difference = s.Total
	for _, p := range s.Parts {
		s.Difference -= p.N
	}
	return append(sums, s)
}

// publishedSum is what became of the published rows of an import. Rows that no run has seen are missing if the queue
// was drained since, unless they were imported again.
func (a *Account) publishedSum(i results.ReportImport) Sum {
	o := i.Outcome
	s := Sum{Name: "Published rows of " + filesOf(i), Of: "published", Total: i.Importer.Published,
		Parts: []Part{{"onboarded", o.Onboarded}}}
	for _, p := range []Part{
		{"failed", o.Failed}, {"refused", o.Refused}, {"in conflict", o.Conflict}, {"rejected", o.Rejected},
		{"not settled", o.Open}, {others, i.Others()},
	} {
		if p.N > 0 {
			s.Parts = append(s.Parts, p)
		}
	}
	switch n := *i.NotSeen; {
	case n == 0:
	case results.PublishedAgain(a.Imports, *i.Importer):
		s.Parts = append(s.Parts, Part{"not seen, but imported again", n})
	case a.drainedSince(*i.Importer):
		s.Difference = n
	default:
		s.Parts = append(s.Parts, Part{"not yet seen by a run", n})
	}
	return s
}

// drainedSince reports whether a drain that came to its end began after an import, so that what was published was in
// the queue. A drain takes no rows that are published after it began.
func (a *Account) drainedSince(i pipeline.Import) bool {
	return slices.ContainsFunc(slices.Concat(a.Runs, a.History), func(r Run) bool {
		return r.Drain && r.Ended() && r.Report.Exit != 1 && r.Report.Exit != 2 && r.Report.StartedAt.After(i.EndedAt)
	})
}

// notSeen are the imports of which rows were published that no run has seen, and how many these are.
func (a *Account) notSeen() (list []results.ReportImport, n int64) {
	for _, i := range a.Imports {
		if i.Importer != nil && i.NotSeen != nil && *i.NotSeen > 0 && !results.PublishedAgain(a.Imports, *i.Importer) {
			list, n = append(list, i), n+*i.NotSeen
		}
	}
	return list, n
}

// unsettled is how many messages were received and have no outcome.
func unsettled(n results.ReportRows) int64 {
	return n.Received - n.Onboarded - n.Skipped - n.Failed - n.Refused - n.Conflict - n.Rejected - n.DeadLettered
}

// Parts of a sum that have a pattern of another name.
const (
	published = "in published rows"
	invalid   = "in invalid rows"
	others    = "repeated, of another import or dead-lettered"
)

func filesOf(i results.ReportImport) string {
	if i.Importer == nil || len(i.Importer.Files) == 0 { // by an earlier version: it has not ended
		return i.ID
	}
	names := make([]string, len(i.Importer.Files))
	for j, f := range i.Importer.Files {
		names[j] = f.Name
	}
	return files(names)
}

func namesOf(imports []results.ReportImport) string {
	names := make([]string, len(imports))
	for i := range imports {
		names[i] = filesOf(imports[i])
	}
	return files(names)
}

func files(names []string) string {
	const most = 3
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// lost reports whether the balance does not add up.
func (a *Account) lost() bool {
	return slices.ContainsFunc(a.Balance, func(s Sum) bool { return s.Difference != 0 })
}

// bad is how many rows of the ledger are settled and not onboarded.
func (a *Account) bad() (n int64) {
	for _, f := range a.Failures {
		if f.Stage.Terminal() {
			n += f.Total
		}
	}
	return n
}

// retryable is how many of them a new import starts again.
func (a *Account) retryable() (n int64) {
	for _, f := range a.Failures {
		if f.Stage.Retryable() {
			n += f.Total
		}
	}
	return n
}

// invalidRows is how many rows the imports found invalid, those aside whose files were imported again since.
func (a *Account) invalidRows() (n int64) {
	for _, i := range a.Imports {
		if i.Importer != nil && !a.ImportedLater(*i.Importer) {
			n += i.Importer.Invalid
		}
	}
	return n
}

func (a *Account) verdict() Verdict {
	if len(a.Runs) == 0 {
		return Verdict{Level: Empty, Sentence: "The ledger has no runs."}
	}
	latest, n := a.Runs[0], a.Rows()
	n.Received = a.distinct()
	v := Verdict{Exit: latest.Report.Exit, Reason: cmp.Or(latest.Report.Reason, a.noRows(latest))}
	onboarded := fmt.Sprintf("%s of %s onboarded", count(n.Onboarded),
		counted(n.Received, "received row was", "received rows were"))
	switch {
	case !latest.Ended():
		v.Level, v.Reason = Unfinished, ""
		v.Sentence = fmt.Sprintf("The run of %s on %s %s.", clock(latest.Report.StartedAt), latest.Host,
			latest.Report.Standing())
		if p := latest.Report.Progress; p != nil {
			v.Sentence += fmt.Sprintf(" By %s it had onboarded %s of %s.", clock(p.At), count(p.Rows.Onboarded),
				counted(p.Rows.Received, "received row", "received rows"))
		}
	case latest.Report.Cause == results.CauseInterrupted:
		v.Level = Unfinished
		v.Sentence = fmt.Sprintf("The run was interrupted after %s: %s.", span(latest.Took()), onboarded)
	case latest.Report.Cause == results.CauseImport && latest.Report.Export != "":
		v.Level = Unfinished
		v.Sentence = fmt.Sprintf("The export %s could not be read, and nothing was imported.", latest.Report.Export)
		if n.Received > 0 {
			v.Sentence += fmt.Sprintf(" Of rows that were in the queue, %s.", onboarded)
		}
	case latest.Report.Cause == results.CauseImport:
		v.Level = Unfinished
		v.Sentence = fmt.Sprintf("The import could not finish: %s.", onboarded)
	case latest.Report.Exit == 2:
		v.Level = Unfinished
		v.Sentence = fmt.Sprintf("The run halted after %s because of a setting: %s.", span(latest.Took()), onboarded)
	case latest.Report.Exit == 1:
		v.Level = Unfinished
		v.Sentence = fmt.Sprintf("The run could not finish, and ended after %s: %s.", span(latest.Took()), onboarded)
	default:
		v.Level, v.Sentence = a.finished(latest, n, onboarded)
	}
	for _, i := range a.unfinished() {
		v.Level = Unfinished
		v.Sentence += " " + unfinishedWord(i)
	}
	if a.lost() {
		if v.Level != Unfinished {
			v.Level = Bad
		}
		v.Sentence += " The balance does not add up: rows are missing from the account."
	}
	if list, n := a.notSeen(); n > 0 {
		if v.Level != Bad {
			v.Level = Unfinished
		}
		v.Sentence += fmt.Sprintf(" %s of %s %s not been seen by any run of this ledger.",
			printable.Plural(n, "1 published row", "At least "+count(n)+" published rows"), namesOf(list),
			printable.Plural(n, "has", "have"))
	}
	return v
}

// noRows is why a run ended with 3 with its import although no row is invalid: an export has none.
func (a *Account) noRows(latest Run) string {
	if latest.Report.Exit != 3 {
		return ""
	}
	for _, i := range a.Imports {
		of := func(r results.ReportImport) bool { return r.ID == i.ID }
		if m := i.Importer; m != nil && m.Exit == 3 && m.Invalid == 0 && slices.ContainsFunc(latest.Report.Imports, of) {
			return m.Reason
		}
	}
	return ""
}

// unfinished are the imports of which rows may be missing. An import of the same files that began later and came to
// its end stands in for one that did not.
func (a *Account) unfinished() (list []results.ReportImport) {
	for _, i := range a.Imports {
		if i.Importer != nil && i.Importer.Unfinished() && !a.ImportedLater(*i.Importer) {
			list = append(list, i)
		}
	}
	return list
}

// ImportedLater is results.ImportedLater of the night's imports.
func (a *Account) ImportedLater(first pipeline.Import) bool {
	return results.ImportedLater(a.Imports, first)
}

// unfinishedWord describes the state of an import that did not finish.
func unfinishedWord(i results.ReportImport) string {
	m := i.Importer
	if !m.Ended() {
		return fmt.Sprintf("The import of %s on %s %s.", filesOf(i), m.Host, m.Standing())
	}
	return fmt.Sprintf("The import of %s could not finish (exit code %d): rows may be missing.", filesOf(i), m.Exit)
}

// finished is the verdict on runs of which the latest came to its end.
func (a *Account) finished(latest Run, n results.ReportRows, onboarded string) (Level, string) {
	bad := n.Failed + n.Refused + n.Conflict + n.Rejected
	var not []string
	for _, p := range []Part{
		{"failed", n.Failed}, {"were refused", n.Refused}, {"are in conflict", n.Conflict},
		{"were rejected by the partner", n.Rejected}, {"became dead letters", n.DeadLettered},
		{"were settled before", n.Skipped},
	} {
		if p.N > 0 {
			not = append(not, count(p.N)+" "+p.Name)
		}
	}
	if n.Received == 0 {
		onboarded = "The queue was empty"
	}
	tail := "."
	if len(not) > 0 {
		tail = "; " + list(not) + "."
	}
	notPublished := ""
	if i := a.invalidRows(); i > 0 {
		notPublished = fmt.Sprintf(" %s of the exports %s invalid and %s not published.",
			counted(i, "row", "rows"), printable.Plural(i, "is", "are"), printable.Plural(i, "was", "were"))
	}
	if letters := a.lettersBefore(); letters > 0 {
		before := fmt.Sprintf("%s of run %s %s not been put back.",
			counted(letters, "dead letter", "dead letters"), latest.Report.Repeats,
			printable.Plural(letters, "has", "have"))
		if n.Received == 0 && a.bad() == 0 {
			return Bad, "The queue was empty, but " + before + notPublished
		}
		notPublished = " " + before + notPublished
	}
	switch {
	case bad+n.DeadLettered > 0:
		return Bad, onboarded + tail + notPublished
	case latest.Report.Exit != 0 && a.Left.Waiting > 0:
		return Bad, fmt.Sprintf("%s%s %s for the custodian.%s", onboarded, tail,
			counted(a.Left.Waiting, "row waits", "rows wait"), notPublished)
	case a.bad() > 0:
		return Bad, fmt.Sprintf("%s%s But %s of this ledger ended badly in an earlier run and %s not been onboarded since.%s",
			onboarded, tail, counted(a.bad(), "row", "rows"), printable.Plural(a.bad(), "has", "have"), notPublished)
	case notPublished != "":
		return Bad, onboarded + tail + notPublished
	case latest.Report.Repeats != "" && n.Received == 0:
		return Bad, "The queue was empty. The run repeats the result of run " + latest.Report.Repeats + "."
	case latest.Report.Exit != 0:
		return Bad, onboarded + tail
	case n.Received == 0:
		return Empty, "The queue was empty: the run received no rows."
	case n.Onboarded == n.Received && n.Received == 1:
		return Good, "The row that was received is onboarded."
	case n.Onboarded == n.Received:
		return Good, fmt.Sprintf("All %s received rows are onboarded.", count(n.Received))
	case n.Onboarded == 0 && n.Received == 1:
		return Good, "The row that was received was settled before: nothing was left to do."
	case n.Onboarded == 0:
		return Good, fmt.Sprintf("All %s received rows were settled before: nothing was left to do.", count(n.Received))
	}
	return Good, onboarded + "; the others were settled before."
}

// stageWord is a stage as the page names it.
func stageWord(s pipeline.Stage) string {
	if s == pipeline.Conflict {
		return "in conflict"
	}
	return string(s)
}
