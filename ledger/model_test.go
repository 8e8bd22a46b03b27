package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/purser-onboard/purser/pipeline"
)

// modelRow is a row of the model.
type modelRow struct {
	pipeline.Row
	id, version int64
	stage       pipeline.Stage
	class       string
	customer    string
	attempts    int
	generation  int // of the create key, -1 for none
	hasClaims   bool
	had         map[string]bool // earlier imports
}

// model does without tables, indexes and transactions what the ledger does with them.
type model struct {
	rows []*modelRow // in order of arrival
}

func (m *model) find(row pipeline.Row) *modelRow {
	for _, r := range m.rows {
		if r.Account == row.Account && r.ExternalID == row.ExternalID {
			return r
		}
	}
	return nil
}

// takeClaims takes the claims for a row; false if another row keeps them.
func (m *model) takeClaims(row pipeline.Row) bool {
	var losing []*modelRow
	for _, r := range m.rows {
		if !r.hasClaims || r.Account != row.Account && r.ExternalID != row.ExternalID {
			continue
		}
		ended := r.stage == pipeline.Failed || r.stage == pipeline.Conflict
		unanswered := r.generation >= 0 // the keys of the test are never answered, and its clock stands still
		if !ended || r.customer != "" || r.ImportID == row.ImportID || unanswered {
			return false
		}
		losing = append(losing, r)
	}
	for _, r := range losing {
		r.hasClaims = false
		r.version++
	}
	return true
}

func (m *model) accept(row pipeline.Row) (pipeline.Admission, *modelRow) {
	r := m.find(row)
	if r == nil {
		r = &modelRow{
			Row: row, id: int64(len(m.rows) + 1), version: 1, stage: pipeline.Planned, generation: -1,
			hasClaims: true, had: map[string]bool{},
		}
		if m.takeClaims(row) {
			m.rows = append(m.rows, r)
			return pipeline.Open, r
		}
		r.stage, r.class, r.hasClaims = pipeline.Conflict, classDuplicate, false
		m.rows = append(m.rows, r)
		return pipeline.Contradicted, r
	}
	isNew := row.ImportID != r.ImportID && !r.had[row.ImportID]
	if r.stage.Terminal() && (!r.stage.Retryable() || !isNew) {
		return pipeline.Settled, r
	}
	if !isNew {
		return pipeline.Open, r
	}
	allowed := r.hasClaims || m.takeClaims(row)
	r.had[r.ImportID] = true
	r.Row = row
	switch {
	case !r.stage.Terminal():
		return pipeline.Open, r
	case !allowed:
		r.stage, r.class = pipeline.Conflict, classDuplicate
		r.version++
		return pipeline.Contradicted, r
	}
	r.stage, r.class, r.attempts, r.hasClaims = pipeline.Planned, "", 0, true
	r.version++
	return pipeline.Open, r
}

func (r *modelRow) equal(got pipeline.Record) error {
	generation := -1
	if !got.CreateKey.IsZero() {
		generation = got.CreateKey.Generation
	}
	stored := modelRow{
		Row: got.Row, id: got.ID, version: got.Version, stage: got.Stage, class: got.Class, customer: got.CustomerID,
		attempts: got.Attempts, generation: generation,
	}
	want := *r
	want.had, want.hasClaims = nil, false
	if want.Row != stored.Row || fmt.Sprint(want) != fmt.Sprint(stored) {
		return fmt.Errorf("got %+v, want %+v", stored, want)
	}
	return nil
}

// TestModel applies random exports, imports, updates and restarts to the ledger and to the model, and compares them
// after each step. rapid prints the steps of a failure, shortened, and the seed.
func TestModel(t *testing.T) {
	l, o := openTest(t)
	rapid.Check(t, func(rt *rapid.T) {
		for _, table := range []string{"outbox", "keys", "row_imports", "rows"} {
			execSQL(t, l, "DELETE FROM "+table)
		}
		m := &model{}
		drawRow := rapid.Custom(func(rt *rapid.T) pipeline.Row {
			row := pair(rapid.IntRange(1, 4).Draw(rt, "account"), rapid.IntRange(1, 4).Draw(rt, "externalId"),
				rapid.SampledFrom([]string{"i1", "i2", "i3"}).Draw(rt, "import"))
			row.Line = rapid.IntRange(2, 9).Draw(rt, "line")
			return row
		})
		drawKnown := func(rt *rapid.T) *modelRow {
			if len(m.rows) == 0 {
				rt.Skip("no rows yet")
			}
			return rapid.SampledFrom(m.rows).Draw(rt, "row")
		}
		rt.Repeat(map[string]func(*rapid.T){
			"accept": func(rt *rapid.T) {
				rows := rapid.SliceOfN(drawRow, 1, 5).Draw(rt, "batch")
				answers, err := l.Accept(t.Context(), rows)
				if err != nil {
					rt.Fatal(err)
				}
				for i, row := range rows {
					admission, want := m.accept(row)
					got := answers[i]
					if got.Admission != admission || got.Record.ID != want.id || got.Record.Stage != want.stage ||
						got.Record.Row != want.Row || got.Record.Class != want.class || got.Record.CustomerID != want.customer {
						rt.Fatalf("row %d: got admission %d with %+v, want %d with %+v", i, got.Admission, got.Record,
							admission, want)
					}
					if admission != pipeline.Settled && got.Record.Version != want.version {
						rt.Fatalf("row %d: got version %d, want %d", i, got.Record.Version, want.version)
					}
				}
			},
			"update": func(rt *rapid.T) {
				row := drawKnown(rt)
				next, err := l.get(t.Context(), row.Account.String(), row.ExternalID)
				if err != nil {
					rt.Fatal(err)
				}
				from := next.Stage
				next.Stage = rapid.SampledFrom(pipeline.Stages()).Draw(rt, "stage")
				next.Attempts++
				next.Class = rapid.SampledFrom([]string{"", "no-key"}).Draw(rt, "class")
				if rapid.Bool().Draw(rt, "customer") {
					next.CustomerID = "c1"
				}
				if rapid.Bool().Draw(rt, "key") {
					next.CreateKey = createKey(max(row.generation, 0)+rapid.IntRange(0, 1).Draw(rt, "generation"), o.Now())
				}
				stale := rapid.Bool().Draw(rt, "stale")
				if stale {
					next.Version--
				}
				version, err := l.Update(t.Context(), next)
				var step *stepError
				switch {
				case stale:
					if !errors.Is(err, pipeline.ErrStale) {
						rt.Fatalf("stale update: got %v, want ErrStale", err)
					}
				case from.Terminal() || !from.CanBecome(next.Stage):
					if !errors.As(err, &step) {
						rt.Fatalf("step from %s to %s: got %v, want a stepError", from, next.Stage, err)
					}
				case err != nil:
					rt.Fatal(err)
				default:
					row.version++
					row.stage, row.class, row.customer, row.attempts = next.Stage, next.Class, next.CustomerID, next.Attempts
					if !next.CreateKey.IsZero() {
						row.generation = next.CreateKey.Generation
					}
					if version != row.version {
						rt.Fatalf("got version %d, want %d", version, row.version)
					}
				}
			},
			"reopen": func(rt *rapid.T) {
				if rapid.IntRange(0, 9).Draw(rt, "dice") > 0 {
					rt.Skip("seldom")
				}
				if err := l.Close(); err != nil {
					rt.Fatal(err)
				}
				l = reopen(t, o)
			},
			"": func(rt *rapid.T) {
				var got []pipeline.Record
				err := l.Each(t.Context(), func(r pipeline.Record, _ []pipeline.Customer) error {
					got = append(got, r)
					return nil
				})
				if err != nil || len(got) != len(m.rows) {
					rt.Fatalf("got %d rows, %v; want %d", len(got), err, len(m.rows))
				}
				slices.SortFunc(got, func(a, b pipeline.Record) int { return cmp.Compare(a.ID, b.ID) })
				for i, r := range got {
					if err := m.rows[i].equal(r); err != nil {
						rt.Fatal(err)
					}
				}
			},
		})
	})
}
