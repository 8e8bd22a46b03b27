package consumecmd

import (
	"context"
	"log/slog"
	"time"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/queue"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
)

// following is a ledger that follows its partitions by a topic.
type following struct {
	ledger *ledger.Ledger
	c      *config.Consumer
	log    *slog.Logger

	partitions int // of the ledger topic
	rows       int // partitions of the work topic, as the latest assignment has it
}

// follow has the ledger follow its partitions, if there is a topic for that, and returns where the rows of an account
// have to be then; nil without a topic.
func (f *following) follow(
	ctx context.Context, q *queue.Queue, consumer *broker.Consumer,
) (partition func(pipeline.Account) int, err error) {
	if f.c.LedgerTopic == "" {
		return nil, nil
	}
	keys, err := f.c.LedgerTopicKeys()
	if err != nil {
		return nil, err
	}
	if f.partitions, err = q.CheckLedgerTopic(ctx, f.c.Topic, f.c.LedgerTopic); err != nil {
		return nil, err
	}
	log := consumer.Changelog(f.c.LedgerTopic, f.partitions)
	if err := f.ledger.Follow(log, keys); err != nil {
		return nil, err
	}
	if err := f.ledger.CheckChangelog(ctx, f.partitions); err != nil {
		return nil, classify(f.c, err)
	}
	return func(a pipeline.Account) int { return log.Partition(a.String()) }, nil
}

// restore brings the ledger's rows of the partitions that have become ours up to date. It reports whether it has:
// without a ledger topic there is nothing to do.
func (f *following) restore(ctx context.Context, partitions []int) (restored bool, err error) {
	if f.c.LedgerTopic == "" {
		return false, nil
	}
	if f.rows != f.partitions { // partitions were added
		return false, queue.WrongPartitions(f.c.LedgerTopic, f.partitions, f.c.Topic, f.rows)
	}
	begun := time.Now()
	all, err := f.ledger.Restore(ctx, partitions)
	if err != nil {
		return false, err
	}
	for i, r := range all {
		f.log.Info("the ledger of a partition is up to date", "partition", partitions[i], "from", r.From, "to", r.To,
			"records", r.Records, "newer", r.Newer, "added", r.Added, "ignored", r.Ignored,
			"resigned", r.Resigned, "took", time.Since(begun).Round(time.Millisecond))
	}
	return true, nil
}
