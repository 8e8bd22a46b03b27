package consumecmd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
)

// leftover is what an earlier run left behind: rows that ended badly, and dead letters.
type leftover struct {
	run     ledger.Run
	stages  map[pipeline.Stage]int64 // rows that ended badly
	rows    []int64                  // the first of them
	letters int64                    // dead letters that were not put back since
}

// String says what was left: "run … left 2 failed rows".
func (l *leftover) String() string {
	var parts []string
	for _, stage := range pipeline.Stages() {
		switch n := l.stages[stage]; {
		case n > 0 && stage == pipeline.Conflict:
			parts = append(parts, plural(n, "row")+" in conflict")
		case n > 0:
			parts = append(parts, plural(n, string(stage)+" row"))
		}
	}
	if l.letters > 0 {
		parts = append(parts, plural(l.letters, "dead letter"))
	}
	return fmt.Sprintf("run %s of %s left %s", l.run.ID, l.run.StartedAt.UTC().Format("2006-01-02 15:04Z"),
		strings.Join(parts, ", "))
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
// A drain that ended with 0 ends the search: what was left before it has been reported.
func (r *run) leftovers(ctx context.Context, t pipeline.Tally) (*leftover, error) {
	const all = 1 << 20
	past, err := r.ledger.Runs(ctx, all)
	if err != nil {
		return nil, err
	}
	var chain []uuid.UUID
	var since time.Time // when the earliest run began that could not finish; zero: there is none
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
		report, _ := reportOf(p) // one that cannot be read names neither a run nor dead letters
		left.run = p
		origin := slices.IndexFunc(past, func(o ledger.Run) bool { return o.ID.String() == report.Repeats })
		if origin >= 0 {
			left.run = past[origin]
			report, _ = reportOf(left.run)
		}
		chain = append(chain, p.ID)
		letters += report.Rows.DeadLettered
		if reported {
			break
		}
		since = p.StartedAt
	}
	if len(chain) == 0 {
		return nil, nil
	}
	if left.stages, left.rows, err = r.ledger.StillBad(ctx, chain, since); err != nil {
		return nil, err
	}
	if letters > 0 {
		if left.letters, err = r.notPutBack(ctx, letters); err != nil {
			return nil, err
		}
	}
	if len(left.stages) == 0 && left.letters == 0 {
		return nil, nil
	}
	return left, nil
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
