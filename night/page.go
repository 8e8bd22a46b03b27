package night

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/printable"
)

//go:embed page.html.tmpl
var pageTemplate string

//go:embed page.css
var pageStyle string

// HTML returns the account as a page: one file without scripts that loads nothing. Its policy forbids both, and allows
// its own style by its hash.
func (a *Account) HTML() ([]byte, error) {
	t, err := template.New("page").Funcs(template.FuncMap{
		"count": count, "clock": clock, "span": span, "latency": latency, "decimal": decimal, "percent": percent,
		"plural":  printable.Plural[int64],
		"text":    func(s string) string { return printable.Line(s, maxText) },
		"short":   func(t time.Time) string { return t.UTC().Format("Mon 2 Jan 15:04") },
		"unended": func(p page) bool { return len(p.Runs) > 0 && !p.Runs[0].Ended() },
		"iso":     func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"age":     func(t time.Time) string { return span(a.MadeAt.Sub(t)) },
		"hour":    func(t time.Time) string { return t.UTC().Format("15:04") },
		"outcome": outcome,
		"filesof": filesOf,
		"stage":   stageWord,
		"add":     func(i, j int) int { return i + j },
		"bars":    sumSegments,
		"history": a.historyBar,
		"share":   a.failureBar,
		"open":    func(i int) bool { return i < opened },
		"current": a.current, "partclass": partClass, "classname": className, "lag": lagOf, "behind": behind,
		"runs": func(r []Run) int64 { return int64(len(r)) },
	}).Parse(pageTemplate)
	if err != nil {
		return nil, fmt.Errorf("template of the page: %w", err)
	}
	digest := sha256.Sum256([]byte(pageStyle))
	var out bytes.Buffer
	err = t.Execute(&out, page{
		Account: a, Style: template.CSS(pageStyle), //nolint:gosec // the style is this package's own file
		StyleHash: base64.StdEncoding.EncodeToString(digest[:]), Throughput: a.throughput(),
		Spreads: spreadsOf(a.Latencies), StageSpreads: spreadsOf(stageLatencies(a.Stages)),
	})
	if err != nil {
		return nil, fmt.Errorf("make the page: %w", err)
	}
	return out.Bytes(), nil
}

// IsPage reports whether a file that begins so, with 1 KiB at least, is what HTML returns, in this version or another.
func IsPage(head []byte) bool {
	return bytes.HasPrefix(head, []byte("<!DOCTYPE html>")) && bytes.Contains(head, []byte("<title>"+titleStart))
}

// titleStart begins the title of every page.
const titleStart = "Purser: "

// page is what the template shows.
type page struct {
	*Account
	Style      template.CSS
	StyleHash  string
	Throughput *throughput

	Spreads, StageSpreads *spreads
}

// Consume is the consumer's program.
func (p page) Consume() string { return p.consume }

// Title names the night by its day.
func (p page) Title() string {
	if len(p.Runs) == 0 {
		return titleStart + "no run"
	}
	first, last := p.Runs[len(p.Runs)-1].Report.StartedAt.UTC(), p.Runs[0].Report.FinishedAt.UTC()
	title := titleStart + "night of " + last.Format("2 January 2006")
	if first.Format(time.DateOnly) != last.Format(time.DateOnly) {
		title = titleStart + first.Format("2 January") + " to " + last.Format("2 January 2006")
	}
	return title
}

// Heading is the title without the program's name.
func (p page) Heading() string {
	name := strings.TrimPrefix(p.Title(), titleStart)
	return strings.ToUpper(name[:1]) + name[1:]
}

// Mark is the verdict as a sign, for those who do not see its colour.
func (v Verdict) Mark() string {
	switch v.Level {
	case Good:
		return "✓"
	case Bad:
		return "✗"
	case Unfinished:
		return "‖"
	}
	return "○"
}

// Word is the verdict in a word.
func (v Verdict) Word() string {
	switch v.Level {
	case Good:
		return "Good"
	case Bad:
		return "Needs attention"
	case Unfinished:
		return "Not finished"
	}
	return "Empty"
}

// Broken reports whether the balance does not add up.
func (s Sum) Broken() bool { return s.Difference != 0 }

// Bad is how many rows of a run ended badly.
func (r Run) Bad() int64 {
	n := r.Report.Rows
	return n.Failed + n.Refused + n.Conflict + n.Rejected + n.DeadLettered
}

// Short is the part of the run's id by which it can be told from the others of the list: the end, because the beginning
// is the time.
func (r Run) Short() string {
	id := r.Report.Run
	return id[max(0, len(id)-8):]
}

// historyBar is a run in proportion to the largest of the history.
func (a *Account) historyBar(r Run) []segment {
	most := int64(1)
	for _, h := range a.History {
		most = max(most, h.Report.Rows.Received)
	}
	return rowSegments(r.Report.Rows, most)
}

// failureBar is a failure in proportion to the largest.
func (a *Account) failureBar(f Failure) []segment {
	most := int64(1)
	for _, other := range a.Failures {
		most = max(most, other.Total)
	}
	return stack(most, segmentOf{stageClass(f), f.Total})
}

func stageClass(f Failure) string {
	if !f.Stage.Terminal() {
		return "open"
	}
	return string(f.Stage)
}

// outcome says what became of the rows of an import.
func outcome(i results.ReportImport) string {
	o := i.Outcome
	parts := []string{count(o.Onboarded) + " onboarded"}
	for _, p := range []Part{
		{"failed", o.Failed}, {"refused", o.Refused}, {"in conflict", o.Conflict}, {"rejected", o.Rejected},
		{"not settled", o.Open}, {"settled by an earlier import", i.Earlier},
	} {
		if p.N > 0 {
			parts = append(parts, count(p.N)+" "+p.Name)
		}
	}
	if m := i.Importer; m != nil && m.Published > o.Rows+i.Earlier {
		parts = append(parts, count(m.Published-o.Rows-i.Earlier)+" repeated, of another import, dead-lettered or not seen")
	}
	return list(parts)
}

// spreads are the latencies in their scale.
type spreads struct {
	Ends string
	Rows []spreadRow
}

type spreadRow struct {
	results.Latency
	spread
}

func spreadsOf(list []results.Latency) *spreads {
	if list == nil {
		return nil
	}
	s := latencyScale(list)
	rows := make([]spreadRow, len(list))
	for i, l := range list {
		rows[i] = spreadRow{l, s.spread(l)}
	}
	return &spreads{s.Ends(), rows}
}

// stageLatencies has the times in stages in the form of latencies.
func stageLatencies(stages []results.StageTime) []results.Latency {
	var list []results.Latency
	for _, s := range stages {
		list = append(list, results.Latency{Operation: s.Stage, Count: s.Count, P50: s.P50, P95: s.P95, P99: s.P99})
	}
	return list
}

// opened is how many classes of failures show their examples without a click.
const opened = 3

// current reports whether the account is about a run of the history.
func (a *Account) current(r Run) bool {
	return slices.ContainsFunc(a.Runs, func(c Run) bool { return c.Report.Run == r.Report.Run })
}

// className is the class of a failure; the partner's rejections and rows that are not settled may have none.
func className(f Failure) string { return cmp.Or(f.Class, "("+string(f.Stage)+")") }

// lagOf is how many messages are in the queue.
func lagOf(partitions []Partition) (n int64) {
	for _, p := range partitions {
		n += p.Lag
	}
	return n
}

// behind are the partitions that have messages left, at most MaxPartition of them.
func behind(partitions []Partition) (list []Partition) {
	for _, p := range partitions {
		if p.Lag > 0 && len(list) < MaxPartition {
			list = append(list, p)
		}
	}
	return list
}
