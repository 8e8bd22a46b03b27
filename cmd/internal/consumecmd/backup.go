package consumecmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/outfile"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/printable"
)

// backup copies the ledger into a file that is whole and checked, or is not there.
func backup(ctx context.Context, c *config.Consumer, b config.LedgerBackup, s Streams) error {
	refused := func(problem string) error {
		return console.Coded(console.ExitUsage, fmt.Errorf("backup %s: %s", b.File, problem))
	}
	if b.File == "" { // such as a variable of a script that is not set
		return console.Coded(console.ExitUsage, errors.New("backup: the file name is empty"))
	}
	if _, err := os.Stat(filepath.Dir(b.File)); errors.Is(err, fs.ErrNotExist) {
		return refused("the directory does not exist: create it, or mount its disk")
	}
	there, err := os.Stat(b.File)
	switch {
	case ledger.OwnFile(c.Ledger, b.File):
		return refused("is a file of the ledger itself: choose another name")
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return console.Unusable(fmt.Errorf("backup %s: %w", b.File, err))
	case !there.Mode().IsRegular():
		return refused("is not a regular file: choose another name")
	case !b.Force:
		return refused("already exists: choose another name, or overwrite it with --force")
	}
	if err := outfile.Replaces(b.File, "a ledger", ledger.IsLedger); err != nil { // --force is for earlier backups
		return refused("is not a ledger: choose another name, or move the file away")
	}
	if _, err := os.Stat(c.Ledger); errors.Is(err, fs.ErrNotExist) {
		return noLedger(c)
	}
	file, err := outfile.Create(b.File)
	if err != nil {
		return console.Unusable(fmt.Errorf("backup %s: %w", b.File, err))
	}
	defer file.Discard()
	made, err := ledger.WriteBackup(ctx, c.Ledger, file.Name())
	if err != nil {
		return console.Unusable(coded(fmt.Errorf("backup %s: %w", b.File, err)))
	}
	commit := file.CommitNew
	if b.Force {
		commit = file.Commit
	}
	switch err := commit(); {
	case errors.Is(err, fs.ErrExist):
		return refused("another process has just created it: choose another name, or overwrite it with --force")
	case err != nil:
		return console.Unusable(fmt.Errorf("backup: %w", err))
	}
	fmt.Fprintln(s.Stdout, printable.Line(fmt.Sprintf("backup %s: %s, %d bytes, checked", b.File, contents(made.Summary),
		made.Bytes), mostOfLine))
	return nil
}

// contents describes the contents of a ledger.
func contents(l ledger.Summary) string {
	last := "no change yet"
	if !l.LastChange.IsZero() {
		last = "last change " + l.LastChange.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s, %s, API %s, key id %s", printable.Count(l.Rows, "row", "rows"), last,
		l.Environment.API(), l.Environment.APIKeyID)
}

// coded gives an error of the ledger its exit code, if another attempt cannot succeed.
func coded(err error) error {
	if ledger.SetUp(err) {
		return console.Coded(console.ExitUsage, err)
	}
	return err
}
