package consumecmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/csvimport"
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
	rows, err := readRows(until(ctx, in), o.File)
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
		Path: c.Ledger, Environment: environment, Now: time.Now, Program: config.Program(), KeepPositions: true,
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
	const most = 20
	left := 0
	for i, problem := range problems {
		if problem == nil {
			continue
		}
		if left++; left <= most {
			fmt.Fprintln(s.Stderr, printable.Line(fmt.Sprintf("%s: %v", rows[i].Where(), problem), mostOfLine))
		}
	}
	what := "dismissed"
	if o.Undo {
		what = "no longer dismissed"
	}
	fmt.Fprintf(s.Stdout, "%s %s\n", printable.Count(len(rows)-left, "row is", "rows are"), what)
	if left > 0 {
		return console.Coded(console.ExitRowsBad, fmt.Errorf("%s unchanged: the lines above say why, of the first %d",
			printable.Count(left, "row was left", "rows were left"), min(left, most)))
	}
	return nil
}

// until passes on what r reads until ctx ends, also when a read blocks, as that of a terminal does.
func until(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	go func() {
		_, err := io.Copy(in, r)
		in.CloseWithError(err) // nil is io.EOF
	}()
	context.AfterFunc(ctx, func() { in.CloseWithError(ctx.Err()) })
	return out
}

// readRows reads the rows of a file as an import does, each once. Columns other than address, externalId and chainId
// are ignored. An invalid row fails the whole file.
func readRows(in io.Reader, name string) ([]pipeline.Row, error) {
	file, err := csvimport.NewReader(csvimport.Input{Reader: in}, csvimport.Options{Name: name})
	var header *csvimport.HeaderError
	if errors.As(err, &header) && strings.Contains(header.Reason, "--columns") { // a flag of the importer
		err = fmt.Errorf("%s: want CSV with address, externalId and chainId, as `consumer failures` prints it", name)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	type pair struct {
		account    pipeline.Account
		externalID string
	}
	seen := make(map[pair]bool)
	var rows []pipeline.Row
	for {
		row, reject, err := file.Read()
		switch {
		case errors.Is(err, io.EOF):
			return rows, nil
		case err != nil:
			return nil, err
		case reject != nil:
			return nil, fmt.Errorf("%s:%d: %s; no row of the file was changed", reject.File, reject.Line, reject.Reason)
		}
		if p := (pair{row.Account, row.ExternalID}); !seen[p] {
			seen[p] = true
			rows = append(rows, row)
		}
	}
}
