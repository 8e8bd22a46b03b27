package consumecmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline/results"
)

// runs lists the ledger's latest runs.
func runs(ctx context.Context, c *config.Consumer, last int, form config.Output, s Streams) (err error) {
	book, err := openReader(ctx, c)
	if err != nil {
		return err
	}
	defer closing(&err, "ledger", book.Close)
	list, err := book.Runs(ctx, last)
	if err != nil {
		return err
	}
	if form.JSON() {
		return listRuns(s, list)
	}
	table := tabwriter.NewWriter(s.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "RUN\tSTARTED\tTOOK\tEXIT\tRECEIVED\tONBOARDED\tREASON")
	for _, r := range list {
		report, err := reportOf(r)
		if err != nil {
			return err
		}
		took, exit, rows := "not ended: killed", "-", report.Counts()
		if r.Running {
			took = "not ended: running"
		}
		if r.Ended() {
			took, exit = r.EndedAt.Sub(r.StartedAt).Round(time.Second).String(), fmt.Sprint(r.Exit)
		}
		if report.Reason == "" && r.Ended() && r.Exit == console.ExitRowsBad {
			report.Reason = whyBad(&report)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%d\t%s\n", r.ID, r.StartedAt.UTC().Format(time.RFC3339), took, exit,
			rows.Received, rows.Onboarded, report.Reason)
	}
	return table.Flush()
}

// whyBad is the reason for exit code 3 where the report gives none: rows that ended badly, or what the import found.
func whyBad(r *results.Report) string {
	if !anyBad(r) {
		for _, i := range r.Imports {
			if i.Importer != nil && i.Importer.Exit == console.ExitRowsBad {
				return i.Importer.Reason
			}
		}
	}
	return rowsEndedBadly
}

// anyBad reports whether rows or messages of the run ended badly.
func anyBad(r *results.Report) bool {
	n := r.Rows
	return n.Conflict+n.Refused+n.Rejected+n.Failed+n.DeadLettered > 0
}

// listedRun is a run in the JSON document of `consumer runs`. The field names are a contract.
type listedRun struct {
	Program string         `json:"program"`
	Host    string         `json:"host"`
	Drain   bool           `json:"drain"`
	Report  results.Report `json:"report"`
}

// listRuns prints the runs as JSON.
func listRuns(s Streams, list []ledger.Run) error {
	document := struct {
		Runs []listedRun `json:"runs"`
	}{make([]listedRun, 0, len(list))}
	for _, r := range list {
		report, err := reportOf(r)
		if err != nil {
			return err
		}
		document.Runs = append(document.Runs, listedRun{Program: r.Program, Host: r.Host, Drain: r.Drain, Report: report})
	}
	return console.WriteJSON(s.Stdout, document)
}

// statusOfRun prints the report of a run, "last" or an id, and ends with its exit code; 1 of a run that has not ended.
func statusOfRun(ctx context.Context, c *config.Consumer, which string, s Streams) (err error) {
	book, err := openReader(ctx, c)
	if err != nil {
		return err
	}
	defer closing(&err, "ledger", book.Close)
	run, err := findRun(ctx, book, which)
	if err != nil {
		return err
	}
	report, err := reportOf(run)
	if err != nil {
		return err
	}
	if _, err := s.Stdout.Write(report.JSON()); err != nil {
		return err
	}
	if report.Exit != console.ExitWell {
		return console.Coded(report.Exit, fmt.Errorf("run %s ended with exit code %d", run.ID, report.Exit))
	}
	return nil
}

// allRuns is more than a ledger keeps.
const allRuns = 1 << 20

// findRun returns the latest run for "last", otherwise the one with that id.
func findRun(ctx context.Context, book *ledger.Reader, which string) (ledger.Run, error) {
	list, err := book.Runs(ctx, allRuns)
	if err != nil {
		return ledger.Run{}, err
	}
	for _, r := range list {
		if which == "last" || r.ID.String() == which {
			return r, nil
		}
	}
	return ledger.Run{}, console.Coded(console.ExitUsage, &config.Error{
		Setting: "--run", Value: which, Problem: "the ledger has no such run; `consumer runs` lists them",
	})
}

// reportOf returns a run's report, which says of a run without an end whether it is in progress.
func reportOf(r ledger.Run) (results.Report, error) {
	report, err := storedReport(r)
	if err == nil && !r.Ended() {
		report = report.Seen(r.Running)
	}
	return report, err
}

// storedReport reads a run's report as the ledger has it.
func storedReport(r ledger.Run) (report results.Report, err error) {
	if err := json.Unmarshal([]byte(r.Report), &report); err != nil {
		return report, errors.Join(fmt.Errorf("cannot read the report of run %s in the ledger", r.ID), err)
	}
	return report, nil
}
