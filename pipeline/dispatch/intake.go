package dispatch

import (
	"context"
	"errors"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
)

// Take implements Handler.
func (r *Dispatcher) Take(ctx context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
	rows := make([]pipeline.Row, 0, len(batch))
	messages := make([]pipeline.Message, 0, len(batch))
	var dead []pipeline.Message
	for _, m := range batch {
		row, err := r.read(m)
		if err != nil {
			letter := pipeline.NewDeadLetter(m, err)
			dead = append(dead, letter)
			if r.Trace != nil {
				r.Trace.DeadLetter(m, err)
			}
			r.warnOfDead(letter.Header(pipeline.HeaderClass), m, err)
			continue
		}
		rows, messages = append(rows, row), append(messages, m)
	}
	if len(dead) > 0 {
		if err := r.DeadLetters.Publish(ctx, r.DeadLetterTopic, dead); err != nil {
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
		if accepted, err = r.Worker.Ledger.Accept(ctx, rows); err != nil {
			if errors.Is(err, pipeline.ErrFenced) {
				<-ctx.Done() // the queue is about to find out, too
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return &onboard.HaltError{Class: onboard.HaltLedger, Row: rows[0], Err: err}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tally.Received += int64(len(batch))
	r.tally.DeadLettered += int64(len(dead))
	for i, a := range accepted {
		r.countImport(rows[i].ImportID, a)
		r.admit(a, messages[i], ack)
	}
	return nil
}

// maxImports is how many imports are told apart: messages may name any.
const maxImports = 1000

// countImport counts a message for its import. The lock is held.
func (r *Dispatcher) countImport(id string, a pipeline.Acceptance) {
	n := r.imports[id]
	if n == nil {
		if len(r.imports) >= maxImports {
			return
		}
		n = new(pipeline.ImportTally)
		r.imports[id] = n
	}
	n.Received++
	if a.Admission == pipeline.Settled && a.Record.ImportID != id {
		n.Earlier++
	}
}

// read returns the row of a message that may be processed; otherwise *MessageError.
func (r *Dispatcher) read(m pipeline.Message) (pipeline.Row, error) {
	if r.Authenticate != nil {
		if err := r.Authenticate(m); err != nil {
			return pipeline.Row{}, &pipeline.MessageError{Class: "unauthenticated", Reason: err.Error()}
		}
	}
	row, err := pipeline.ParseMessage(m.Value)
	if err == nil && r.Home != nil && r.Home(row.Account) != m.Partition {
		err = pipeline.Misplaced(m, r.Home(row.Account))
	}
	return row, err
}

// warnOfDead warns of the first dead letter of a class, the 10th, the 100th, and so on: one bad export or producer can
// make millions.
func (r *Dispatcher) warnOfDead(class string, m pipeline.Message, cause error) {
	r.mu.Lock()
	if r.dead == nil {
		r.dead = make(map[string]int64)
	}
	r.dead[class]++
	n := r.dead[class]
	r.mu.Unlock()
	for power := int64(1); power <= n; power *= 10 {
		if power == n {
			r.Logger.Warn("messages cannot be processed and go to the dead letters", "class", class, "messages", n,
				"partition", m.Partition, "offset", m.Offset, "reason", cause.Error())
		}
	}
}

// admit takes up one accepted row. The lock is held.
func (r *Dispatcher) admit(a pipeline.Acceptance, m pipeline.Message, ack func(pipeline.Message)) {
	switch a.Admission {
	case pipeline.Settled:
		r.skip(a.Record)
		ack(m)
		return
	case pipeline.Contradicted:
		if r.Trace != nil {
			r.Trace.Begin(m, a.Record).End(a.Record)
		}
		r.count(a.Record)
		ack(m)
		return
	}
	d := delivery{Message: m, ack: ack}
	if t, ok := r.tasks[a.Record.ID]; ok {
		t.messages = append(t.messages, d) // the row is under way: this message is settled with it
		if t.trace != nil {
			t.trace.Join(m)
		}
		return
	}
	t := &item{Task: r.Worker.Begin(a), messages: []delivery{d}, index: -1}
	r.tasks[a.Record.ID] = t
	if r.Trace != nil {
		t.trace = r.Trace.Begin(m, a.Record)
	}
	// A partition with few rows is not kept waiting behind one with many: each is in turn, and the rate that this consumer
	// has for all of its partitions is used to the end.
	t.turn = max(r.turns[m.Partition], r.round) + 1
	r.turns[m.Partition] = t.turn
	r.push(t)
}

func (r *Dispatcher) skip(rec pipeline.Record) {
	r.tally.Skipped++
	r.noteEnd(rec)
}

// noteEnd updates the set of rows that ended badly; the latest message of a row decides.
func (r *Dispatcher) noteEnd(rec pipeline.Record) {
	if rec.Stage == pipeline.Onboarded {
		delete(r.bad, rec.ID)
	} else {
		r.bad[rec.ID] = struct{}{}
	}
}

func (r *Dispatcher) count(rec pipeline.Record) {
	r.noteEnd(rec)
	switch rec.Stage {
	case pipeline.Onboarded:
		r.tally.Onboarded++
		if rec.AlreadyOnboarded {
			r.tally.AlreadyOnboarded++
		}
	case pipeline.Conflict:
		r.tally.Conflict++
	case pipeline.Refused:
		r.tally.Refused++
	case pipeline.Rejected:
		r.tally.Rejected++
	case pipeline.Failed:
		r.tally.Failed++
	}
}
