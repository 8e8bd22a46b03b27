package consumecmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/printable"
)

// rebind binds the ledger to the API key id of the settings. from is an earlier id that it may not know; with it, a
// ledger that is not there is made.
func rebind(ctx context.Context, c *config.Consumer, from string, s Streams) (err error) {
	if c.APIURL == "" || c.APIKey == "" {
		return &config.Error{Setting: "rebind", Problem: "needs --api-url and --api-key (the id to bind to)"}
	}
	base, err := c.CheckURL()
	if err != nil {
		return err
	}
	if _, err := os.Stat(c.Ledger); errors.Is(err, fs.ErrNotExist) && from == "" {
		return console.Coded(console.ExitUsage, fmt.Errorf("there is no ledger at %s: a new one needs no rebind, "+
			"unless it is for a fleet whose --ledger-topic holds records of an earlier API key id: give that with --from",
			c.Ledger))
	}
	options := ledger.Options{
		Path: c.Ledger, Environment: environment(c, base),
		CanonicalHost: canonicalHost(base), Rebind: true, Now: time.Now, Program: config.Program(),
		Changelog: c.LedgerTopic, Logger: console.NewLogger(s.Stderr, c.LogFormat, c.LogLevel),
	}
	if from != "" {
		options.EarlierKeyIDs = []string{from}
	}
	begun := time.Now().Truncate(time.Microsecond) // as exact as the ledger is
	book, err := ledger.Open(ctx, options)
	if err != nil {
		return coded(err)
	}
	defer closing(&err, "ledger", book.Close)
	bindings, err := book.Bindings(ctx)
	if err != nil {
		return err
	}
	last := len(bindings) - 1
	if bindings[last].Since.Before(begun) {
		fmt.Fprintf(s.Stdout, "ledger %s is already bound to key id %s\n", c.Ledger, c.APIKey)
		return nil
	}
	counts, err := book.Counts(ctx)
	if err != nil {
		return err
	}
	var open int64
	for _, n := range counts {
		if !n.Stage.Terminal() {
			open += n.Rows
		}
	}
	fmt.Fprintf(s.Stdout, "ledger %s, API %s: key id %s -> %s\n", c.Ledger, base.Host,
		bindings[max(0, last-1)].APIKeyID, c.APIKey)
	fmt.Fprintf(s.Stdout, "%d open %s: each is looked up at the partner before a key is opened for it under the "+
		"new id\n", open, printable.Plural(open, "row", "rows"))
	return nil
}
