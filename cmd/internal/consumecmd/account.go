package consumecmd

import (
	"context"
	"maps"
	"slices"

	"github.com/purser-onboard/purser/cmd/internal/importlog"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/results"
)

// mostImports is how many imports a report has.
const mostImports = 100

// account adds the imports and the balance to the report. The ledger keeps what the importers recorded. A run does not
// end otherwise because its account cannot be drawn up in full: that is a warning.
func (r *run) account(ctx context.Context, done ended) {
	ids := slices.Sorted(maps.Keys(done.imports)) // ids of version 7 sort by their time
	slices.Reverse(ids)
	ids = ids[:min(len(ids), mostImports)]
	if len(ids) > 0 {
		known := r.recorded(ctx, ids)
		stages, err := r.ledger.StagesByImport(ctx, ids)
		if err != nil {
			r.log.Warn("the outcome of the imports cannot be read", "error", err)
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
}

// recorded returns what importers recorded of the imports: here, or, by an earlier run, in the ledger.
func (r *run) recorded(ctx context.Context, ids []string) map[string]*pipeline.Import {
	all, err := importlog.In(r.c.DataDir).All()
	if err != nil {
		r.log.Warn("what the importer recorded cannot be read in full", "error", err)
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
		r.log.Warn("what the importer recorded cannot be stored", "error", err)
	}
	if len(wanted) == len(ids) {
		return wanted
	}
	const everything = 1 << 20
	earlier, err := r.ledger.Imports(ctx, everything)
	if err != nil {
		r.log.Warn("imports in the ledger cannot be read", "error", err)
	}
	for _, i := range earlier {
		if slices.Contains(ids, i.ID) && wanted[i.ID] == nil {
			wanted[i.ID] = &i
		}
	}
	return wanted
}
