package consumecmd

import (
	"context"
	"fmt"
	"io"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/printable"
)

// Feed puts rows into the queue before a drain. It ends early when ctx ends.
type Feed func(ctx context.Context) Import

// Import is the result of a Feed.
type Import struct {
	ID    string // the import id
	Err   error  // with its exit code
	Stops bool   // Err is of a kind that a drain would meet, too: there is none
	// Export is the file or pattern that Err is about; empty if it is about something else.
	Export string
}

// Night imports with feed, drains the queue, and reports both as one run. The import starts when the run has opened the
// ledger, so that settings, signer and ledger are known to be usable before a row is queued. After a failed import the
// queue is still drained, because the rows of earlier imports do not depend on an unreadable export, unless the import
// was interrupted or the queue itself failed. The error has the worse exit code of the two.
func Night(soft, hard context.Context, c *config.Consumer, feed Feed, s Streams) error {
	return interrupted(soft, consume(soft, hard, c, true, feed, s))
}

// takeImport runs the feed. Its error ends the run.
func (r *run) takeImport() error {
	if r.feed == nil {
		return nil
	}
	r.imported = r.feed(r.soft)
	switch {
	case r.imported.Stops:
		return r.imported.Err
	case r.imported.Err != nil && console.Code(r.imported.Err) != console.ExitRowsBad:
		r.log.Warn("the import failed; draining the queue anyway", "error", r.imported.Err)
	}
	return nil
}

// withImport adds the import's error to that of a run which went on in spite of it.
func (r *run) withImport(err error) error {
	if r.imported.Err == nil || r.imported.Stops {
		return err
	}
	drained := console.Code(err)
	err = console.Worse(r.imported.Err, err)
	if r.report.Exit = console.Code(err); r.report.Exit != console.ExitRowsBad {
		r.report.Reason = console.Line(err)
	}
	finished := drained == console.ExitWell || drained == console.ExitRowsBad
	if finished && r.report.Exit != console.ExitRowsBad {
		r.report.Cause = results.CauseImport
	}
	if r.imported.Export != "" && r.imported.Export != "-" {
		r.report.Export = absolute(r.imported.Export)
	}
	return err
}

// take has the import accounted for, also if none of its rows came to the run.
func (e *ended) take(i Import) {
	if i.ID == "" {
		return
	}
	if e.imports == nil {
		e.imports = make(map[string]pipeline.ImportTally)
	}
	if _, known := e.imports[i.ID]; !known {
		e.imports[i.ID] = pipeline.ImportTally{}
	}
}

// summarizeImport prints how the rows of the import stand: those that it brought, and those that an earlier import had
// settled, as it is when a night is repeated.
func (r *run) summarizeImport(w io.Writer) {
	for _, i := range r.report.Imports {
		if i.ID != r.imported.ID {
			continue
		}
		all := i.Outcome
		if i.EarlierOutcome != nil {
			all = all.Plus(*i.EarlierOutcome)
		}
		queued, where := r.notReceived(i)
		fmt.Fprintf(w, "night     %s: %d onboarded", printable.Count(all.Rows, "row", "rows"), all.Onboarded)
		for _, part := range []struct {
			n    int64
			what string
		}{
			{all.Conflict, "in conflict"}, {all.Refused, "refused"}, {all.Rejected, "rejected by the partner"},
			{all.Failed, "failed"}, {all.Open, "not settled"}, {queued, where}, {invalid(i), "more invalid"},
		} {
			if part.n > 0 {
				fmt.Fprintf(w, ", %d %s", part.n, part.what)
			}
		}
		fmt.Fprintln(w)
	}
}

// notReceived is how many published rows of the import did not come to the run, and where they are.
func (r *run) notReceived(i results.ReportImport) (n int64, where string) {
	switch {
	case i.NotSeen != nil && (r.report.Exit == console.ExitUnfinished || r.report.Exit == console.ExitUsage):
		return *i.NotSeen, "still in the queue"
	case i.NotSeen != nil:
		return *i.NotSeen, "not received"
	case i.Importer != nil: // other consumers may have received them
		return i.Importer.Published - i.Received - r.report.Rows.DeadLettered, "not received by this run"
	}
	return 0, ""
}

func invalid(i results.ReportImport) int64 {
	if i.Importer == nil {
		return 0
	}
	return i.Importer.Invalid
}
