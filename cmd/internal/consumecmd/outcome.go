package consumecmd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/queue"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/signer"
)

// unanswered returns an error if rows wait for a custodian whose polls fail and who is out of reach: that is an outage,
// and not for a person to decide.
func unanswered(ctx context.Context, backend signer.Backend, waiting []pipeline.Record) error {
	if !slices.ContainsFunc(waiting, func(r pipeline.Record) bool { return r.Reason != "" }) {
		return nil
	}
	if _, err := backend.Check(ctx); err != nil {
		return console.Coded(console.ExitUnfinished, fmt.Errorf("%s waiting for the custodian, but polls fail; "+
			"the signer's check: %w; open rows stay in the queue: run again when the custodian is back",
			printable.Count(len(waiting), "row is", "rows are"), err))
	}
	return nil
}

// stranded returns an error if the ledger holds unsettled rows after all messages have been taken that this consumer
// can have been given: no later run would be given them, because their offsets are committed. The ledger has lost that
// they were settled. Rows that wait for the custodian have their messages. On a Kafka cluster without a ledger topic,
// or with partitions at other consumers, the rows may be settled elsewhere: that is a warning.
func (r *run) stranded(t pipeline.Tally) error {
	n, err := r.ledger.Unsettled(r.hard)
	if n -= t.Waiting; err != nil || n <= 0 {
		return err
	}
	if !r.c.Embedded() && (r.c.LedgerTopic == "" || !r.share.whole()) {
		r.log.Warn("the queue is empty, but this ledger has unsettled rows; another consumer may have settled them, "+
			"otherwise import their export again", "rows", n, "ledger", r.ledger.Path())
		return nil
	}
	return fmt.Errorf("the queue is empty, but ledger %s has %s that no message will deliver "+
		"(was the ledger damaged or restored?): import their export again, then run again; "+
		"`consumer failures --all` lists them", r.ledger.Path(), printable.Count(n, "unsettled row", "unsettled rows"))
}

// classify adds the exit code to the error that ended the run.
func classify(c *config.Consumer, err error) error {
	var halt *onboard.HaltError
	switch {
	case err == nil, errors.As(err, new(*console.CodedError)):
		return err
	case errors.As(err, &halt) && halt.SetUp(), errors.As(err, new(*ledger.SnapshotError)):
		return console.Coded(console.ExitUsage, err)
	case broker.SessionRefused(err):
		return console.Coded(console.ExitUsage, &config.Error{
			Setting: "--kafka-session-timeout", Value: c.SessionTimeout.String(), Problem: "the brokers do not allow it: " +
				"want group.min.session.timeout.ms (6s by default) to group.max.session.timeout.ms (30m)",
		})
	}
	if errors.As(err, &halt) && halt.Class != onboard.HaltLedger { // only the ledger's may be a broker's error
		return console.Coded(console.ExitUnfinished, err)
	}
	return queue.Coded(err)
}

// partnerExit is the exit code of a command that the partner kept from its end: 2 where a setting has to be changed.
func partnerExit(err error) int {
	var failure *client.Error
	if errors.As(err, &failure) && !failure.Passing() {
		return console.ExitUsage
	}
	return console.ExitUnfinished
}
