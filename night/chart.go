package night

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/purser-onboard/purser/pipeline/results"
)

// maxBins is how many points the throughput has, in the chart and in the table behind it.
const maxBins = 240

// bin is a minute, or several of a long run together.
type bin struct {
	At            time.Time
	Used, Allowed float64 // requests per second
	Sent          int64
	Throttled     int64
	SignerErrors  int64
	Outage, Gate  time.Duration
	trouble       []bool // by troubles
}

// throughput is the chart of the requests per second.
type throughput struct {
	Per        time.Duration // of a bin
	Bins       []bin
	Y          []string // labels, from above
	X          []string // labels, from the left
	Area, Line string   // paths in a box of 1000 by 240: requests sent
	Allowed    string   // path: what the rate limiter allowed
	RateY      string   // of --rate in percent from above; empty: not recorded
	Rate       string
	Lanes      []lane
	Peak, Mean string
	Summary    string
}

// lane is a strip below the chart that shows when there was trouble of a kind.
type lane struct {
	Name, Class string
	Bars        []bar
}

// bar is a part of a strip, in percent of its width.
type bar struct{ X, Width string }

const (
	plotWidth  = 1000.0
	plotHeight = 240.0
)

func (a *Account) throughput() *throughput {
	if len(a.Minutes) == 0 {
		return nil
	}
	bins, per := binned(a.Minutes, a.Rate)
	t := &throughput{Per: per, Bins: bins}
	top, peak := a.Rate, 0.0
	for _, b := range bins {
		top = max(top, b.Used, b.Allowed)
		peak = max(peak, b.Used)
	}
	top = roundUp(1.05 * top)
	t.Y = []string{decimal(top), decimal(top / 2), "0"}
	t.X = timeLabels(bins[0].At, bins[len(bins)-1].At.Add(per))
	t.Peak, t.Mean = decimal(peak), decimal(meanRate(a.Minutes))
	t.Summary = fmt.Sprintf("Requests per second: %s on average, %s at most", t.Mean, t.Peak)
	if a.Rate > 0 {
		t.Rate, t.RateY = decimal(a.Rate), number(100*(1-a.Rate/top))
		t.Summary += fmt.Sprintf("; --rate is %s", t.Rate)
	}
	x := func(i int) string { return number(plotWidth * float64(i) / float64(len(bins))) }
	y := func(n float64) string { return number(plotHeight * (1 - n/top)) }
	var used, allowed strings.Builder
	up := false // the allowed rate is drawn only where it is known
	for i, b := range bins {
		if i == 0 {
			fmt.Fprintf(&used, "M0 %s", y(b.Used))
		} else {
			fmt.Fprintf(&used, "V%s", y(b.Used))
		}
		fmt.Fprintf(&used, "H%s", x(i+1))
		if b.Allowed <= 0 {
			up = false
			continue
		}
		if up {
			fmt.Fprintf(&allowed, "V%s", y(b.Allowed))
		} else {
			fmt.Fprintf(&allowed, "M%s %s", x(i), y(b.Allowed))
		}
		fmt.Fprintf(&allowed, "H%s", x(i+1))
		up = true
	}
	t.Line, t.Allowed = used.String(), allowed.String()
	t.Area = t.Line + fmt.Sprintf("V%sH0Z", number(plotHeight))
	for i, k := range troubles() {
		if bars := bars(bins, i); bars != nil {
			t.Lanes = append(t.Lanes, lane{k.kind, k.class, bars})
		}
	}
	return t
}

// meanRate is how many requests were sent per second. The first and the last minute are parts of one: their rates say
// how long they were.
func meanRate(minutes []results.Minute) float64 {
	var all, took float64
	for _, m := range minutes {
		sent := 0.0
		for _, byStatus := range m.Requests {
			for _, n := range byStatus {
				sent += float64(n)
			}
		}
		all += sent
		if m.RateUsed > 0 && sent > 0 {
			took += min(sent/m.RateUsed, 60)
		} else {
			took += 60
		}
	}
	return all / took
}

// binned sums minutes up so that there are at most maxBins.
func binned(minutes []results.Minute, rate float64) ([]bin, time.Duration) {
	first := minutes[0].At.Truncate(time.Minute)
	n := int(minutes[len(minutes)-1].At.Sub(first)/time.Minute) + 1
	width := (n + maxBins - 1) / maxBins
	per := time.Duration(width) * time.Minute
	bins := make([]bin, (n+width-1)/width)
	allowed := make([]int, len(bins)) // minutes in which it is known
	kinds := troubles()
	for i := range bins {
		bins[i].At = first.Add(time.Duration(i) * per)
		bins[i].trouble = make([]bool, len(kinds))
	}
	for _, m := range minutes {
		at := int(m.At.Sub(first)/time.Minute) / width
		b := &bins[at]
		b.Used += m.RateUsed / float64(width)
		if m.RateAllowed > 0 {
			b.Allowed += m.RateAllowed
			allowed[at]++
		}
		for _, byStatus := range m.Requests {
			for _, n := range byStatus {
				b.Sent += n
			}
		}
		b.Throttled += m.Throttled
		b.SignerErrors += m.SignerErrors
		b.Outage += seconds(m.OutageSeconds)
		b.Gate += seconds(m.GateClosedSeconds)
		for i, k := range kinds {
			b.trouble[i] = b.trouble[i] || k.of(m, rate) > 0
		}
	}
	for i, n := range allowed {
		if n > 0 {
			bins[i].Allowed /= float64(n)
		}
	}
	return bins, per
}

// bars are the stretches in which bins have trouble of the i-th kind.
func bars(bins []bin, i int) (found []bar) {
	from := -1
	for at := 0; at <= len(bins); at++ {
		has := at < len(bins) && bins[at].trouble[i]
		switch {
		case has && from < 0:
			from = at
		case !has && from >= 0:
			share := 100 / float64(len(bins))
			found = append(found, bar{number(share * float64(from)), number(share * float64(at-from))})
			from = -1
		}
	}
	return found
}

// roundUp is the next round number, for the end of an axis.
func roundUp(n float64) float64 {
	if n <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(n)))
	for _, step := range []float64{1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10} {
		if step*unit >= n*0.999 {
			return step * unit
		}
	}
	return 10 * unit
}

// timeLabels are times with equal distances: five, two of a few minutes, or three with dates of days.
func timeLabels(from, to time.Time) []string {
	layout, n := "15:04", 5
	if to.Sub(from) < 5*time.Minute {
		n = 2
	}
	if to.Sub(from) > 36*time.Hour {
		layout, n = "Jan 2 15:04", 3
	}
	labels := make([]string, n)
	for i := range labels {
		labels[i] = from.Add(to.Sub(from) * time.Duration(i) / time.Duration(n-1)).UTC().Format(layout)
	}
	return labels
}

func number(n float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", n), ".0") }

// segment is a part of a stacked bar, in percent of its width.
type segment struct {
	Class    string
	X, Width string
}

// stack makes a bar of parts, scaled to a whole. A part that there is is at least a sliver.
func stack(whole int64, parts ...segmentOf) (segments []segment) {
	if whole <= 0 {
		return nil
	}
	const sliver = 0.8
	at := 0.0
	for _, p := range parts {
		if p.n <= 0 {
			continue
		}
		width := max(100*float64(p.n)/float64(whole), sliver)
		width = min(width, 100-at)
		segments = append(segments, segment{p.class, number(at), number(width)})
		at += width
	}
	return segments
}

type segmentOf struct {
	class string
	n     int64
}

// rowSegments are the rows of a run as a bar, the bad ones first: slivers at the end would be cut.
func rowSegments(r results.ReportRows, whole int64) []segment {
	return stack(whole,
		segmentOf{"failed", r.Failed}, segmentOf{"refused", r.Refused}, segmentOf{"conflict", r.Conflict},
		segmentOf{"rejected", r.Rejected}, segmentOf{"dead", r.DeadLettered}, segmentOf{"skipped", r.Skipped},
		segmentOf{"onboarded", r.Onboarded})
}

func sumSegments(s Sum) []segment {
	parts := make([]segmentOf, 0, len(s.Parts)+1)
	if s.Difference > 0 {
		parts = append(parts, segmentOf{"missing", s.Difference})
	}
	for _, p := range slices.Backward(s.Parts) {
		parts = append(parts, segmentOf{partClass(p.Name), p.N})
	}
	return stack(s.Total, parts...)
}

// partClass is the pattern of a part of the balance.
func partClass(name string) string {
	switch name {
	case "onboarded", published:
		return "onboarded"
	case "in conflict":
		return "conflict"
	case "dead-lettered":
		return "dead"
	case invalid:
		return "failed"
	case "header or blank", "skipped", others, "not seen, but imported again":
		return "skipped"
	case "returned unsettled", "not settled", "not yet seen by a run":
		return "open"
	}
	return name
}

// scale is a logarithmic scale of durations in seconds.
type scale struct{ least, most float64 }

// latencyScale is from a millisecond, or less, to the decade that has the longest duration.
func latencyScale(list []results.Latency) scale {
	s := scale{0.001, 0.01}
	for _, l := range list {
		for _, v := range []float64{l.P50, l.P95, l.P99} {
			for v > s.most && s.most < 1e6 {
				s.most *= 10
			}
		}
	}
	return s
}

func (s scale) at(v float64) float64 {
	v = min(max(v, s.least), s.most)
	return 100 * math.Log10(v/s.least) / math.Log10(s.most/s.least)
}

// Ends names the ends of the scale.
func (s scale) Ends() string { return latency(s.least) + " to " + latency(s.most) }

// spread is a latency in its scale: a bar from the median to the 99th percentile with a mark at the 95th.
type spread struct{ From, Width, Mark string }

func (s scale) spread(l results.Latency) spread {
	from := s.at(l.P50)
	return spread{number(from), number(max(s.at(l.P99)-from, 0.8)), number(s.at(l.P95))}
}
