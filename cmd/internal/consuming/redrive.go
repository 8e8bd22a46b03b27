package consuming

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/queue"
	"github.com/purser-onboard/purser/pipeline"
)

// redriveBatch is how many dead letters are put back at once.
const redriveBatch = 500

// redrive puts dead letters back into the topics they came from. Without a choice of reason or time all of them are
// put back, once: what was is remembered as the position of a group of its own.
func redrive(ctx context.Context, c *config.ConsumerCommands, s Streams) (err error) {
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
	var seen, chosen, foreign int
	batches := map[string][]pipeline.Message{}
	flush := func(topic string) error {
		if len(batches[topic]) == 0 || c.Redrive.DryRun {
			batches[topic] = nil
			return nil
		}
		if err := q.Publisher().Publish(ctx, topic, batches[topic]); err != nil {
			return err
		}
		batches[topic] = nil
		return nil
	}
	ends, err := q.Scan(ctx, c.DeadLetterTopic, position, func(m pipeline.Message) error {
		seen++
		d, err := pipeline.ReadDeadLetter(m)
		if err != nil {
			foreign++
			log.Warn("left where it is", "reason", err.Error())
			return nil
		}
		fits := strings.Contains(d.Class+": "+d.Reason, c.Redrive.Reason) && !m.Time.Before(since)
		if !fits {
			return nil
		}
		chosen++
		if c.Redrive.DryRun {
			fmt.Fprintf(s.Stdout, "%s  %s: %s\n", d.Where, d.Class, d.Reason)
			return nil
		}
		batches[d.Topic] = append(batches[d.Topic], d.Again())
		if len(batches[d.Topic]) >= redriveBatch {
			return flush(d.Topic)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for topic := range batches {
		if err := flush(topic); err != nil {
			return err
		}
	}
	verb := "put back"
	if c.Redrive.DryRun {
		verb = "would be put back"
	} else if all {
		if err := q.CommitScan(ctx, c.DeadLetterTopic, group, ends); err != nil {
			return err
		}
	}
	fmt.Fprintf(s.Stdout, "%d dead letters looked at, %d %s\n", seen, chosen, verb)
	if foreign > 0 {
		return console.Coded(console.ExitRowsBad,
			fmt.Errorf("%d messages of %s are not dead letters of ours", foreign, c.DeadLetterTopic))
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
