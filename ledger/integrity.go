package ledger

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// defaultCheckFirst is a tenth of a second's reading.
const defaultCheckFirst = 64 << 20

// check checks a ledger that exists before it is used: after a crash, before a migration, when its schema is not the
// newest, and if it is small. It reports whether a check has still to be made.
func (l *Ledger) check(ctx context.Context, o Options, newest bool) (later bool, err error) {
	clean, err := readMeta(ctx, l.conn, metaClean)
	if err != nil {
		return false, err
	}
	if clean == "1" {
		info, err := os.Stat(l.path)
		if err != nil {
			return false, err
		}
		if newest && info.Size() > o.CheckFirst {
			return true, nil
		}
		return false, checkIntegrity(ctx, l.conn, l.path, "quick_check")
	}
	begun := o.Now()
	if err := checkIntegrity(ctx, l.conn, l.path, "integrity_check"); err != nil {
		return false, err
	}
	l.log.Info("the last run did not close the ledger; checked it and found no damage",
		"path", l.path, "took", o.Now().Sub(begun).Round(time.Millisecond))
	return false, nil
}

// checkIntegrity reads the whole file. PRAGMA quick_check checks the structure of tables and indexes, integrity_check
// also that every index matches its table, which takes about twice as long.
func checkIntegrity(ctx context.Context, db source, path, pragma string) error {
	var answer string
	if err := db.QueryRowContext(ctx, "PRAGMA "+pragma+"(1)").Scan(&answer); err != nil {
		return err
	}
	if answer != "ok" {
		return &corruptError{Path: path, Detail: strings.TrimSpace(strings.ReplaceAll(answer, "\n", " "))}
	}
	return nil
}

// checking is the check of a ledger that is in use. SQLite finds damage in a page when it reads the page, too; the
// check finds it in those that no row needs yet.
type checking struct {
	cancel context.CancelFunc
	done   chan struct{}
	damage atomic.Pointer[error] // what it found; nil: nothing, or not yet
}

// checkLater begins to check the structure of a ledger that is in use.
func (l *Ledger) checkLater(ctx context.Context, o Options) *checking {
	ctx, cancel := context.WithCancel(ctx)
	c := &checking{cancel: cancel, done: make(chan struct{})}
	l.log.Info("the ledger is large: its structure is checked while it is used", "path", l.path)
	go func() {
		defer close(c.done)
		db := openDB(l.path, "ro", readerPragmas()...)
		defer db.Close()
		begun := o.Now()
		err := checkIntegrity(ctx, db, l.path, "quick_check")
		if err != nil {
			err = translate(l.path, err)
		}
		switch {
		case errors.As(err, new(*corruptError)):
			l.log.Error("the ledger is damaged; this run stops using it", "error", err)
			c.damage.Store(&err)
			l.writer.suspect.Store(true)
		case ctx.Err() != nil:
		case err != nil:
			l.log.Warn("cannot check the ledger's structure", "path", l.path, "error", err)
		default:
			l.log.Info("checked the ledger's structure and found no damage",
				"path", l.path, "took", o.Now().Sub(begun).Round(time.Millisecond))
		}
	}()
	return c
}

// end ends the check if it goes on. It may be called on nil.
func (c *checking) end() {
	if c != nil {
		c.cancel()
		<-c.done
	}
}

// found returns the damage that was found. It may be called on nil.
func (c *checking) found() error {
	if c == nil {
		return nil
	}
	if err := c.damage.Load(); err != nil {
		return *err
	}
	return nil
}
