package ledger

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/purser-onboard/purser/pipeline"
)

// TestFleetModel moves partitions between ledgers while rows are accepted, contradicted, updated and restarted, answers
// are lost and the topic is compacted. The new owner of a partition must have exactly the rows of the previous owner,
// including writes to the topic whose answer was lost.
func TestFleetModel(t *testing.T) {
	const ledgers, partitions = 3, 2
	dir := t.TempDir()
	books, sees := make([]*Ledger, ledgers), make([]*follower, ledgers)
	open := func(i int, shared *topic) {
		books[i], sees[i] = openFollower(t, filepath.Join(dir, fmt.Sprint(i), "ledger.db"), shared)
	}
	for i := range ledgers {
		open(i, newTopic(partitions))
	}
	rapid.Check(t, func(rt *rapid.T) {
		shared := newTopic(partitions)
		for i := range ledgers {
			for _, table := range []string{"changelog", "outbox", "keys", "row_imports", "rows"} {
				execSQL(t, books[i], "DELETE FROM "+table)
			}
			sees[i] = &follower{topic: shared, held: map[int]bool{}, epoch: 1}
			if err := books[i].Follow(sees[i], nil); err != nil {
				t.Fatal(err)
			}
		}
		owner := make([]int, partitions)
		for p := range partitions {
			restore(t, books[0], sees[0], p)
		}
		of := func(r pipeline.Row) (*Ledger, *follower) {
			p := sees[0].Partition(r.Account.String())
			return books[owner[p]], sees[owner[p]]
		}
		drawRow := rapid.Custom(func(rt *rapid.T) pipeline.Row {
			return pair(rapid.IntRange(1, 4).Draw(rt, "account"), rapid.IntRange(1, 3).Draw(rt, "externalId"),
				rapid.SampledFrom([]string{"i1", "i2", "i3"}).Draw(rt, "import"))
		})
		rt.Repeat(map[string]func(*rapid.T){
			"accept": func(rt *rapid.T) {
				row := drawRow.Draw(rt, "row")
				l, _ := of(row)
				if _, err := l.Accept(t.Context(), []pipeline.Row{row}); err != nil {
					rt.Fatal(err)
				}
			},
			"update": func(rt *rapid.T) {
				row := drawRow.Draw(rt, "row")
				l, f := of(row)
				next, err := l.get(t.Context(), row.Account.String(), row.ExternalID)
				if err != nil {
					rt.Skip("not there")
				}
				stage := rapid.SampledFrom(pipeline.Stages()).Draw(rt, "stage")
				if next.Stage.Terminal() || !next.Stage.CanBecome(stage) {
					rt.Skip("no such step")
				}
				next.Stage = stage
				if rapid.Bool().Draw(rt, "key") {
					generation := 0
					if !next.CreateKey.IsZero() {
						generation = next.CreateKey.Generation + 1
					}
					next.CreateKey = derived(next, pipeline.OpCreate, generation)
				}
				f.lose = rapid.IntRange(0, 5).Draw(rt, "dice") == 0
				losing := f.lose
				if _, err := l.Update(t.Context(), next); losing != errors.Is(err, errLost) {
					rt.Fatalf("Update: got %v, want the answer lost: %t", err, losing)
				}
				if losing { // ends the run; the next one restores
					p := f.Partition(row.Account.String())
					restore(t, l, f, p)
				}
			},
			"move": func(rt *rapid.T) {
				p, to := rapid.IntRange(0, partitions-1).Draw(rt, "partition"), rapid.IntRange(0, ledgers-1).Draw(rt, "to")
				from := owner[p]
				want := dump(t, books[from], sees[from], p)
				sees[from].held[p] = false
				owner[p] = to
				restore(t, books[to], sees[to], p)
				got := dump(t, books[to], sees[to], p)
				for _, all := range []map[string]*snapshot{want, got} {
					for _, s := range all { // claims depend on rows of other partitions, which ledgers have differently
						s.HasClaims = false
					}
				}
				if diff := difference(want, got); diff != "" {
					rt.Fatalf("partition %d moved from ledger %d to %d: got other rows than wanted\n%s", p, from, to, diff)
				}
			},
			"reopen": func(rt *rapid.T) {
				if rapid.IntRange(0, 5).Draw(rt, "dice") > 0 {
					rt.Skip("seldom")
				}
				i := rapid.IntRange(0, ledgers-1).Draw(rt, "ledger")
				if err := books[i].Close(); err != nil {
					rt.Fatal(err)
				}
				held := sees[i].held
				open(i, shared)
				for p := range held {
					if held[p] {
						restore(t, books[i], sees[i], p)
					}
				}
			},
			"compact": func(*rapid.T) { shared.compact() },
		})
	})
}
