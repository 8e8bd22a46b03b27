package night

import (
	"bytes"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/purser-onboard/purser/printable"
)

// Text returns the account for a terminal or a mail, in the order of the page.
func (a *Account) Text() []byte {
	var out bytes.Buffer
	w := writer{&out}
	w.line("%s: %s", a.Verdict.Word(), a.Verdict.Sentence)
	if a.Verdict.Reason != "" {
		w.line("reason: %s", a.Verdict.Reason)
	}
	for _, r := range a.Runs {
		w.line("run %s, %s, host %s, exit code %d", r.Report.Run, clock(r.Report.StartedAt), r.Host, r.Report.Exit)
	}
	a.textTodo(w)
	a.textBalance(w)
	a.textHistory(w)
	a.textFailures(w)
	a.textThroughput(w)
	a.textLeft(w)
	w.heading("Incidents")
	for _, i := range a.Incidents {
		to := "no end"
		if !i.To.IsZero() {
			to = i.To.UTC().Format("15:04")
		}
		w.line("%s to %s  %s: %s", clock(i.From), to, i.Kind, i.What)
	}
	w.noneOf(len(a.Incidents), a.Minutes == nil)
	w.heading("Effective settings")
	for _, s := range a.Settings {
		w.line("%s %s", s.Name, s.Value)
	}
	w.noneOf(len(a.Settings), true)
	return out.Bytes()
}

func (a *Account) textTodo(w writer) {
	w.heading("What to do now")
	for i, s := range a.Todo {
		w.line("%d. %s", i+1, s.Text)
		for _, c := range s.Commands {
			w.line("     %s", c)
		}
	}
	w.noneOf(len(a.Todo), false)
}

func (a *Account) textBalance(w writer) {
	w.heading("Balance")
	for _, s := range a.Balance {
		if s.Unknown != "" {
			w.line("%s", s.Unknown)
			continue
		}
		sign, note := "=", ""
		if s.Broken() {
			sign, note = "≠", fmt.Sprintf(" (does not add up by %s)", count(s.Difference))
		}
		text := ""
		for i, p := range s.Parts {
			if i > 0 {
				text += " + "
			}
			text += count(p.N) + " " + p.Name
		}
		w.line("%s: %s %s %s %s%s", s.Name, count(s.Total), s.Of, sign, text, note)
	}
	for _, i := range a.Imports {
		w.line("Rows of %s so far: %s", filesOf(i), outcome(i))
	}
	if len(a.Runs) > 0 && !a.Runs[0].Ended() {
		w.line("The counts of a run are known when it has ended.")
	}
	if a.Imports == nil {
		w.line("Imports: not recorded")
	}
}

func (a *Account) textHistory(w writer) {
	w.heading("The last runs")
	w.table(func(row func(cells ...any)) {
		row("STARTED", "EXIT", "RECEIVED", "ONBOARDED", "BAD", "TOOK", "RUN")
		for _, r := range a.History {
			exit, took := fmt.Sprint(r.Report.Exit), span(r.Took())
			if !r.Ended() {
				exit, took = "-", r.End()
			}
			row(clock(r.Report.StartedAt), exit, count(r.Report.Rows.Received), count(r.Report.Rows.Onboarded),
				count(r.Bad()), took, r.Report.Run)
		}
	})
}

func (a *Account) textFailures(w writer) {
	w.heading("Why rows failed")
	for _, f := range a.Failures {
		w.line("%s (%s): %s of these runs, %s in the ledger now", className(f), stageWord(f.Stage), count(f.Rows),
			count(f.Total))
		if f.Advice != "" {
			w.line("  %s (%s)", f.Advice, f.Runbook)
		}
		for _, e := range f.Examples {
			w.line("  %s:%d  %s  %s  %s", e.File, e.Line, e.ExternalID, e.Account, e.Reason)
		}
	}
	w.noneOf(len(a.Failures), !a.KnowsFailures())
	if a.Dismissed > 0 {
		w.line("not counted: %s", counted(a.Dismissed, "dismissed row", "dismissed rows"))
	}
	w.heading("Invalid rows")
	for _, i := range a.Invalid {
		w.line("%s  %s  %s: %s", i.File, i.Field, counted(i.Rows, "row", "rows"), i.Reason)
	}
	w.noneOf(len(a.Invalid), a.Invalid == nil)
}

func (a *Account) textThroughput(w writer) {
	w.heading("Throughput")
	if t := a.throughput(); t != nil {
		w.line("%s", t.Summary)
	} else {
		w.line("not recorded")
	}
	w.heading("Latency")
	if a.Latencies == nil {
		w.line("not recorded")
		return
	}
	w.table(func(row func(cells ...any)) {
		row("OPERATION", "CALLS", "P50", "P95", "P99")
		for _, l := range a.Latencies {
			row(l.Operation, count(l.Count), latency(l.P50), latency(l.P95), latency(l.P99))
		}
		for _, l := range a.Stages {
			row("in stage "+l.Stage, count(l.Count), latency(l.P50), latency(l.P95), latency(l.P99))
		}
	})
}

func (a *Account) textLeft(w writer) {
	l := a.Left
	w.heading("What is left")
	if l.Unread {
		w.noneOf(0, true)
		return
	}
	w.line("%s not settled, %s of them waiting for the custodian; %s not published", counted(l.Open, "row", "rows"),
		count(l.Waiting), counted(l.Unpublished, "event", "events"))
	for _, s := range l.Stages {
		latest := ""
		if s.Reason != "" {
			latest = "; the latest: " + s.Reason
		}
		w.line("  %s: %s%s", s.Stage, counted(s.Rows, "row", "rows"), latest)
	}
	if l.QueueProblem != "" {
		w.line("the queue was not read: %s", l.QueueProblem)
	} else {
		w.line("%s; %s in the queue", counted(l.LetterCount, "dead letter", "dead letters"),
			counted(lagOf(l.Lag), "message", "messages"))
	}
	for _, c := range l.Custodian {
		w.line("  %s:%d  waits %s  %s  %s  %s", c.File, c.Line, span(a.MadeAt.Sub(c.Since)), c.ExternalID, c.Account,
			c.Transaction)
	}
	for _, d := range l.Letters {
		w.line("  %s: %s; the latest: %s", d.Class, counted(d.Count, "dead letter", "dead letters"), d.Example)
	}
	for _, p := range behind(l.Lag) {
		w.line("  partition %d: %s", p.Partition, counted(p.Lag, "message", "messages"))
	}
}

// writer writes lines of printable text.
type writer struct{ out *bytes.Buffer }

func (w writer) line(format string, args ...any) {
	const most = 4 << 10
	w.out.WriteString(printable.Line(fmt.Sprintf(format, args...), most) + "\n")
}

func (w writer) heading(text string) {
	w.out.WriteString("\n" + text + "\n")
}

func (w writer) noneOf(n int, unknown bool) {
	switch {
	case n > 0:
	case unknown:
		w.line("not recorded")
	default:
		w.line("none")
	}
}

// table writes rows in columns.
func (w writer) table(fill func(row func(cells ...any))) {
	t := tabwriter.NewWriter(w.out, 0, 0, 2, ' ', 0)
	fill(func(cells ...any) {
		texts := make([]string, len(cells))
		for i, c := range cells {
			texts[i] = printable.Line(fmt.Sprint(c), maxText)
		}
		_, _ = t.Write([]byte(strings.Join(texts, "\t") + "\n")) // to a buffer
	})
	_ = t.Flush() // to a buffer
}
