package consumecmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/queue"
	"github.com/purser-onboard/purser/ledger"
)

// fleetBook is a ledger of its own, read from the ledger topic and thrown away when it is closed.
type fleetBook struct {
	*ledger.Ledger
	dir string
}

// openFleet reads the ledger topic's present records. It joins no group and writes nothing there.
func openFleet(ctx context.Context, c *config.Consumer, s Streams) (_ *fleetBook, err error) {
	if c.LedgerTopic == "" {
		return nil, &config.Error{Setting: "--fleet", Problem: "needs --ledger-topic: without it each consumer knows only " +
			"its own rows, and the results topic is the view of the fleet"}
	}
	if c.APIURL == "" || c.APIKey == "" {
		return nil, &config.Error{Setting: "--fleet",
			Problem: "needs --api-url and --api-key: the ledger topic belongs to one of each"}
	}
	base, err := c.CheckURL()
	if err != nil {
		return nil, err
	}
	log := console.NewLogger(s.Stderr, c.LogFormat, c.LogLevel)
	keys, err := c.LedgerTopicKeys()
	if err != nil {
		return nil, err
	}
	there := c.Queue
	there.CreateTopics = false // a read-only command creates nothing
	q, err := queue.Open(ctx, there, log, c.Topic, c.LedgerTopic)
	if err != nil {
		return nil, err
	}
	defer closing(&err, "broker", q.Close)
	partitions, err := q.CheckLedgerTopic(ctx, c.Topic, c.LedgerTopic)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "purser-fleet-") // with mode 0700
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	book, err := ledger.Open(ctx, ledger.Options{
		Path:        filepath.Join(dir, "ledger.db"),
		Environment: environment(c, base), CanonicalHost: canonicalHost(base),
		EarlierKeyIDs: earlierKeyIDs(ctx, c.Ledger),
		Now:           time.Now, Changelog: c.LedgerTopic, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, book.Abandon)() // nothing of it is kept
	err = book.Follow(q.Changelog(c.LedgerTopic, partitions), keys)
	if err == nil {
		err = book.CheckChangelog(ctx, partitions)
	}
	var restored []ledger.Restored
	if err == nil {
		every := make([]int, partitions)
		for p := range every {
			every[p] = p
		}
		restored, err = book.Restore(ctx, every)
	}
	records, ignored := 0, 0
	for _, r := range restored {
		records += r.Records
		ignored += r.Ignored
	}
	if err == nil && records > 0 && ignored == records {
		err = &config.Error{Setting: "--ledger-topic", Value: c.LedgerTopic, Problem: fmt.Sprintf("none of its %d records "+
			"can be used, see the warnings: check --ledger-topic-key-file, --api-url and --api-key", records)}
	}
	if err != nil {
		return nil, errors.Join(classify(c, err), book.Close())
	}
	if ignored > 0 {
		log.Warn("left out unusable records of the ledger topic", "topic", c.LedgerTopic,
			"records", ignored)
	}
	return &fleetBook{book, dir}, nil
}

// earlierKeyIDs are those that this consumer's own ledger knows, none if it has no ledger that can be read.
func earlierKeyIDs(ctx context.Context, path string) []string {
	book, err := ledger.OpenReadOnly(ctx, path)
	if err != nil {
		return nil
	}
	defer book.Close()
	bindings, err := book.Bindings(ctx)
	if err != nil {
		return nil
	}
	ids := make([]string, 0, len(bindings))
	for _, b := range bindings {
		ids = append(ids, b.APIKeyID)
	}
	return ids
}

// Close removes it.
func (b *fleetBook) Close() error { return errors.Join(b.Ledger.Close(), os.RemoveAll(b.dir)) }
