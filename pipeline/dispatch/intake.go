package dispatch

import (
	"context"
	"errors"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
)

// Take implements Handler.
func (d *Dispatcher) Take(ctx context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
	rows := make([]pipeline.Row, 0, len(batch))
	messages := make([]pipeline.Message, 0, len(batch))
	var dead []pipeline.Message
	for _, m := range batch {
		row, err := d.read(m)
		if err != nil && row.ExternalID != "" && d.Known != nil {
			known, failed := d.Known(ctx, row)
			switch {
			case failed != nil && ctx.Err() != nil:
				return ctx.Err()
			case failed != nil:
				return &onboard.HaltError{Class: onboard.HaltLedger, Row: row, Err: failed}
			case known: // an earlier version accepted it, and may have created its customer
				err = nil
			}
		}
		if err != nil {
			letter := pipeline.NewDeadLetter(m, err)
			dead = append(dead, letter)
			if d.Trace != nil {
				d.Trace.DeadLetter(m, err)
			}
			d.warnOfDead(letter.Header(pipeline.HeaderClass), m, err)
			continue
		}
		rows, messages = append(rows, row), append(messages, m)
	}
	if len(dead) > 0 {
		if err := d.DeadLetters.Publish(ctx, d.DeadLetterTopic, dead); err != nil {
			return err
		}
		i := 0
		for _, m := range batch { // those that are not among messages
			if i < len(messages) && messages[i].Offset == m.Offset {
				i++
				continue
			}
			ack(m)
		}
	}
	var accepted []pipeline.Acceptance
	if len(rows) > 0 {
		var err error
		if accepted, err = d.Worker.Ledger.Accept(ctx, rows); err != nil {
			if errors.Is(err, pipeline.ErrFenced) {
				<-ctx.Done() // the queue is about to find out, too
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return &onboard.HaltError{Class: onboard.HaltLedger, Row: rows[0], Err: err}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tally.Received += int64(len(batch))
	d.tally.DeadLettered += int64(len(dead))
	d.tally.Acked += int64(len(dead))
	for i, a := range accepted {
		d.countImport(rows[i].ImportID, a)
		d.admit(a, messages[i], ack)
	}
	return nil
}

// maxImports limits the imports that are counted separately: messages may name any.
const maxImports = 1000

// countImport counts a message for its import. The lock is held.
func (d *Dispatcher) countImport(id string, a pipeline.Acceptance) {
	n := d.imports[id]
	if n == nil {
		if len(d.imports) >= maxImports {
			return
		}
		n = new(pipeline.ImportTally)
		d.imports[id] = n
	}
	n.Received++
	if a.Admission == pipeline.Settled && a.Record.ImportID != id {
		n.Earlier++
		if n.EarlierStages == nil {
			n.EarlierStages = make(map[pipeline.Stage]int64)
			d.earlier[id] = new(idSet)
		}
		if d.earlier[id].add(a.Record.ID) { // an export may repeat a row
			n.EarlierStages[a.Record.Stage]++
		}
	}
}

// idSet is a set of ledger ids, which are dense: a bit for each.
type idSet []uint64

// add reports whether the id was not in the set.
func (s *idSet) add(id int64) bool {
	word, bit := int(id/64), uint64(1)<<(id%64)
	if word >= len(*s) {
		*s = append(*s, make([]uint64, word+1-len(*s))...)
	}
	absent := (*s)[word]&bit == 0
	(*s)[word] |= bit
	return absent
}

// read returns the row of a message that may be processed; otherwise *MessageError, with the row if it may be processed
// in case the ledger has it.
func (d *Dispatcher) read(m pipeline.Message) (pipeline.Row, error) {
	if d.Authenticate != nil {
		if err := d.Authenticate(m); err != nil {
			return pipeline.Row{}, &pipeline.MessageError{Class: "unauthenticated", Reason: err.Error()}
		}
	}
	row, err := pipeline.ParseMessage(m.Value)
	if row.ExternalID != "" && d.Home != nil && d.Home(row.Account) != m.Partition {
		return pipeline.Row{}, pipeline.Misplaced(m, d.Home(row.Account))
	}
	return row, err
}

// warnOfDead warns of the first dead letter of a class, the 10th, the 100th, and so on: one bad export or producer can
// make millions.
func (d *Dispatcher) warnOfDead(class string, m pipeline.Message, cause error) {
	d.mu.Lock()
	if d.dead == nil {
		d.dead = make(map[string]int64)
	}
	d.dead[class]++
	n := d.dead[class]
	d.mu.Unlock()
	for power := int64(1); power <= n; power *= 10 {
		if power == n {
			d.Logger.Warn("writing messages that cannot be processed to the dead-letter topic", "class", class, "messages", n,
				"partition", m.Partition, "offset", m.Offset, "reason", cause.Error())
		}
	}
}

// admit queues one accepted row. The lock is held.
func (d *Dispatcher) admit(a pipeline.Acceptance, m pipeline.Message, ack func(pipeline.Message)) {
	arrived := delivery{Message: m, ack: ack}
	switch a.Admission {
	case pipeline.Settled:
		d.skip(a.Record)
		d.ack(arrived)
		return
	case pipeline.Contradicted:
		if d.Trace != nil {
			d.Trace.Begin(m, a.Record).End(a.Record)
		}
		d.count(a.Record)
		d.ack(arrived)
		return
	}
	if t, ok := d.tasks[a.Record.ID]; ok {
		t.messages = append(t.messages, arrived) // the row is under way: this message is settled with it
		if t.trace != nil {
			t.trace.Join(m)
		}
		return
	}
	t := &item{Task: d.Worker.Begin(a), messages: []delivery{arrived}, index: -1}
	d.tasks[a.Record.ID] = t
	if d.Trace != nil {
		t.trace = d.Trace.Begin(m, a.Record)
	}
	// A partition with few rows is not kept waiting behind one with many: each is in turn, and the rate that this consumer
	// has for all of its partitions is used to the end.
	t.turn = max(d.turns[m.Partition], d.round) + 1
	d.turns[m.Partition] = t.turn
	d.push(t)
}

// ack acknowledges a message. The lock is held.
func (d *Dispatcher) ack(m delivery) {
	d.tally.Acked++
	m.ack(m.Message)
}

func (d *Dispatcher) skip(rec pipeline.Record) {
	d.tally.Skipped++
	d.noteEnd(rec)
}

// noteEnd updates the set of rows that ended badly; the latest message of a row decides.
func (d *Dispatcher) noteEnd(rec pipeline.Record) {
	if rec.Stage == pipeline.Onboarded || rec.Dismissed {
		delete(d.bad, rec.ID)
	} else {
		d.bad[rec.ID] = struct{}{}
	}
}

func (d *Dispatcher) count(rec pipeline.Record) {
	d.noteEnd(rec)
	switch rec.Stage {
	case pipeline.Onboarded:
		d.tally.Onboarded++
		if rec.AlreadyOnboarded {
			d.tally.AlreadyOnboarded++
		}
	case pipeline.Conflict:
		d.tally.Conflict++
	case pipeline.Refused:
		d.tally.Refused++
	case pipeline.Rejected:
		d.tally.Rejected++
	case pipeline.Failed:
		d.tally.Failed++
	}
}
