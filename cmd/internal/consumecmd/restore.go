package consumecmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/printable"
)

// restore replaces the ledger with a backup, and reports the consequences for rows that have changed since.
func restore(ctx context.Context, c *config.Consumer, o config.LedgerRestore, s Streams) error {
	r, err := ledger.RestoreBackup(ctx, ledger.RestoreOptions{
		Path: c.Ledger, Backup: o.File, Force: o.Force, Now: time.Now,
	})
	var placed *ledger.PlacedError
	switch {
	case errors.As(err, &placed): // what is said below holds all the same
	case errors.As(err, new(*ledger.NewerError)), errors.As(err, new(*ledger.IncomparableError)),
		errors.As(err, new(*ledger.BackupError)):
		return console.Coded(console.ExitUsage, fmt.Errorf("restore: %w", err))
	case err != nil: // an interruption, too: the ledger is as it was
		return console.Unusable(coded(fmt.Errorf("restore: %w", err)))
	}
	say := func(format string, args ...any) {
		fmt.Fprintln(s.Stdout, printable.Line(fmt.Sprintf(format, args...), mostOfLine))
	}
	say("ledger %s: restored from %s: %s", c.Ledger, o.File, contents(r.Summary))
	switch {
	case r.Replaced != nil:
		say("the replaced ledger is kept as %s: %s; rows not in the backup: %d, changed since: %d", r.Kept,
			contents(*r.Replaced), r.Missing, r.Changed)
	case r.Kept != "":
		say("the replaced ledger, which cannot be read, is kept as %s", r.Kept)
	}
	since := "all exports"
	if !r.LastChange.IsZero() {
		since = "the exports that were imported, or had open rows, since " + r.LastChange.UTC().Format(time.RFC3339)
	}
	say("next: import %s again, then run. No customer is created twice: idempotency keys are derived from the "+
		"row, not from the ledger, and customers missing from this ledger are looked up at the partner", since)
	if placed != nil {
		return fmt.Errorf("restore: %w", placed)
	}
	return nil
}
