package consumecmd

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// dismiss marks the rows of a file as dealt with, or removes the mark. Rows that cannot be marked are named, and the
// others are marked all the same.
func dismiss(ctx context.Context, c *config.Consumer, o config.Dismiss, s Streams) (err error) {
	in := io.Reader(os.Stdin)
	if o.File != "-" {
		file, err := os.Open(o.File)
		if err != nil {
			return console.Coded(console.ExitUsage, fmt.Errorf("dismiss: %w", err))
		}
		defer file.Close()
		in = file
	}
	rows, err := readRows(in, o.File)
	if err != nil {
		return console.Coded(console.ExitUsage, fmt.Errorf("dismiss: %w", err))
	}
	bound, err := openReader(ctx, c)
	if err != nil {
		return err
	}
	environment, err := bound.Environment(ctx)
	if err := errors.Join(err, bound.Close()); err != nil {
		return err
	}
	book, err := ledger.Open(ctx, ledger.Options{
		Path: c.Ledger, Environment: environment, Now: time.Now, Program: config.Program(), Changelog: c.LedgerTopic,
		Logger: console.NewLogger(s.Stderr, c.LogFormat, c.LogLevel),
	})
	if err != nil {
		return console.Unusable(coded(err))
	}
	defer closing(&err, "ledger", book.Close)
	problems, err := book.Dismiss(ctx, rows, o.Undo)
	if err != nil {
		return fmt.Errorf("dismiss: %w", err)
	}
	left := 0
	for i, problem := range problems {
		if problem != nil {
			left++
			fmt.Fprintln(s.Stderr, printable.Line(fmt.Sprintf("%s: %v", rows[i].Where(), problem), mostOfLine))
		}
	}
	what := "dismissed"
	if o.Undo {
		what = "no longer dismissed"
	}
	fmt.Fprintf(s.Stdout, "%s %s\n", printable.Count(len(rows)-left, "row is", "rows are"), what)
	if left > 0 {
		return console.Coded(console.ExitRowsBad, fmt.Errorf("%s unchanged: the lines above say why",
			printable.Count(left, "row was left", "rows were left")))
	}
	return nil
}

// readRows reads the CSV that failures prints. Only address, externalId and chainId are used; the other columns may be
// missing. A row that is wrong fails the whole file.
func readRows(in io.Reader, name string) ([]pipeline.Row, error) {
	r := csv.NewReader(in)
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s is empty", name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var at [3]int
	for i, column := range []string{"address", "externalId", "chainId"} {
		if at[i] = slices.Index(header, column); at[i] < 0 {
			return nil, fmt.Errorf("%s has no column %s: want CSV as `consumer failures` prints it", name, column)
		}
	}
	var rows []pipeline.Row
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		line, _ := r.FieldPos(0)
		row := pipeline.Row{File: name, Line: line, ExternalID: record[at[1]]}
		if row.Account, err = pipeline.ParseAccount(record[at[2]] + ":" + record[at[0]]); err == nil {
			err = pipeline.CheckExternalID(row.ExternalID)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, line, err)
		}
		rows = append(rows, row)
	}
}
