package consumecmd

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/metrics"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/printable"
)

// progress measures the progress of a run. Its methods are not safe for concurrent use.
type progress struct {
	taking context.Context // ends with a soft stop or a halt
	now    func() metrics.Now
	past   []moment // of the latest window, the oldest first
}

// moment is the progress of a run at a time.
type moment struct {
	at            time.Time
	sent, settled int64
}

// window is the time over which rates are measured, if there are two moments in it.
const window = 10 * time.Second

// measure returns the progress of the run, and records it for the rates.
func (p *progress) measure(at time.Time) results.Progress {
	now := p.now()
	t := now.Tally
	here := moment{at: at, sent: now.Client.Sent, settled: t.Acked}
	m := results.Progress{
		At: at.UTC(), Doing: doing(now, p.taking.Err() != nil), Settled: here.settled,
		Rows: results.RowsOf(t), Throttled: now.Client.Throttled,
		AllowedRate: now.Limiter.InForce, Rate: now.Limiter.Rate, Throttle: now.Limiter.Closed.Seconds(),
	}
	m.RequestRate, m.RowRate = p.rates(here)
	if now.Assigned {
		m.Left = &now.Left
	}
	if m.RowRate > 0 && !now.Outage {
		m.SecondsLeft = float64(now.Left) / m.RowRate
	}
	return m
}

// rates returns requests and settled rows a second over the latest window, and notes the moment.
func (p *progress) rates(here moment) (requests, rows float64) {
	for len(p.past) > 1 && here.at.Sub(p.past[1].at) >= window {
		p.past = p.past[1:]
	}
	if len(p.past) > 0 {
		first := p.past[0]
		if took := here.at.Sub(first.at).Seconds(); took > 0 {
			requests, rows = float64(here.sent-first.sent)/took, float64(here.settled-first.settled)/took
		}
	}
	p.past = append(p.past, here)
	return requests, rows
}

// doing returns what a run does or waits for.
func doing(now metrics.Now, stopping bool) results.Doing {
	switch {
	case stopping:
		return results.Stopping
	case !now.Assigned:
		return results.WaitingForPartitions
	case now.Limiter.Closed > 0:
		return results.ThrottledBy
	case now.Outage:
		return results.InOutage
	case now.Left == 0 && now.Tally.Open == 0:
		return results.WaitingForRows
	}
	return results.Working
}

// rateText is a rate with three digits, or all of a whole number.
func rateText(n float64) string {
	if n >= 100 {
		return printable.Thousands(int64(math.Round(n))) + "/s"
	}
	return fmt.Sprintf("%.3g/s", n)
}

// fieldsOf returns the fields of the progress line: what keeps the run from going on, if something does; how many of
// the messages that this run has to settle are settled; requests a second of those that are allowed; rows that ended
// badly; answers that throttled; and how long the rest takes at this speed.
func fieldsOf(p results.Progress) []console.Field {
	fields := []console.Field{
		{Text: stateOf(p), Rank: 0},
		{Text: printable.Thousands(p.Settled) + printable.Plural(p.Settled, " row", " rows"), Rank: 1},
	}
	if p.Left != nil && p.Settled+*p.Left > 0 {
		total := p.Settled + *p.Left
		fields[1].Text = fmt.Sprintf("%s of %s%s", printable.Thousands(p.Settled), printable.Thousands(total),
			printable.Plural(total, " row", " rows"))
		fields = append(fields, console.Field{Text: fmt.Sprintf("%d %%", p.Settled*100/total), Rank: 3})
	}
	speed := rateText(math.Round(p.RequestRate)) + " of " + rateText(p.AllowedRate)
	if p.AllowedRate < p.Rate {
		speed += ", lowered from " + rateText(p.Rate)
	}
	fields = append(fields,
		console.Field{Text: speed, Rank: 4},
		console.Field{Text: printable.Thousands(p.Rows.Failed) + " failed", Rank: 2},
	)
	for _, bad := range []struct {
		n    int64
		what string
	}{
		{p.Rows.Conflict, "in conflict"}, {p.Rows.Refused, "refused"}, {p.Rows.Rejected, "rejected"},
		{p.Rows.DeadLettered, printable.Plural(p.Rows.DeadLettered, "dead letter", "dead letters")},
	} {
		if bad.n > 0 {
			fields = append(fields, console.Field{Text: printable.Thousands(bad.n) + " " + bad.what, Rank: 2})
		}
	}
	fields = append(fields, console.Field{Text: printable.Thousands(p.Throttled) + " throttled", Rank: 6})
	if p.SecondsLeft > 0 {
		fields = append(fields, console.Field{Text: console.Left(seconds(p.SecondsLeft)) + " left", Rank: 5})
	}
	return fields
}

// stateOf is what a run waits for; empty: it works.
func stateOf(p results.Progress) string {
	switch p.Doing {
	case results.Working:
		return ""
	case results.ThrottledBy:
		return "throttled for " + console.Left(seconds(p.Throttle))
	case results.InOutage:
		return "outage: the partner is unavailable"
	}
	return string(p.Doing)
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// progressRecorder records the progress of the run in the ledger. `consumer status`, `runs` and `report` show it.
type progressRecorder struct {
	progress progress
	report   results.Report // of the run as it began
	put      func(context.Context, string) error
	log      *slog.Logger

	last   results.Progress // as recorded, without At
	failed bool             // the latest write
}

// record records the progress. A failure does not concern the run; the first of several is logged.
func (t *progressRecorder) record(ctx context.Context, now time.Time) {
	p := t.progress.measure(now)
	same := p
	same.At = time.Time{}
	if t.last.Left != nil && same.Left != nil && *t.last.Left == *same.Left {
		same.Left = t.last.Left // equal by value
	}
	if same == t.last {
		return
	}
	t.report.Progress = &p
	err := t.put(ctx, string(t.report.JSON()))
	if err != nil && !t.failed && ctx.Err() == nil {
		t.log.Warn("cannot record the progress of the run", "error", err)
	}
	if t.failed = err != nil; !t.failed {
		t.last = same
	}
}
