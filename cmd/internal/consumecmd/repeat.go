package consumecmd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// leftover is what earlier runs left behind: rows that ended badly, and dead letters.
type leftover struct {
	runs []remains // at least one, the latest first, none of them empty
	rows []int64   // the first of the rows
}

// remains are what one run left behind.
type remains struct {
	run     ledger.Run
	stages  map[pipeline.Stage]int64 // rows that ended badly
	letters int64                    // dead letters that were not put back since
}

// reported says that the run has reported its rows, some of which ended badly.
func (r remains) reported() bool { return r.run.Ended() && r.run.Exit == console.ExitRowsBad }

func (r remains) empty() bool { return len(r.stages) == 0 && r.letters == 0 }

// String describes the rest: "run … left 2 failed rows".
func (r remains) String() string {
	var parts []string
	for _, stage := range pipeline.Stages() {
		switch n := r.stages[stage]; {
		case n > 0 && stage == pipeline.Conflict:
			parts = append(parts, fmt.Sprintf("%s in conflict", printable.Count(n, "row", "rows")))
		case n > 0:
			parts = append(parts, fmt.Sprintf("%d %s %s", n, stage, printable.Plural(n, "row", "rows")))
		}
	}
	if r.letters > 0 {
		parts = append(parts, printable.Count(r.letters, "dead letter", "dead letters"))
	}
	return fmt.Sprintf("run %s of %s left %s", r.run.ID, r.run.StartedAt.UTC().Format("2006-01-02 15:04Z"),
		strings.Join(parts, ", "))
}

// of is the latest run whose result is repeated.
func (l *leftover) of() uuid.UUID { return l.runs[0].run.ID }

func (l *leftover) bad() bool {
	return slices.ContainsFunc(l.runs, func(r remains) bool { return len(r.stages) > 0 })
}

func (l *leftover) letters() (n int64) {
	for _, r := range l.runs {
		n += r.letters
	}
	return n
}

// String describes each run's rest.
func (l *leftover) String() string {
	parts := make([]string, len(l.runs))
	for i, r := range l.runs {
		parts[i] = r.String()
	}
	return strings.Join(parts, ", and ")
}

// leftovers returns what this drain has to answer for in place of the drains before it; nil: nothing. A retry is not
// given the messages whose rows have ended already, and must not turn a bad night good:
//
//   - Drains that could not finish, or whose process was killed, have not reported their rows. This run does, whatever
//     it received.
//   - The drain before them that ended with 3 has reported its rows. If this run received nothing, it repeats the
//     result, while the rows are as they were. A run that received something has a result of its own.
//
// A drain that ended with 0 ends the search: what was left before it has been reported. The rows that this run itself
// has ended, own, are not among those of other runs.
func (r *run) leftovers(ctx context.Context, t pipeline.Tally, own []int64) (*leftover, error) {
	const all = 1 << 20
	past, err := r.ledger.Runs(ctx, all)
	if err != nil {
		return nil, err
	}
	past = slices.DeleteFunc(past, func(p ledger.Run) bool { return p.ID == r.id || !p.Drain })
	runs := answers(past, t.Received)
	if len(runs) == 0 {
		return nil, nil
	}
	bad := ledger.BadQuery{Own: own, Begun: r.report.StartedAt}
	var letters int64
	reported := false // a run has: it ended with all rows that were bad by then
	for i, o := range runs {
		bad.Runs = append(bad.Runs, o.run.ID)
		if i+1 < len(runs) { // what changed before the earliest began is the earliest's, too: it was given it again
			bad.Splits = append(bad.Splits, o.run.StartedAt)
		}
		if reported = reported || o.reported(); !reported {
			bad.Since = o.run.StartedAt
		}
		letters += o.letters
	}
	counts, rows, err := r.ledger.StillBad(ctx, bad)
	if err != nil {
		return nil, err
	}
	if letters > 0 {
		if letters, err = r.notPutBack(ctx, letters); err != nil {
			return nil, err
		}
	}
	for i := range runs {
		runs[i].stages = counts[len(runs)-1-i]
		runs[i].letters = min(runs[i].letters, letters)
		letters -= runs[i].letters
	}
	if runs = slices.DeleteFunc(runs, remains.empty); len(runs) == 0 {
		return nil, nil
	}
	return &leftover{runs: runs, rows: rows}, nil
}

// answers returns the drains of the past, the latest first, for whose rows and dead letters a drain answers that has
// received some messages: also those for which the one that has reported its rows has answered itself.
func answers(past []ledger.Run, received int64) (runs []remains) {
	for i, p := range past {
		report, _ := reportOf(p) // one that cannot be read names neither a run nor dead letters
		o := remains{run: p, letters: report.Rows.DeadLettered}
		if p.Ended() && p.Exit == console.ExitWell || o.reported() && received > 0 {
			break
		}
		runs = append(runs, o)
		if o.reported() && report.Repeats != "" {
			return append(runs, answers(past[i+1:], report.Rows.Received)...)
		}
		if o.reported() {
			break
		}
	}
	return runs
}

// notPutBack returns how many of the latest dead letters no redrive has looked at.
func (r *run) notPutBack(ctx context.Context, latest int64) (int64, error) {
	lag, err := r.queue.Lag(ctx, r.c.DeadLetterTopic, redriveGroup(r.c))
	if err != nil {
		return 0, fmt.Errorf("dead letters of earlier runs: %w", err)
	}
	return min(messages(lag), latest), nil
}
