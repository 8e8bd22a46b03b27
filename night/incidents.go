package night

import (
	"fmt"
	"slices"
	"time"

	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/printable"
)

// incidents are the times without an answer, of throttling and of a lowered rate, and what ended runs early.
func (a *Account) incidents() []Incident {
	var all []Incident
	for _, r := range slices.Backward(a.Runs) {
		switch {
		case !r.Ended():
			all = append(all, Incident{From: r.Report.StartedAt, Kind: "no end",
				What: "run " + r.Report.Run + " " + r.Report.Standing()})
		case r.Report.Exit == 1 || r.Report.Exit == 2:
			all = append(all, Incident{From: r.Report.FinishedAt, To: r.Report.FinishedAt, Kind: "run ended early",
				What: fmt.Sprintf("exit %d: %s", r.Report.Exit, r.Report.Reason)})
		}
	}
	for _, i := range a.Imports {
		if m := i.Importer; m != nil && m.Exit != 0 && m.Exit != 3 {
			all = append(all, Incident{From: m.StartedAt, To: m.EndedAt, Kind: "import not finished",
				What: fmt.Sprintf("%s, exit %d: %s", filesOf(i), m.Exit, m.Reason)})
		}
	}
	for _, k := range troubles() {
		all = append(all, k.spans(a.Minutes, a.Rate)...)
	}
	slices.SortStableFunc(all, func(x, y Incident) int { return x.From.Compare(y.From) })
	if len(all) > MaxIncidents {
		rest := len(all) - MaxIncidents
		all = append(all[:MaxIncidents:MaxIncidents], Incident{From: all[MaxIncidents].From, To: all[len(all)-1].To,
			Kind: "more", What: fmt.Sprintf("%d more %s", rest, printable.Plural(rest, "incident", "incidents"))})
	}
	return all
}

// trouble is something that minutes can have.
type trouble struct {
	kind  string
	class string // in the page
	what  func(n float64) string
	of    func(m results.Minute, rate float64) float64 // 0: not in this minute
}

// lowered is the part of --rate below which the rate limiter was lowered.
const lowered = 0.98

func troubles() []trouble {
	return []trouble{
		{"outage", "outage", func(n float64) string {
			return fmt.Sprintf("the partner did not answer for %s; only the probe was sent", span(seconds(n)))
		}, func(m results.Minute, _ float64) float64 { return m.OutageSeconds }},
		{"gate closed", "gate", func(n float64) string {
			return fmt.Sprintf("throttling held all requests back for %s", span(seconds(n)))
		}, func(m results.Minute, _ float64) float64 { return m.GateClosedSeconds }},
		{"rate lowered", "slow", func(n float64) string {
			return fmt.Sprintf("the rate limiter allowed less than --rate, at worst %s a second less", decimal(n))
		}, func(m results.Minute, rate float64) float64 {
			if rate <= 0 || m.RateAllowed <= 0 || m.RateAllowed >= lowered*rate {
				return 0
			}
			return rate - m.RateAllowed
		}},
		{"throttled", "throttle", func(n float64) string {
			return counted(int64(n), "answer was", "answers were") + " 429, or 503 with Retry-After"
		}, func(m results.Minute, _ float64) float64 { return float64(m.Throttled) }},
		{"signer errors", "signer", func(n float64) string {
			return counted(int64(n), "call", "calls") + " of the signer failed"
		}, func(m results.Minute, _ float64) float64 { return float64(m.SignerErrors) }},
	}
}

// apart is how long a trouble must be absent for the next to be another incident.
const apart = 3 * time.Minute

// spans joins neighbouring minutes of a trouble into incidents.
func (k trouble) spans(minutes []results.Minute, rate float64) (found []Incident) {
	var from, to time.Time
	sum, worst := 0.0, 0.0
	flush := func() {
		if from.IsZero() {
			return
		}
		n := sum
		if k.class == "slow" {
			n = worst
		}
		found = append(found, Incident{From: from, To: to, Kind: k.kind, What: k.what(n)})
		from, sum, worst = time.Time{}, 0, 0
	}
	for _, m := range minutes {
		n := k.of(m, rate)
		if n <= 0 {
			continue
		}
		if !from.IsZero() && m.At.Sub(to) > apart {
			flush()
		}
		if from.IsZero() {
			from = m.At
		}
		to = m.At.Add(time.Minute)
		sum, worst = sum+n, max(worst, n)
	}
	flush()
	return found
}
