package consumecmd

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/csvimport"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/printable"
)

// mostOfLine bounds what a line of output shows of a text from outside.
const mostOfLine = 4 << 10

// book is what can be asked of the rows.
type book interface {
	Environment(ctx context.Context) (ledger.Environment, error)
	Counts(ctx context.Context) ([]ledger.Count, error)
	DirectoryAsOf(ctx context.Context) (time.Time, error)
	Failures(ctx context.Context, yield func(pipeline.Record) error) error
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
		return nil, console.Coded(console.ExitUsage, fmt.Errorf(
			"there is no ledger at %s: has the consumer run, and with this --data-dir or --ledger?", c.Ledger))
	}
	return book, err
}

// status counts the ledger's rows by stage and class.
func status(ctx context.Context, c *config.Consumer, fleet bool, s Streams) (err error) {
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
	fmt.Fprintln(s.Stdout, printable.Line(fmt.Sprintf("%s, API %s", what, environment.API()), mostOfLine))
	listed, err := book.DirectoryAsOf(ctx)
	if err != nil {
		return err
	}
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
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", n.Stage, n.Class, n.Rows, reason)
	}
	fmt.Fprintf(table, "total\t\t%d\t\n", total)
	return table.Flush()
}

// failures prints the rows that are not onboarded, in a form that the importer reads.
func failures(ctx context.Context, c *config.Consumer, fleet bool, s Streams) (err error) {
	book, _, err := openBook(ctx, c, fleet, s)
	if err != nil {
		return err
	}
	defer closing(&err, "ledger", book.Close)
	out := csv.NewWriter(s.Stdout)
	header := []string{"address", "externalId", "chainId", "stage", "class", "reason", "file", "line"}
	if err := out.Write(header); err != nil {
		return err
	}
	err = book.Failures(ctx, func(r pipeline.Record) error {
		return out.Write([]string{
			r.Account.Address.Hex(), r.ExternalID, "eip155:" + strconv.FormatUint(r.Account.Chain, 10),
			string(r.Stage), csvimport.Defuse(r.Class), csvimport.Defuse(r.Reason),
			csvimport.Defuse(r.File), strconv.Itoa(r.Line),
		})
	})
	out.Flush()
	return errors.Join(err, out.Error())
}

// reconcile reads the partner's list and records the statuses.
func reconcile(ctx context.Context, c *config.Consumer, s Streams) (err error) {
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
	fmt.Fprintf(s.Stdout, "partner   %d customers\nledger    %d rows, %d of them with the partner, %d statuses changed\n",
		r.Customers, r.Rows, r.Matched, r.Updated)
	names := make([]string, 0, len(r.Statuses))
	for name := range r.Statuses {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(s.Stdout, "  %-12s %d\n", printable.Line(name, mostOfLine), r.Statuses[name])
	}
	if r.Partial != nil {
		fmt.Fprintf(s.Stdout, "the list was read in part (%s): rows that are not in it are not counted as missing\n",
			console.Line(r.Partial))
	}
	if r.Ahead > 0 {
		fmt.Fprintf(s.Stdout, "%d rows that are not onboarded here are past initiating there: "+
			"import them again to settle them\n", r.Ahead)
	}
	if r.Fallen > 0 {
		err = errors.Join(err, fmt.Errorf("%d onboarded rows have a customer that is initiating or rejected at the partner",
			r.Fallen))
	}
	if r.Odd > 0 {
		err = errors.Join(err, fmt.Errorf("%d customers have a status that the partner does not document", r.Odd))
	}
	if r.Missing > 0 {
		err = errors.Join(err, fmt.Errorf("%d onboarded rows are not in the partner's list", r.Missing))
	}
	return console.Coded(console.ExitRowsBad, err)
}
