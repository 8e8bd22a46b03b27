package consumecmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/printable"
)

// mostOfLine limits untrusted text in a line of output.
const mostOfLine = 4 << 10

// book has the queries about rows.
type book interface {
	Environment(ctx context.Context) (ledger.Environment, error)
	Counts(ctx context.Context) ([]ledger.Count, error)
	DirectoryAsOf(ctx context.Context) (time.Time, error)
	Failures(ctx context.Context, yield func(pipeline.Record) error) error
	Runs(ctx context.Context, n int) ([]ledger.Run, error)
	Close() error
}

// openBook opens the rows that a command is to look at.
func openBook(ctx context.Context, c *config.Consumer, fleet bool, s Streams) (_ book, what string, err error) {
	if fleet {
		b, err := openFleet(ctx, c, s)
		return b, "ledger topic " + c.LedgerTopic, err
	}
	b, err := openReader(ctx, c)
	return b, "ledger " + c.Ledger, err
}

// openReader opens the ledger for reading; a consumer may be running.
func openReader(ctx context.Context, c *config.Consumer) (*ledger.Reader, error) {
	book, err := ledger.OpenReadOnly(ctx, c.Ledger)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noLedger(c)
	}
	return book, console.Unusable(coded(err))
}

func noLedger(c *config.Consumer) error {
	return console.Coded(console.ExitUsage, fmt.Errorf(
		"there is no ledger at %s: has the consumer run, and with this --data-dir or --ledger?", c.Ledger))
}

// status counts the ledger's rows by stage and class.
func status(ctx context.Context, c *config.Consumer, fleet bool, form config.Output, s Streams) (err error) {
	book, what, err := openBook(ctx, c, fleet, s)
	if err != nil {
		return err
	}
	defer closing(&err, "ledger", book.Close)
	environment, err := book.Environment(ctx)
	if err != nil {
		return err
	}
	counts, err := book.Counts(ctx)
	if err != nil {
		return err
	}
	oldest, err := oldestUnsettled(ctx, book, counts)
	if err != nil {
		return err
	}
	listed, err := book.DirectoryAsOf(ctx)
	if err != nil {
		return err
	}
	run, err := unendedRun(ctx, book)
	if err != nil {
		return err
	}
	if form.JSON() {
		d := standingOf(what, environment, listed, counts, oldest)
		d.Run = run
		return console.WriteJSON(s.Stdout, d)
	}
	fmt.Fprintln(s.Stdout, printable.Line(fmt.Sprintf("%s, API %s", what, environment.API()), mostOfLine))
	if !listed.IsZero() {
		fmt.Fprintf(s.Stdout, "the partner's list was read at %s\n", listed.UTC().Format(time.RFC3339))
	}
	table := tabwriter.NewWriter(s.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STAGE\tCLASS\tROWS\tLATEST REASON")
	var total int64
	for _, n := range counts {
		total += n.Rows
		reason := n.Reason
		if n.Stage == pipeline.Onboarded && n.AlreadyOnboarded > 0 {
			reason = fmt.Sprintf("%d of them were onboarded already", n.AlreadyOnboarded)
		}
		if n.Dismissed > 0 {
			reason = fmt.Sprintf("(%d dismissed) %s", n.Dismissed, reason)
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", n.Stage, n.Class, n.Rows, reason)
	}
	fmt.Fprintf(table, "total\t\t%d\t\n", total)
	if err := table.Flush(); err != nil {
		return err
	}
	if oldest != nil {
		fmt.Fprintf(s.Stdout, "oldest unsettled row: %s, %s since %s, accepted at %s\n",
			printable.Line(oldest.Where(), mostOfLine), oldest.Stage,
			oldest.UpdatedAt.UTC().Format(time.RFC3339), oldest.AcceptedAt.UTC().Format(time.RFC3339))
	}
	if run != nil {
		fmt.Fprintln(s.Stdout, run)
	}
	hints := console.NewScreen(s.Stderr).Hints
	for _, n := range counts {
		if class := onboard.ClassOf(n.Class, n.Stage); n.Rows > n.Dismissed && n.Stage.Terminal() && class.Advice() != "" {
			fmt.Fprintf(s.Stdout, "%s: %s See %s.\n", class, hints(class.Advice()), class.Runbook())
		}
	}
	return nil
}

// watchStatus prints the status every 5 seconds until a signal or until the reader is gone, which is no error: on a
// terminal over the one before. The ledger is open for each reading only, so a consumer may begin and end meanwhile.
func watchStatus(ctx context.Context, c *config.ConsumerCommands, s Streams) error {
	ticker := time.NewTicker(5 * time.Second)
	defer ticker.Stop()
	out := console.Output(s.Stdout)
	for first := true; ; first = false {
		var text bytes.Buffer // the screen is cleared when there is something to show
		s.Stdout = &text
		if err := status(ctx, &c.Consumer, c.Status.Fleet, c.Status.Output, s); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if c.Status.Output.JSON() {
			var line bytes.Buffer
			if err := json.Compact(&line, text.Bytes()); err != nil {
				return err
			}
			line.WriteByte('\n')
			text = line
		} else if !out.Clear() && !first {
			fmt.Fprintln(out)
		}
		if _, err := out.Write(text.Bytes()); err != nil || out.Closed() {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// standing is the JSON document of `consumer status`. The field names are a contract.
type standing struct {
	Of       string          `json:"of"` // the ledger or the ledger topic
	API      string          `json:"api"`
	ListedAt time.Time       `json:"listedAt,omitzero"` // when the partner's list was read
	Rows     int64           `json:"rows"`
	Stages   []standingStage `json:"stages"`
	Oldest   *unsettled      `json:"oldestUnsettled,omitempty"` // by the time at which it was accepted
	Run      *unended        `json:"run,omitempty"`             // the latest run, if it has not ended
}

// unended is a run that is in progress, or whose process was killed.
type unended struct {
	Run       string            `json:"run"` // its id
	StartedAt time.Time         `json:"startedAt"`
	Alive     bool              `json:"alive"`              // its process is there
	Progress  *results.Progress `json:"progress,omitempty"` // as it was recorded last
}

// unendedRun returns the latest run if it has not ended, otherwise nil.
func unendedRun(ctx context.Context, b book) (*unended, error) {
	latest, err := b.Runs(ctx, 1)
	if err != nil || len(latest) == 0 || latest[0].Ended() {
		return nil, err
	}
	r := latest[0]
	report, err := reportOf(r)
	return &unended{Run: r.ID.String(), StartedAt: r.StartedAt.UTC(), Alive: r.Running, Progress: report.Progress}, err
}

// String returns the lines of `consumer status`.
func (u *unended) String() string {
	line := fmt.Sprintf("run %s of %s %s", u.Run, u.StartedAt.Format(time.RFC3339),
		results.Report{Alive: &u.Alive}.Standing())
	if u.Progress == nil {
		return line
	}
	p := *u.Progress
	if !u.Alive { // it waits for nothing any more
		p.Doing, p.SecondsLeft = results.Working, 0
	}
	var fields []string
	for _, f := range fieldsOf(p) {
		if f.Text != "" {
			fields = append(fields, f.Text)
		}
	}
	return line + "\nas of " + p.At.UTC().Format(time.RFC3339) + ": " + strings.Join(fields, " · ")
}

// unsettled is a row that is not settled.
type unsettled struct {
	File       string         `json:"file"`
	Line       int            `json:"line"`
	Stage      pipeline.Stage `json:"stage"`
	UpdatedAt  time.Time      `json:"updatedAt"` // in the stage since then, or later
	AcceptedAt time.Time      `json:"acceptedAt"`
}

// oldestUnsettled returns the row that was accepted first of those that are not settled; nil: all are.
func oldestUnsettled(ctx context.Context, b book, counts []ledger.Count) (oldest *pipeline.Record, err error) {
	if !slices.ContainsFunc(counts, func(n ledger.Count) bool { return !n.Stage.Terminal() && n.Rows > 0 }) {
		return nil, nil
	}
	err = b.Failures(ctx, func(r pipeline.Record) error {
		if !r.Stage.Terminal() && (oldest == nil || r.AcceptedAt.Before(oldest.AcceptedAt)) {
			oldest = &r
		}
		return nil
	})
	return oldest, err
}

// standingStage counts the rows of a stage and class.
type standingStage struct {
	Stage            pipeline.Stage `json:"stage"`
	Class            string         `json:"class,omitempty"`
	Rows             int64          `json:"rows"`
	AlreadyOnboarded int64          `json:"alreadyOnboarded,omitempty"`
	Dismissed        int64          `json:"dismissed,omitempty"` // of rows
	Reason           string         `json:"reason,omitempty"`    // the latest
}

func standingOf(
	what string, environment ledger.Environment, listed time.Time, counts []ledger.Count, oldest *pipeline.Record,
) standing {
	d := standing{
		Of: printable.Line(what, mostOfLine), API: printable.Line(environment.API(), mostOfLine), ListedAt: listed.UTC(),
		Stages: make([]standingStage, 0, len(counts)),
	}
	for _, n := range counts {
		d.Rows += n.Rows
		d.Stages = append(d.Stages, standingStage(n))
	}
	if oldest != nil {
		d.Oldest = &unsettled{
			File: printable.Line(oldest.File, mostOfLine), Line: oldest.Line, Stage: oldest.Stage,
			UpdatedAt: oldest.UpdatedAt.UTC(), AcceptedAt: oldest.AcceptedAt.UTC(),
		}
	}
	return d
}

// reconcile reads the partner's list and records the statuses.
func reconcile(ctx context.Context, c *config.Consumer, form config.Output, s Streams) (err error) {
	log := console.NewLogger(s.Stderr, c.LogFormat, c.LogLevel)
	p, err := openPartner(c, s.Getenv, log, nil)
	if err != nil {
		return err
	}
	defer p.client.Close()
	book, err := openLedger(ctx, c, p, nil, nil, log)
	if err != nil {
		return err
	}
	defer closing(&err, "ledger", book.Close)
	r, err := results.Reconcile(ctx, p.client, book, time.Now)
	if err != nil {
		err = fmt.Errorf("reconcile: %w", err)
		if code := partnerExit(err); code != console.ExitUnfinished {
			return console.Coded(code, err)
		}
		return err
	}
	if form.JSON() {
		err = console.WriteJSON(s.Stdout, reconciledOf(r))
	} else {
		printReconciled(s.Stdout, r)
	}
	if r.Fallen > 0 {
		err = errors.Join(err, fmt.Errorf("%d onboarded %s a customer that is initiating or rejected at the partner",
			r.Fallen, printable.Plural(r.Fallen, "row has", "rows have")))
	}
	if r.Odd > 0 {
		err = errors.Join(err, fmt.Errorf("%s a status that the partner does not document",
			printable.Count(r.Odd, "customer has", "customers have")))
	}
	if r.Missing > 0 {
		err = errors.Join(err, fmt.Errorf("%d onboarded %s not in the partner's list", r.Missing,
			printable.Plural(r.Missing, "row is", "rows are")))
	}
	if r.Fallen+r.Missing > 0 {
		err = errors.Join(err, errors.New("docs/looking-into-a-night.md has the SQL that lists them"))
	}
	return console.Coded(console.ExitRowsBad, err)
}

// reconciled is the JSON document of `consumer reconcile`: results.Reconciled. The field names are a contract.
type reconciled struct {
	Customers int64            `json:"customers"`
	Rows      int64            `json:"rows"`
	Matched   int64            `json:"matched"`
	Updated   int64            `json:"updated"`
	Statuses  map[string]int64 `json:"statuses"`
	Partial   string           `json:"partial,omitempty"`
	Missing   int64            `json:"missing"`
	Fallen    int64            `json:"fallen"`
	Odd       int64            `json:"undocumented"`
	Ahead     int64            `json:"ahead"`
}

func reconciledOf(r results.Reconciled) reconciled {
	d := reconciled{
		Customers: r.Customers, Rows: r.Rows, Matched: r.Matched, Updated: r.Updated,
		Statuses: make(map[string]int64, len(r.Statuses)),
		Missing:  r.Missing, Fallen: r.Fallen, Odd: r.Odd, Ahead: r.Ahead,
	}
	for status, n := range r.Statuses {
		d.Statuses[printable.Line(status, mostOfLine)] += n
	}
	if r.Partial != nil {
		d.Partial = console.Line(r.Partial)
	}
	return d
}

func printReconciled(w io.Writer, r results.Reconciled) {
	fmt.Fprintf(w, "partner   %s\nledger    %s, %d of them with the partner, %s changed\n",
		printable.Count(r.Customers, "customer", "customers"), printable.Count(r.Rows, "row", "rows"),
		r.Matched, printable.Count(r.Updated, "status", "statuses"))
	for _, name := range slices.Sorted(maps.Keys(r.Statuses)) {
		fmt.Fprintf(w, "  %-12s %d\n", printable.Line(name, mostOfLine), r.Statuses[name])
	}
	if r.Partial != nil {
		fmt.Fprintf(w, "the list is incomplete (%s): unlisted rows are not counted as missing\n",
			console.Line(r.Partial))
	}
	if r.Ahead > 0 {
		fmt.Fprintf(w, "%s past initiating there: import them again to settle them\n",
			printable.Count(r.Ahead, "row that is not onboarded here is", "rows that are not onboarded here are"))
	}
}
