package consuming

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

// follow has the ledger follow its partitions, if there is a topic for that, and returns where the rows of an account
// have to be then; nil without a topic.
func follow(
	ctx context.Context, c *config.Consumer, q *queue.Queue, consumer *broker.Consumer, book *ledger.Ledger,
) (partition func(pipeline.Account) int, err error) {
	if c.LedgerTopic == "" {
		return nil, nil
	}
	partitions, err := q.CheckLedgerTopic(ctx, c.Topic, c.LedgerTopic)
	if err != nil {
		return nil, err
	}
	log := consumer.Changelog(c.LedgerTopic, partitions)
	book.Follow(log)
	return func(a pipeline.Account) int { return log.Partition(a.String()) }, nil
}

// restoring returns what is done with a partition that has become ours, nil without a topic of ledgers.
func restoring(
	c *config.Consumer, book *ledger.Ledger, restored func(), log *slog.Logger,
) func(context.Context, int) error {
	if c.LedgerTopic == "" {
		return nil
	}
	return func(ctx context.Context, partition int) error {
		begun := time.Now()
		r, err := book.Restore(ctx, partition)
		if err == nil {
			restored()
			log.Info("the ledger of a partition is up to date", "partition", partition, "from", r.From, "to", r.To,
				"records", r.Records, "newer", r.Newer, "added", r.Added, "took", time.Since(begun).Round(time.Millisecond))
		}
		return err
	}
}
