package consumecmd

import (
	"context"
	"fmt"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/metrics"
)

// progress makes the progress line of a run. Its methods are not safe for concurrent use.
type progress struct {
	taking context.Context // ends with a soft stop or a halt
	now    func() metrics.Now
	past   []moment // of the latest window, the oldest first
}

// moment is how far a run had come.
type moment struct {
	at            time.Time
	sent, settled int64
}

// window is the time over which rates are measured, if there are two moments in it.
const window = 10 * time.Second

// line returns the fields of the progress line: the state that keeps the run from going on, if there is one; how many
// of the messages that this run has to settle are settled; requests a second of those that are allowed; rows that ended
// badly; answers that throttled; and how long the rest takes at this speed.
func (p *progress) line(at time.Time) []console.Field {
	now := p.now()
	t := now.Tally
	here := moment{at: at, sent: now.Client.Sent, settled: t.Received - t.Open - t.Returned}
	requests, rows := p.rates(here)
	fields := []console.Field{
		{Text: state(now, p.taking.Err() != nil), Rank: 0},
		{Text: console.Count(here.settled) + " rows", Rank: 1},
	}
	if total := here.settled + now.Left; now.Assigned && total > 0 {
		fields[1].Text = fmt.Sprintf("%s of %s rows", console.Count(here.settled), console.Count(total))
		fields = append(fields, console.Field{Text: fmt.Sprintf("%d %%", here.settled*100/total), Rank: 3})
	}
	speed := fmt.Sprintf("%.0f/s of %.3g/s", requests, now.Limiter.InForce)
	if now.Limiter.InForce < now.Limiter.Rate {
		speed += fmt.Sprintf(", lowered from %.3g/s", now.Limiter.Rate)
	}
	fields = append(fields,
		console.Field{Text: speed, Rank: 4},
		console.Field{Text: console.Count(t.Failed) + " failed", Rank: 2},
	)
	for _, bad := range []struct {
		n    int64
		what string
	}{
		{t.Conflict, "in conflict"}, {t.Refused, "refused"}, {t.Rejected, "rejected"}, {t.DeadLettered, "dead letters"},
	} {
		if bad.n > 0 {
			fields = append(fields, console.Field{Text: console.Count(bad.n) + " " + bad.what, Rank: 2})
		}
	}
	fields = append(fields, console.Field{Text: console.Count(now.Client.Throttled) + " throttled", Rank: 6})
	if rows > 0 && now.Left > 0 && !now.Outage {
		left := time.Duration(float64(now.Left) / rows * float64(time.Second))
		fields = append(fields, console.Field{Text: console.Left(left) + " left", Rank: 5})
	}
	return fields
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

// state says what a run waits for; empty: for nothing.
func state(now metrics.Now, stopping bool) string {
	switch {
	case stopping:
		return "stopping"
	case !now.Assigned:
		return "waiting for partitions"
	case now.Limiter.Closed > 0:
		return "throttled for " + console.Left(now.Limiter.Closed)
	case now.Outage:
		return "outage: the partner is unavailable"
	case now.Left == 0 && now.Tally.Open == 0:
		return "waiting for rows"
	}
	return ""
}
