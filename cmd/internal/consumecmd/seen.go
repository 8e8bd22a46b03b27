package consumecmd

import (
	"slices"
	"time"

	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/results"
)

// sight is the messages that the runs of a ledger have received.
type sight []seenRun // the latest first; a ledger has one run at a time

type seenRun struct {
	from, to time.Time // to is zero if the run has no end
	results.Report
}

func sightOf(runs []ledger.Run) (sight, error) {
	s := make(sight, 0, len(runs))
	for _, r := range runs {
		report, err := reportOf(r)
		if err != nil {
			return nil, err
		}
		s = append(s, seenRun{from: r.StartedAt, to: r.EndedAt, Report: report})
	}
	return s, nil
}

// notSeen is how many published rows of an import no run has received, at least; nil: that is not certain. Messages
// that came twice and dead letters of other imports make it too small, never too large.
func (s sight) notSeen(i *pipeline.Import, outcome results.ImportOutcome) *int64 {
	if i == nil || !i.Ended() || len(s) == 0 || outcome.Rows > i.Published {
		return nil
	}
	var received, dead int64
	for n, r := range s {
		to := r.to
		if to.IsZero() && n > 0 {
			to = s[n-1].from
		}
		at := slices.IndexFunc(r.Imports, func(other results.ReportImport) bool { return other.ID == i.ID })
		if at < 0 && !to.IsZero() && to.Before(i.StartedAt) { // one with rows of the import was after it, by whatever clock
			continue
		}
		switch {
		case r.to.IsZero(), r.Balance == nil: // it has no end, or is of an earlier version
			return nil
		case r.Settings["brokers"] != "": // other consumers may have received rows
			return nil
		case at < 0 && len(r.Imports) >= mostImports:
			return nil
		case at >= 0:
			received += r.Imports[at].Received
		}
		dead += r.Rows.DeadLettered
	}
	missing := i.Published - min(i.Published, max(received, outcome.Rows)+dead)
	return &missing
}
