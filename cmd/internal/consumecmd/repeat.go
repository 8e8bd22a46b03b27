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
)

// leftover is what earlier runs left behind: rows that ended badly, and dead letters.
type leftover struct {
	runs []remains // the latest first
	rows []int64   // the first of the rows
}

// remains are what one run left behind.
type remains struct {
	run     ledger.Run
	stages  map[pipeline.Stage]int64 // rows that ended badly
	letters int64                    // dead letters that were not put back since
}

func (r remains) empty() bool { return len(r.stages) == 0 && r.letters == 0 }

// String says what was left: "run … left 2 failed rows".
func (r remains) String() string {
	var parts []string
	for _, stage := range pipeline.Stages() {
		switch n := r.stages[stage]; {
		case n > 0 && stage == pipeline.Conflict:
			parts = append(parts, plural(n, "row")+" in conflict")
		case n > 0:
			parts = append(parts, plural(n, string(stage)+" row"))
		}
	}
	if r.letters > 0 {
		parts = append(parts, plural(r.letters, "dead letter"))
	}
	return fmt.Sprintf("run %s of %s left %s", r.run.ID, r.run.StartedAt.UTC().Format("2006-01-02 15:04Z"),
		strings.Join(parts, ", "))
}

// of is the run whose result is repeated.
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

// String says what each run left.
func (l *leftover) String() string {
	var parts []string
	for _, r := range l.runs {
		if !r.empty() {
			parts = append(parts, r.String())
		}
	}
	return strings.Join(parts, ", and ")
}

func plural(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
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
	bad := ledger.BadQuery{Own: own, Begun: r.report.StartedAt} // Since: the earliest run began that could not finish
	var letters int64
	left := new(leftover)
	for _, p := range past {
		reported := p.Ended() && p.Exit == console.ExitRowsBad
		if p.ID == r.id || !p.Drain {
			continue
		}
		if p.Ended() && p.Exit == console.ExitWell || reported && t.Received > 0 {
			break
		}
		left.runs = origins(past, p)
		bad.Runs = append(bad.Runs, p.ID)
		for _, o := range left.runs {
			letters += o.letters
		}
		if reported {
			break
		}
		bad.Since = p.StartedAt
	}
	if len(left.runs) == 0 {
		return nil, nil
	}
	latest, earliest := &left.runs[0], &left.runs[len(left.runs)-1]
	if latest != earliest {
		bad.Split = latest.run.StartedAt
	}
	before, later, rows, err := r.ledger.StillBad(ctx, bad)
	if err != nil {
		return nil, err
	}
	earliest.stages, latest.stages, left.rows = before, later, rows
	if letters > 0 {
		if letters, err = r.notPutBack(ctx, letters); err != nil {
			return nil, err
		}
	}
	if latest != earliest {
		latest.letters = min(latest.letters, letters)
		letters -= latest.letters
	}
	earliest.letters = letters
	if latest.empty() && earliest.empty() {
		return nil, nil
	}
	return left, nil
}

// origins returns the run whose result a run has: itself, or the one that it repeats. If rows ended badly in that run,
// and it also reported those of a run before it, both are returned. letters are the dead letters that they report.
func origins(past []ledger.Run, p ledger.Run) []remains {
	for {
		report, _ := reportOf(p) // one that cannot be read names neither a run nor dead letters
		n := report.Rows
		first := remains{run: p, letters: n.DeadLettered}
		i := slices.IndexFunc(past, func(o ledger.Run) bool { return o.ID.String() == report.Repeats })
		switch {
		case i < 0 || !past[i].StartedAt.Before(p.StartedAt):
			return []remains{first}
		case n.Conflict+n.Refused+n.Rejected+n.Failed+n.DeadLettered > 0:
			earlier, _ := reportOf(past[i])
			return []remains{first, {run: past[i], letters: earlier.Rows.DeadLettered}}
		}
		p = past[i]
	}
}

// notPutBack returns how many of the latest dead letters no redrive has looked at.
func (r *run) notPutBack(ctx context.Context, latest int64) (int64, error) {
	lag, err := r.queue.Lag(ctx, r.c.DeadLetterTopic, redriveGroup(r.c))
	if err != nil {
		return 0, fmt.Errorf("dead letters of earlier runs: %w", err)
	}
	var behind int64
	for _, l := range lag {
		behind += l.Lag()
	}
	return min(behind, latest), nil
}
