package consumecmd

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
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
	"github.com/purser-onboard/purser/printable"
)

// redriveBatch is how many dead letters are put back at once.
const redriveBatch = 500

// redrive puts dead letters back into the work topic, and into no other, whatever their headers name. Without a choice
// of reason or time each is put back once: how far that came is remembered as the position of a group of its own. A
// dead letter that cannot be put back (with a message key, also one that is not authentic) is named; the others are put
// back all the same. A copy of it is appended to the dead letters before the position passes it, so that each redrive
// reports it until it can be put back, or --forget is given.
func redrive(ctx context.Context, c *config.ConsumerCommands, s Streams) (err error) {
	all := c.Redrive.Reason == "" && c.Redrive.Since == ""
	if c.Redrive.Forget && !all {
		return &config.Error{Setting: "--forget", Problem: "is for all dead letters, not for those of --reason or --since"}
	}
	keys, err := c.MessageKeys()
	if err != nil {
		return err
	}
	log := console.NewLogger(s.Stderr, c.LogFormat, c.LogLevel)
	q, err := queue.Open(ctx, c.Queue, log, c.Topic, c.DeadLetterTopic)
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
	group := redriveGroup(&c.Consumer)
	position := group
	if !all {
		position = group + "-never-committed" // a choice looks at all that there is
	}
	commits := all && !c.Redrive.DryRun
	r := redriving{
		publisher: q.Publisher(), log: log, work: c.Topic, dead: c.DeadLetterTopic, keys: keys,
		copies: commits && !c.Redrive.Forget, looked: map[[sha256.Size]byte]bool{},
	}
	var chosen int
	ends, err := q.Scan(ctx, c.DeadLetterTopic, position, func(m pipeline.Message) error {
		if r.again(m) {
			return nil
		}
		d, err := pipeline.ReadDeadLetter(m)
		if err != nil {
			return r.leave(ctx, m, err.Error())
		}
		if !strings.Contains(d.Class+": "+d.Reason, c.Redrive.Reason) || m.Time.Before(since) {
			return nil
		}
		if problem := r.problem(d); problem != "" {
			return r.leave(ctx, m, problem)
		}
		chosen++
		switch {
		case c.Redrive.DryRun && c.Redrive.JSON():
			r.listed = append(r.listed, listedLetter{Where: d.Where, Class: d.Class, Reason: d.Reason})
			return nil
		case c.Redrive.DryRun:
			fmt.Fprintf(s.Stdout, "%s  %s: %s\n", d.Where, d.Class, d.Reason)
			return nil
		}
		return r.put(ctx, d)
	})
	if err == nil {
		err = errors.Join(r.flush(ctx), r.flushCopies(ctx))
	}
	if err != nil {
		return err
	}
	if commits {
		if err := q.CommitScan(ctx, c.DeadLetterTopic, group, ends); err != nil {
			return err
		}
	}
	return r.conclude(chosen, c, s)
}

// redriveGroup is the group whose position in the dead letters is that of the redrives.
func redriveGroup(c *config.Consumer) string { return c.Group + "-redrive" }

// conclude prints the result, and returns the error with its exit code.
func (r *redriving) conclude(chosen int, c *config.ConsumerCommands, s Streams) error {
	verb, forgotten := "put back", ""
	d := redriven{
		Looked: len(r.looked), PutBack: chosen - r.tooLarge, Left: r.left, DryRun: c.Redrive.DryRun, Letters: r.listed,
	}
	switch {
	case c.Redrive.DryRun:
		verb = "would be put back"
	case c.Redrive.Forget:
		forgotten = fmt.Sprintf(", %d forgotten", r.left)
		d.Left, d.Forgotten = 0, r.left
	}
	if c.Redrive.JSON() {
		if err := console.WriteJSON(s.Stdout, d); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(s.Stdout, "%s examined, %d %s%s\n",
			printable.Count(d.Looked, "dead letter", "dead letters"), d.PutBack, verb, forgotten)
	}
	if r.left == 0 || forgotten != "" {
		return nil
	}
	return console.Coded(console.ExitRowsBad, fmt.Errorf("%s of %s cannot be put back and %s there, see "+
		"above: fix the cause and run this again, or use --forget",
		printable.Count(r.left, "message", "messages"), r.dead, printable.Plural(r.left, "stays", "stay")))
}

// redriven is the JSON document of `consumer redrive`. The field names are a contract.
type redriven struct {
	Looked    int            `json:"lookedAt"`
	PutBack   int            `json:"putBack"` // with dryRun: what would be put back
	Left      int            `json:"left"`    // cannot be put back, and stay
	Forgotten int            `json:"forgotten"`
	DryRun    bool           `json:"dryRun"`
	Letters   []listedLetter `json:"letters,omitempty"` // with dryRun
}

type listedLetter struct {
	Where  string `json:"where"`
	Class  string `json:"class"`
	Reason string `json:"reason"`
}

// redriving is the state of a redrive.
type redriving struct {
	publisher  pipeline.Publisher
	log        *slog.Logger
	work, dead string            // topics
	keys       *messageauth.Keys // of the work topic's messages; nil: they are not authenticated
	batch      []pipeline.DeadLetter
	listed     []listedLetter             // of a dry run, for its document
	copies     bool                       // of what stays are made
	stay       []pipeline.Message         // to be copied
	looked     map[[sha256.Size]byte]bool // see again
	left       int                        // dead letters that stay
	tooLarge   int                        // the part of left that was found too large when it was put back
}

// again reports whether the same dead letter, as its copy or as the original, was looked at in this run: they are alike
// to the last byte of key, value and headers, which name the place of the original message. Both are there in a choice,
// and after a redrive that made the copy and was interrupted before it could commit its position.
func (r *redriving) again(m pipeline.Message) bool {
	h := sha256.New()
	part := func(b []byte) {
		length := int64(len(b))
		if b == nil {
			length = -1
		}
		_ = binary.Write(h, binary.BigEndian, length) // a hash takes all
		h.Write(b)
	}
	part(m.Key)
	part(m.Value)
	for _, header := range m.Headers {
		part([]byte(header.Key))
		part(header.Value)
	}
	id := [sha256.Size]byte(h.Sum(nil))
	if r.looked[id] {
		return true
	}
	r.looked[id] = true
	return false
}

// leave logs why a dead letter stays, and has it copied.
func (r *redriving) leave(ctx context.Context, m pipeline.Message, reason string) error {
	r.left++
	r.log.Warn("cannot put a dead letter back; it stays", "partition", m.Partition, "offset", m.Offset,
		"reason", reason)
	if !r.copies {
		return nil
	}
	if r.stay = append(r.stay, m); len(r.stay) < redriveBatch {
		return nil
	}
	return r.flushCopies(ctx)
}

// flushCopies appends what stays to the dead letters, behind the end of this scan. Its time stays, too, so that the
// topic's retention counts from when it became a dead letter.
func (r *redriving) flushCopies(ctx context.Context) error {
	stay := r.stay
	r.stay = nil
	if err := r.publisher.Publish(ctx, r.dead, stay); err != nil {
		return fmt.Errorf("keep dead letters that cannot be put back (the next redrive examines all again): %w", err)
	}
	return nil
}

// problem returns why a dead letter cannot be put back; empty if it can. Any writer of the dead-letter topic chooses
// the headers, so they do not decide where this command writes.
func (r *redriving) problem(d pipeline.DeadLetter) string {
	switch {
	case d.Truncated:
		return "it was truncated because it was too large for its topic: import the row again from its source"
	case d.Topic != r.work:
		return fmt.Sprintf("its header %s names the topic %q, and only dead letters of --topic %q are put back",
			pipeline.HeaderTopic, d.Topic, r.work)
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
	err := r.publisher.Publish(ctx, r.work, messages)
	if !errors.As(err, new(*broker.TooLargeError)) {
		return err
	}
	for i, d := range letters {
		err := r.publisher.Publish(ctx, r.work, messages[i:i+1])
		if errors.As(err, new(*broker.TooLargeError)) {
			r.tooLarge++
			err = r.leave(ctx, d.Message, err.Error())
		}
		if err != nil {
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
