package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/google/uuid"

	"github.com/purser-onboard/purser/pipeline"
)

var testEnvironment = Environment{APIHost: "api.example.com", APIKeyID: "key-1"}

// clock is a clock that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func testOptions(path string) Options {
	return Options{Path: path, Environment: testEnvironment, Now: newClock().Now, Program: "purser 0.1.0"}
}

// openTest opens a new ledger that is closed with the test.
func openTest(t testing.TB) (*Ledger, Options) {
	t.Helper()
	o := testOptions(filepath.Join(t.TempDir(), "data", "ledger.db"))
	return reopen(t, o), o
}

func reopen(t testing.TB, o Options) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close: got %v, want nil", err)
		}
	})
	return l
}

// account is the nth account of the tests. The accounts are as scattered as real addresses.
func account(n int) pipeline.Account {
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], uint64(n))
	digest := sha256.Sum256(number[:])
	return pipeline.Account{Chain: 300, Address: common.BytesToAddress(digest[:20])}
}

// testRow is the nth row of an export.
func testRow(n int, importID string) pipeline.Row {
	return pipeline.Row{
		Account: account(n), ExternalID: fmt.Sprintf("cust-%07d", n),
		ImportID: importID, File: "customers.csv", Line: n + 2,
	}
}

func pair(n, externalID int, importID string) pipeline.Row {
	row := testRow(n, importID)
	row.ExternalID = testRow(externalID, importID).ExternalID
	return row
}

func accept(t testing.TB, l *Ledger, rows ...pipeline.Row) []pipeline.Acceptance {
	t.Helper()
	answers, err := l.Accept(t.Context(), rows)
	if err != nil {
		t.Fatal(err)
	}
	if len(answers) != len(rows) {
		t.Fatalf("got %d answers, want %d", len(answers), len(rows))
	}
	return answers
}

// acceptOne accepts a row and requires an admission.
func acceptOne(t testing.TB, l *Ledger, row pipeline.Row, want pipeline.Admission) pipeline.Record {
	t.Helper()
	answer := accept(t, l, row)[0]
	if answer.Admission != want {
		t.Fatalf("%s: got admission %d, want %d; record %+v", row.Where(), answer.Admission, want, answer.Record)
	}
	return answer.Record
}

// advance stores a record in the next stage.
func advance(
	t testing.TB, l *Ledger, r pipeline.Record, stage pipeline.Stage, change func(*pipeline.Record),
) pipeline.Record {
	t.Helper()
	r.Stage = stage
	if change != nil {
		change(&r)
	}
	version, err := l.Update(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	r.Version = version
	return r
}

func createKey(generation int, at time.Time) pipeline.Key {
	return testKey(pipeline.OpCreate, generation, at)
}

func testKey(operation pipeline.Operation, generation int, at time.Time) pipeline.Key {
	name := fmt.Sprintf("%s %d", operation, generation)
	return pipeline.Key{
		Operation: operation, Generation: generation, ID: uuid.NewSHA1(uuid.NameSpaceURL, []byte(name)),
		Digest: sha256.Sum256([]byte(name)), FirstSent: at, LastSent: at, Outcome: pipeline.KeyOpen,
	}
}

// derived is a key of a record as Purser derives it.
func derived(r pipeline.Record, operation pipeline.Operation, generation int) pipeline.Key {
	k := testKey(operation, generation, noClock())
	from := pipeline.Keyring{APIHost: testEnvironment.APIHost, APIKeyID: testEnvironment.APIKeyID}
	if k.ID = from.Create(r.Row, generation); operation == pipeline.OpSubmit {
		k.ID = from.Submit(r.CustomerID, k.Digest, generation)
	}
	return k
}

// settle takes a new row to a terminal stage in the fewest steps.
func settle(t testing.TB, l *Ledger, r pipeline.Record, stage pipeline.Stage, customer string) pipeline.Record {
	t.Helper()
	r = advance(t, l, r, pipeline.Creating, func(r *pipeline.Record) {
		if r.CreateKey.IsZero() {
			r.CreateKey = derived(*r, pipeline.OpCreate, 0)
		}
	})
	if stage == pipeline.Refused {
		r = advance(t, l, r, pipeline.Challenged, nil)
	}
	return advance(t, l, r, stage, func(r *pipeline.Record) {
		r.CustomerID = customer
		r.CreateKey.Outcome = pipeline.KeySettled
		if stage != pipeline.Onboarded {
			r.Class, r.Reason, r.Attempts = "test", "it went wrong", 2
		}
	})
}

// get reads the row with that CAIP-10 account id and externalId.
func (q *queries) get(ctx context.Context, chainID, externalID string) (pipeline.Record, error) {
	record, _, err := scanRecord(q.source.QueryRowContext(ctx,
		recordQuery+` WHERE r.external_id = ? AND r.chain_id = ?`, externalID, chainID))
	return record, translate(q.path, err)
}

// keys reads every idempotency key of a row, by operation and generation.
func (q *queries) keys(ctx context.Context, id int64) (keys []pipeline.Key, err error) {
	rows, err := q.source.QueryContext(ctx, keysQuery, id)
	if err != nil {
		return nil, err
	}
	err = eachKey(rows, func(k pipeline.Key) { keys = append(keys, k) })
	return keys, err
}

func get(t testing.TB, l *Ledger, row pipeline.Row) pipeline.Record {
	t.Helper()
	r, err := l.get(t.Context(), row.Account.String(), row.ExternalID)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// execSQL runs a statement on the writing connection.
func execSQL(t testing.TB, l *Ledger, query string, args ...any) {
	t.Helper()
	err := l.writer.do(t.Context(), 1, func(tx *tx) error {
		_, err := l.conn.ExecContext(context.WithoutCancel(t.Context()), query, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
