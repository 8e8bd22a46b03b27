package consumecmd

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/importlog"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/results"
)

// mostImports is how many imports a report has.
const mostImports = 100

// mostRuns is how many runs are read to determine the received rows: more than a night can have.
const mostRuns = 1000

// account adds the imports and the balance to the report. The ledger keeps what the importers recorded. A run does not
// end otherwise because its account cannot be drawn up in full: that is a warning. So are rows that a drained queue did
// not have.
func (r *run) account(ctx context.Context, done ended, drained bool) {
	ids := slices.Sorted(maps.Keys(done.imports)) // ids of version 7 sort by their time
	slices.Reverse(ids)
	ids = ids[:min(len(ids), mostImports)]
	if len(ids) > 0 {
		known := r.recorded(ctx, ids)
		stages, err := r.ledger.StagesByImport(ctx, ids)
		if err != nil {
			r.log.Warn("cannot read the outcomes of the imports", "error", err)
		}
		for _, id := range ids {
			n := done.imports[id]
			i := results.ReportImport{
				ID: id, Received: n.Received, Earlier: n.Earlier, Outcome: results.OutcomeOf(stages[id]), Importer: known[id],
			}
			if n.Earlier > 0 {
				earlier := results.OutcomeOf(n.EarlierStages)
				i.EarlierOutcome = &earlier
			}
			r.report.Imports = append(r.report.Imports, i)
		}
	}
	r.report.Balance = results.BalanceOf(done.tally, r.report.Imports)
	published, err := r.accountPublished(ctx, done)
	if err != nil {
		r.log.Warn("cannot determine whether all published rows were received", "error", err)
	}
	if drained {
		r.warnOfUnseen(published)
	}
}

// warnOfUnseen reports published rows that must have been in the queue when this run began to drain it, and were not.
func (r *run) warnOfUnseen(published []results.ReportImport) {
	for _, i := range published {
		if i.NotSeen == nil || *i.NotSeen == 0 || !i.Importer.EndedAt.Before(r.report.StartedAt) ||
			results.PublishedAgain(published, *i.Importer) {
			continue
		}
		names := make([]string, len(i.Importer.Files))
		for n, f := range i.Importer.Files {
			names[n] = f.Name
		}
		r.log.Warn("published rows are neither in the queue nor in the ledger (was either replaced?): "+
			"import the files again", "rows", *i.NotSeen, "files", names, "import", i.ID)
	}
}

// accountPublished adds what became of the rows that were published for this run, and returns it by import.
func (r *run) accountPublished(ctx context.Context, done ended) ([]results.ReportImport, error) {
	recorded, err := importlog.In(r.c.DataDir).All(r.c.Topic)
	if err != nil {
		return nil, err
	}
	recorded = slices.DeleteFunc(recorded, func(i pipeline.Import) bool {
		return !slices.ContainsFunc(r.report.Imports, func(of results.ReportImport) bool { return of.ID == i.ID }) &&
			i.StartedAt.Before(r.report.StartedAt.Add(-tonight))
	})
	runs, err := r.ledger.Runs(ctx, mostRuns)
	if err != nil {
		return nil, err
	}
	seen, err := sightOf(slices.DeleteFunc(runs, func(other ledger.Run) bool { return other.ID == r.id }))
	if err != nil {
		return nil, err
	}
	now := seenRun{from: r.report.StartedAt, to: time.Now(), Report: r.report}
	now.Rows.DeadLettered = done.tally.DeadLettered
	seen = append(sight{now}, seen...)
	ids := make([]string, len(recorded))
	for n, i := range recorded {
		ids[n] = i.ID
	}
	stages, err := r.ledger.StagesByImport(ctx, ids)
	if err != nil {
		return nil, err
	}
	all := make([]results.ReportImport, len(recorded))
	for n, i := range recorded {
		all[n] = results.ReportImport{ID: i.ID, Outcome: results.OutcomeOf(stages[i.ID]), Importer: &i}
		all[n].NotSeen = seen.notSeen(&i, all[n].Outcome)
		for m := range r.report.Imports {
			if r.report.Imports[m].ID == i.ID {
				r.report.Imports[m].NotSeen = all[n].NotSeen
			}
		}
	}
	r.report.Balance.Published = results.PublishedOf(all)
	return all, nil
}

// recorded returns what importers recorded of the imports: here, or, by an earlier run, in the ledger.
func (r *run) recorded(ctx context.Context, ids []string) map[string]*pipeline.Import {
	all, err := importlog.In(r.c.DataDir).All(r.c.Topic)
	if err != nil {
		r.log.Warn("cannot read all of the importer's records", "error", err)
	}
	wanted := make(map[string]*pipeline.Import, len(ids))
	var here []pipeline.Import
	for _, i := range all {
		if slices.Contains(ids, i.ID) {
			here = append(here, i)
			wanted[i.ID] = &i
		}
	}
	if err := r.ledger.PutImports(ctx, here); err != nil {
		r.log.Warn("cannot store the importer's records", "error", err)
	}
	if len(wanted) == len(ids) {
		return wanted
	}
	const everything = 1 << 20
	earlier, err := r.ledger.Imports(ctx, everything)
	if err != nil {
		r.log.Warn("cannot read the imports in the ledger", "error", err)
	}
	for _, i := range earlier {
		if slices.Contains(ids, i.ID) && wanted[i.ID] == nil {
			wanted[i.ID] = &i
		}
	}
	return wanted
}
