package night

import (
	"fmt"
	"slices"

	"github.com/purser-onboard/purser/printable"
)

// ofRuns says of which runs the counts of a verdict are, if some have none.
func (a *Account) ofRuns() string {
	runs := a.uncounted()
	if len(runs) == 0 || !a.Runs[0].Ended() { // that the latest has no end is the verdict
		return ""
	}
	names := make([]string, len(runs))
	for i, r := range runs {
		names[i] = r.Report.Run + " of " + clock(r.Report.StartedAt)
	}
	n := int64(len(runs))
	return fmt.Sprintf(" The counts are those of %s: %s %s %s no end, and no counts.", a.counted(),
		printable.Plural(n, "run", "runs"), files(names), printable.Plural(n, "has", "have"))
}

// counted says of how many runs the counts are.
func (a *Account) counted() string {
	if n := len(a.uncounted()); n > 0 {
		return fmt.Sprintf("%d of %s", len(a.Runs)-n, printable.Count(len(a.Runs), "run", "runs"))
	}
	return printable.Count(len(a.Runs), "run", "runs")
}

// uncounted are the runs without counts, because they have no end.
func (a *Account) uncounted() (runs []Run) {
	for _, r := range a.Runs {
		if !r.Ended() {
			runs = append(runs, r)
		}
	}
	return runs
}

// distinct is how many messages the runs received, those once that a run gave back and a later one received again.
func (a *Account) distinct() (n int64) {
	var back int64
	for _, r := range slices.Backward(a.Runs) {
		received := r.Report.Rows.Received
		again := min(back, received)
		n += received - again
		back += r.returned() - again
	}
	return n
}

// returned is how many messages the run gave back unsettled.
func (r Run) returned() int64 {
	switch b := r.Report.Balance; {
	case b != nil:
		return b.Received.Returned
	case r.Report.Reason != "": // by an earlier version: it has not finished, or left rows to the custodian
		return unsettled(r.Report.Rows)
	}
	return 0
}

// lettersBefore is how many dead letters the latest run repeats of a run that the account is not about; 0 if the queue
// was read, and they are not there.
func (a *Account) lettersBefore() int64 {
	r := a.Runs[0].Report
	if slices.ContainsFunc(a.Runs, func(o Run) bool { return o.Report.Run == r.Repeats }) {
		return 0
	}
	if a.Left.Letters != nil {
		return min(r.RepeatedDeadLetters, a.Left.LetterCount)
	}
	return r.RepeatedDeadLetters
}
