package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
)

// CheckLedgerTopic makes sure that the topic of the ledgers is there, with --create-topics makes it, and that it can
// serve: with as many partitions as the topic of the rows, which it returns, and compacted, so that nothing in it is
// deleted by age.
func (q *Queue) CheckLedgerTopic(ctx context.Context, rows, ledgers string) (partitions int, err error) {
	counts, err := q.cluster.Check(ctx, rows)
	if err != nil {
		return 0, err
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
	settings, err := q.cluster.TopicConfig(ctx, ledgers, "cleanup.policy")
	var denied *broker.DeniedError
	switch {
	case errors.As(err, &denied):
		q.log.Warn("whether the ledger topic is compacted cannot be seen; it must be, or ledgers are lost when it is cleaned",
			"topic", ledgers, "error", err)
	case err != nil:
		return 0, err
	case strings.TrimSpace(settings["cleanup.policy"]) != "compact":
		return 0, wrongLedgerTopic(ledgers, fmt.Sprintf("has cleanup.policy=%s: want compact alone, or the broker deletes "+
			"what the ledgers need", settings["cleanup.policy"]))
	}
	return partitions, nil
}

// Ledgers returns the topic of the ledgers for reading only.
func (q *Queue) Ledgers(topic string, partitions int) *broker.Changelog {
	return q.cluster.Changelog(topic, partitions)
}

// WrongPartitions says that the topic of the ledgers has not as many partitions as that of the rows.
func WrongPartitions(ledgers string, have int, rows string, want int) error {
	return wrongLedgerTopic(ledgers, fmt.Sprintf("has %d partitions, but topic %s of the rows has %d: a partition's "+
		"ledger moves with its rows, so there must be as many", have, rows, want))
}

func wrongLedgerTopic(topic, problem string) error {
	return console.Coded(console.ExitUsage, &config.Error{Setting: "--ledger-topic", Value: topic, Problem: problem})
}
