package consumecmd

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/printable"
)

// judge fills in the report of the run, and returns its error with the exit code.
func (r *run) judge(done ended, err error) error {
	err = r.withImport(judge(&r.report, done, err))
	if r.report.FinishedAt.Before(r.report.StartedAt) { // the clock was set back
		r.report.FinishedAt = r.report.StartedAt.Add(pipeline.Monotonic().Sub(r.started))
	}
	r.report.Reason = r.screen.Hints(r.report.Reason)
	return err
}

// judge fills in the report of a run that has ended, and returns its error with the exit code.
func judge(report *results.Report, done ended, err error) error {
	t, stats := done.tally, done.stats
	report.State, report.FinishedAt, report.Reason, report.Cause = results.Ended, time.Now().UTC(), "", ""
	report.Rows = results.RowsOf(t)
	report.Requests = results.ReportRequests{
		Sent: stats.Sent, Throttled: stats.Throttled, Retried: stats.Retried + t.Retried,
	}
	report.Signatures = t.Signatures
	switch {
	case err == nil && (t.Bad() || done.left != nil):
		err = console.Coded(console.ExitRowsBad, errors.New(whoIsBad(t, done.left)))
		if t.Waiting > 0 {
			report.Reason = fmt.Sprintf("%s waiting for the custodian", printable.Count(t.Waiting, "row is", "rows are"))
		}
		if done.left != nil {
			report.Repeats, report.Reason = done.left.of().String(), console.Line(err)
			report.RepeatedDeadLetters = done.left.letters()
		}
	case err != nil:
		report.Reason = console.Line(err)
		if errors.Is(err, console.ErrInterrupted) {
			report.Cause = results.CauseInterrupted
			err = console.Coded(console.ExitUnfinished, fmt.Errorf("%w: %s", err, whatIsLeft(t)))
		}
	}
	report.Exit = console.Code(err)
	return err
}

// whoIsBad returns where to find rows that ended badly and dead letters, of this run and earlier runs.
func whoIsBad(t pipeline.Tally, left *leftover) string {
	var said []string
	if left != nil {
		first := "all received rows are onboarded, but "
		switch {
		case t.Bad():
			first = ""
		case t.Received == 0:
			first = "the queue is empty, but "
		}
		said = append(said, first+left.String())
	}
	letters := t.DeadLettered > 0 || left != nil && left.letters() > 0
	t.DeadLettered = 0
	if t.Bad() {
		said = append(said, "some rows ended badly: `consumer failures` lists them")
	} else if left != nil && left.bad() {
		said = append(said, "`consumer failures` lists them; fix them and import them again")
	}
	if letters {
		said = append(said, "`consumer redrive --dry-run` lists the dead letters")
	}
	return strings.Join(said, "; ")
}

// whatIsLeft returns, after an interruption, the state of the rows that were taken.
func whatIsLeft(t pipeline.Tally) string {
	n := t.Open + t.Dropped
	if n == 0 {
		return "all started rows are settled; the next run continues with the queue"
	}
	return fmt.Sprintf("%s in the queue for the next run",
		printable.Count(n, "started row is not settled and stays", "started rows are not settled and stay"))
}

// Summaries returns the output for summaries: standard output, or standard error if the report or the page is written
// to standard output, which then has only that document.
func Summaries(c *config.Consumer, s Streams) *console.Stdout {
	stdout := console.Output(s.Stdout)
	for _, setting := range []string{c.Report, c.ReportHTML} {
		if openReport("", setting, "", fileKind{}, Streams{Stdout: stdout}).stream == stdout {
			return console.NewScreen(s.Stderr).Lines()
		}
	}
	return stdout
}

func summarize(w io.Writer, r *results.Report, t pipeline.Tally) {
	took := r.FinishedAt.Sub(r.StartedAt).Round(time.Millisecond)
	fmt.Fprintf(w, "rows      %d received: %d onboarded", r.Rows.Received, r.Rows.Onboarded)
	if n := r.Rows.AlreadyOnboarded; n > 0 {
		fmt.Fprintf(w, " (%d of them were already)", n)
	}
	for _, part := range []struct {
		n    int64
		what string
	}{
		{r.Rows.Skipped, "skipped"}, {r.Rows.Conflict, "in conflict"}, {r.Rows.Refused, "refused"},
		{r.Rows.Rejected, "rejected by the partner"}, {r.Rows.Failed, "failed"}, {r.Rows.DeadLettered, "dead-lettered"},
		{t.Waiting, "waiting for the custodian"}, {t.Open + t.Dropped, "not settled"},
	} {
		if part.n > 0 {
			fmt.Fprintf(w, ", %d %s", part.n, part.what)
		}
	}
	fmt.Fprintf(w, "\nrequests  %d sent, %d throttled, %d retried; %s\ntime      %s\n", r.Requests.Sent,
		r.Requests.Throttled, r.Requests.Retried, printable.Count(r.Signatures, "signature", "signatures"), took)
}

// listWaiting names the rows that were left to the custodian.
func (r *run) listWaiting(w io.Writer, rows []pipeline.Record) {
	const most = 50
	for i, row := range rows {
		if i == most {
			more := fmt.Sprintf("waiting   %d more: `consumer failures --all` lists them\n", len(rows)-most)
			fmt.Fprint(w, r.screen.Hints(more))
			return
		}
		because := ""
		if row.Reason != "" {
			because = "; its last poll failed: " + row.Reason
		}
		fmt.Fprintf(w, "waiting   %s %s: for the custodian's transaction %s%s\n",
			row.Where(), row.Account, row.ExternalTxID, because)
	}
}
