package ledger

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/purser-onboard/purser/pipeline"
)

// use records a row's challenge with a nonce and requires an error, or nil.
func use(t testing.TB, l *Ledger, r pipeline.Record, nonce, challenge string, want error) pipeline.Record {
	t.Helper()
	if r.Stage == pipeline.Planned {
		r = advance(t, l, r, pipeline.Creating, nil)
	}
	if r.Stage != pipeline.Challenged {
		r = advance(t, l, r, pipeline.Challenged, nil)
	}
	next := r
	next.Stage, next.Nonce, next.Challenge = pipeline.Signing, nonce, challenge
	version, err := l.Update(t.Context(), next)
	if !errors.Is(err, want) {
		t.Fatalf("got error %v for nonce %s of %q, want %v", err, nonce, challenge, want)
	}
	if err != nil {
		return r
	}
	next.Version, next.Nonce = version, ""
	return next
}

// TestNonceIsUsedOnce: a nonce belongs to a single challenge of a single row, also after a restart.
func TestNonceIsUsedOnce(t *testing.T) {
	o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	l, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	first := use(t, l, acceptOne(t, l, testRow(1, "import-1"), pipeline.Open), "aaaaaaaa", "challenge 1", nil)
	second := use(t, l, acceptOne(t, l, testRow(2, "import-1"), pipeline.Open), "bbbbbbbb", "challenge 2", nil)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = reopen(t, o)
	if got := get(t, l, testRow(1, "import-1")); got.Version != first.Version || got.Nonce != "" {
		t.Fatalf("got %+v, want version %d and no nonce", got, first.Version)
	}
	first = use(t, l, first, "aaaaaaaa", "challenge 1", nil) // read again
	use(t, l, first, "aaaaaaaa", "challenge 1, later", pipeline.ErrNonceUsed)
	use(t, l, second, "aaaaaaaa", "challenge 2", pipeline.ErrNonceUsed)
	use(t, l, acceptOne(t, l, testRow(3, "import-1"), pipeline.Open), "bbbbbbbb", "challenge 2", pipeline.ErrNonceUsed)
	if got := get(t, l, testRow(3, "import-1")); got.Stage != pipeline.Challenged {
		t.Errorf("got stage %s after the failed update, want %s: nothing is written", got.Stage, pipeline.Challenged)
	}
}

// TestNoncesMoveWithTheirRows: the next owner of a partition knows the nonces of all its challenges, including replaced
// ones, even if the topic was compacted.
func TestNoncesMoveWithTheirRows(t *testing.T) {
	shared := newTopic(1)
	l, f := newFollower(t, shared)
	r := use(t, l, acceptOne(t, l, testRow(1, "import-1"), pipeline.Open), "aaaaaaaa", "challenge 1", nil)
	r = use(t, l, r, "bbbbbbbb", "challenge 2", nil)
	f.held[0] = false
	shared.compact()

	next, _ := newFollower(t, shared)
	other := acceptOne(t, next, testRow(2, "import-1"), pipeline.Open)
	other = use(t, next, other, "aaaaaaaa", "challenge 3", pipeline.ErrNonceUsed)
	use(t, next, other, "bbbbbbbb", "challenge 3", pipeline.ErrNonceUsed)
	moved := get(t, next, testRow(1, "import-1"))
	if moved.Version != r.Version {
		t.Fatalf("got version %d, want %d", moved.Version, r.Version)
	}
	use(t, next, moved, "bbbbbbbb", "challenge 2", nil)
}

// BenchmarkNonce compares updates that record a nonce with updates that do not, in groups of 256.
func BenchmarkNonce(b *testing.B) {
	for _, with := range []bool{false, true} {
		b.Run(fmt.Sprintf("nonce=%v", with), func(b *testing.B) {
			const group = 256
			l, _ := openTest(b)
			var records []pipeline.Record
			for i := range group {
				r := advance(b, l, acceptOne(b, l, testRow(i, "import-1"), pipeline.Open), pipeline.Creating, nil)
				records = append(records, advance(b, l, r, pipeline.Challenged, nil))
			}
			b.ResetTimer()
			for n := 0; n < b.N; n += group {
				err := l.writer.do(b.Context(), group, func(t *tx) error {
					for i := range records {
						err := t.direct(func() error {
							_, err := t.update.run(t.ctx, "challenged", "", "", "", "", "", nil, "", "", int64(0), int64(0), false,
								nil, nil, int64(1), records[i].ID, records[i].Version, ",challenged,")
							return err
						})
						if err != nil {
							return err
						}
						records[i].Version++
						next := pipeline.Record{ID: records[i].ID, Challenge: "x"}
						if with {
							next.Nonce = fmt.Sprintf("nonce-%d-%d", n, i)
						}
						if err := t.claimNonce(next); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
		})
	}
}
