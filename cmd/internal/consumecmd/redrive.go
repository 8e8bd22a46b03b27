package consumecmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/queue"
	"github.com/purser-onboard/purser/messageauth"
	"github.com/purser-onboard/purser/pipeline"
)

// redriveBatch is how many dead letters are put back at once.
const redriveBatch = 500

// redrive puts dead letters back into the work topic, and into no other, whatever their headers name. Without a choice
// of reason or time each is put back once: how far that came is remembered as the position of a group of its own. A
// dead letter that cannot be put back (with a message key, also one that is not authentic) stays where it is and is
// named; the others are put back all the same.
func redrive(ctx context.Context, c *config.ConsumerCommands, s Streams) (err error) {
	keys, err := c.MessageKeys()
	if err != nil {
		return err
	}
	log := console.NewLogger(s.Stderr, c.LogFormat, c.LogLevel)
	q, err := queue.Open(ctx, c.Queue, log)
	if err != nil {
		return err
	}
	defer closing(&err, "broker", q.Close)
	if err := q.CheckTopics(ctx, c.Topic, c.DeadLetterTopic); err != nil {
		return err
	}
	var since time.Time
	if c.Redrive.Since != "" {
		if since, err = sinceWhen(c.Redrive.Since, time.Now()); err != nil {
			return err
		}
	}
	group := c.Group + "-redrive"
	all := c.Redrive.Reason == "" && since.IsZero()
	position := group
	if !all {
		position = group + "-never-committed" // a choice looks at all that there is
	}
	r := redriving{publisher: q.Publisher(), log: log, topic: c.Topic, keys: keys}
	var seen, chosen int
	ends, err := q.Scan(ctx, c.DeadLetterTopic, position, func(m pipeline.Message) error {
		seen++
		d, err := pipeline.ReadDeadLetter(m)
		if err != nil {
			r.leave(m, err.Error())
			return nil
		}
		if !strings.Contains(d.Class+": "+d.Reason, c.Redrive.Reason) || m.Time.Before(since) {
			return nil
		}
		if problem := r.problem(d); problem != "" {
			r.leave(m, problem)
			return nil
		}
		chosen++
		if c.Redrive.DryRun {
			fmt.Fprintf(s.Stdout, "%s  %s: %s\n", d.Where, d.Class, d.Reason)
			return nil
		}
		return r.put(ctx, d)
	})
	if err != nil {
		return err
	}
	if err := r.flush(ctx); err != nil {
		return err
	}
	chosen -= r.tooLarge
	verb := "put back"
	if c.Redrive.DryRun {
		verb = "would be put back"
	} else if all {
		if err := q.CommitScan(ctx, c.DeadLetterTopic, group, ends); err != nil {
			return err
		}
	}
	fmt.Fprintf(s.Stdout, "%d dead letters looked at, %d %s\n", seen, chosen, verb)
	if r.left > 0 {
		return console.Coded(console.ExitRowsBad,
			fmt.Errorf("%d messages of %s cannot be put back and stay there; each is named above", r.left, c.DeadLetterTopic))
	}
	return nil
}

// redriving is what a redrive has at hand.
type redriving struct {
	publisher pipeline.Publisher
	log       *slog.Logger
	topic     string            // the work topic
	keys      *messageauth.Keys // of its messages; nil: they are not authenticated
	batch     []pipeline.DeadLetter
	left      int // dead letters that stay
	tooLarge  int // the part of left that was found too large when it was put back
}

// leave says why a message of the dead-letter topic stays there.
func (r *redriving) leave(m pipeline.Message, reason string) {
	r.left++
	r.log.Warn("a dead letter cannot be put back and stays", "partition", m.Partition, "offset", m.Offset,
		"reason", reason)
}

// problem says why a dead letter cannot be put back; empty if it can. The headers are the word of anybody who may write
// to the topic of the dead letters: they do not choose where this command writes.
func (r *redriving) problem(d pipeline.DeadLetter) string {
	switch {
	case d.Truncated:
		return "it was too large for its topic and is truncated: import the row again from its source"
	case d.Topic != r.topic:
		return fmt.Sprintf("its header %s names the topic %q, and only dead letters of --topic %q are put back",
			pipeline.HeaderTopic, d.Topic, r.topic)
	case r.keys != nil:
		again := d.Again()
		if err := r.keys.Verify(again); err != nil {
			return "it is not authentic: " + err.Error()
		}
	}
	return ""
}

func (r *redriving) put(ctx context.Context, d pipeline.DeadLetter) error {
	if r.batch = append(r.batch, d); len(r.batch) < redriveBatch {
		return nil
	}
	return r.flush(ctx)
}

// flush puts the collected dead letters back. Where one is too large, each is put back by itself: some may then be
// there twice, which the ledger finds.
func (r *redriving) flush(ctx context.Context) error {
	letters := r.batch
	r.batch = nil
	messages := make([]pipeline.Message, len(letters))
	for i, d := range letters {
		messages[i] = d.Again()
	}
	err := r.publisher.Publish(ctx, r.topic, messages)
	if !errors.As(err, new(*broker.TooLargeError)) {
		return err
	}
	for i, d := range letters {
		err := r.publisher.Publish(ctx, r.topic, messages[i:i+1])
		switch {
		case errors.As(err, new(*broker.TooLargeError)):
			r.tooLarge++
			r.leave(d.Message, err.Error())
		case err != nil:
			return err
		}
	}
	return nil
}

// sinceWhen reads a time, or a duration before now.
func sinceWhen(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, text, now.Location()); err == nil {
		return t, nil
	}
	return time.Time{}, &config.Error{Setting: "--since", Value: text,
		Problem: "want a duration (24h), a day (2026-11-22) or a time (RFC 3339)"}
}
