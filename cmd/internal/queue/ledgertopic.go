package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/printable"
)

// CheckLedgerTopic checks that the ledger topic exists, has as many partitions as the work topic, and is compacted, so
// that no records are deleted by age. With --create-topics it creates the topic if it is missing. It returns the number
// of partitions.
func (q *Queue) CheckLedgerTopic(ctx context.Context, rows, ledgers string) (partitions int, err error) {
	counts, err := q.Check(ctx, rows)
	if err != nil {
		return 0, Coded(err)
	}
	partitions = counts[rows]
	if q.topics != nil {
		if err := q.create(ctx, q.topics.ledger(ledgers, partitions)); err != nil {
			return 0, err
		}
	}
	counts, err = q.check(ctx, ledgers)
	if err != nil {
		return 0, err
	}
	if n := counts[ledgers]; n != partitions {
		return 0, WrongPartitions(ledgers, n, rows, partitions)
	}
	settings, err := q.TopicConfig(ctx, ledgers, "cleanup.policy")
	var denied *broker.DeniedError
	switch {
	case errors.As(err, &denied):
		q.log.Warn("cannot verify cleanup.policy=compact of the ledger topic (missing DescribeConfigs permission); with "+
			"another policy ledgers are lost", "topic", ledgers, "error", err)
	case err != nil:
		return 0, err
	case strings.TrimSpace(settings["cleanup.policy"]) != "compact":
		return 0, wrongLedgerTopic(ledgers, fmt.Sprintf("has cleanup.policy=%s: set only compact, or the broker deletes "+
			"records of the ledgers", settings["cleanup.policy"]))
	}
	return partitions, nil
}

// WrongPartitions returns the error of a ledger topic whose number of partitions differs from that of the work topic.
// It carries the exit code.
func WrongPartitions(ledgers string, have int, rows string, want int) error {
	return wrongLedgerTopic(ledgers, fmt.Sprintf("has %s, but topic %s of the rows has %d: create it with "+
		"as many, because a partition's ledger moves with its rows",
		printable.Count(have, "partition", "partitions"), rows, want))
}

func wrongLedgerTopic(topic, problem string) error {
	return console.Coded(console.ExitUsage, &config.Error{Setting: "--ledger-topic", Value: topic, Problem: problem})
}
