package ledger

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/purser-onboard/purser/pipeline"
)

func TestUpdateStoresTheWholeRecord(t *testing.T) {
	l, o := openTest(t)
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	at := o.Now().Add(1234567 * time.Microsecond)
	r = advance(t, l, r, pipeline.Creating, func(r *pipeline.Record) { r.CreateKey = createKey(0, at) })
	r = advance(t, l, r, pipeline.Challenged, func(r *pipeline.Record) {
		r.CustomerID, r.PartnerStatus = "c1", "initiating"
		r.Challenge, r.ChallengeAt = "line one\nline two", at
		r.CreateKey.Outcome, r.CreateKey.LastSent = pipeline.KeySettled, at.Add(time.Second)
	})
	r = advance(t, l, r, pipeline.Signing, func(r *pipeline.Record) { r.ExternalTxID = "tx" })
	r = advance(t, l, r, pipeline.Submitting, func(r *pipeline.Record) {
		r.Signature, r.Refusals, r.Attempts = "0xsig", 1, 2
		r.SubmitKey = testKey(pipeline.OpSubmit, 3, at)
	})
	if got := get(t, l, r.Row); !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v\nwant %+v", got, r)
	}
	r = advance(t, l, r, pipeline.Onboarded, func(r *pipeline.Record) { r.AlreadyOnboarded = true })
	if got := get(t, l, r.Row); !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v\nwant %+v", got, r)
	}
}

func TestUpdateTimestampIsTheTransactions(t *testing.T) {
	c := newClock()
	o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	o.Now = c.Now
	l := reopen(t, o)
	accepted := c.Now()
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	c.advance(-time.Hour) // clocks step back, too
	advance(t, l, r, pipeline.Creating, func(r *pipeline.Record) { r.UpdatedAt, r.AcceptedAt = time.Time{}, time.Time{} })
	got := get(t, l, r.Row)
	if !got.UpdatedAt.Equal(accepted.Add(-time.Hour)) || !got.AcceptedAt.Equal(accepted) {
		t.Errorf("got updated %v, accepted %v; want %v, %v", got.UpdatedAt, got.AcceptedAt,
			accepted.Add(-time.Hour), accepted)
	}
}

func TestUpdateIsCompareAndSet(t *testing.T) {
	l, _ := openTest(t)
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	moved := advance(t, l, r, pipeline.Creating, nil)
	stale := r
	stale.Stage, stale.Class = pipeline.Failed, "stale"
	if _, err := l.Update(t.Context(), stale); !errors.Is(err, pipeline.ErrStale) {
		t.Errorf("stale update: got %v, want ErrStale", err)
	}
	moved.Version++
	if _, err := l.Update(t.Context(), moved); !errors.Is(err, pipeline.ErrStale) {
		t.Errorf("version too high: got %v, want ErrStale", err)
	}
	moved.ID = 77
	if _, err := l.Update(t.Context(), moved); !errors.Is(err, errNotFound) {
		t.Errorf("unknown row: got %v, want errNotFound", err)
	}
	if got := get(t, l, r.Row); got.Stage != pipeline.Creating || got.Version != 2 || got.Class != "" {
		t.Errorf("got %+v, want stage creating at version 2 without class", got)
	}
}

// TestUpdateKnowsTheSteps: every step that the state machine allows is stored, and every other is an error, as are all
// steps from a terminal stage, which only Accept takes.
func TestUpdateKnowsTheSteps(t *testing.T) {
	l, _ := openTest(t)
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	for _, from := range pipeline.Stages() {
		for _, to := range append(pipeline.Stages(), "sleeping") {
			execSQL(t, l, `UPDATE rows SET stage = ?, version = 1 WHERE id = ?`, string(from), r.ID)
			next := r
			next.Stage, next.Version = to, 1
			version, err := l.Update(t.Context(), next)
			if !from.Terminal() && from.CanBecome(to) {
				if err != nil || version != 2 {
					t.Errorf("%s to %s: got version %d, %v; want 2", from, to, version, err)
				}
				continue
			}
			var step *stepError
			if !errors.As(err, &step) || *step != (stepError{ID: r.ID, From: from, To: to}) {
				t.Errorf("%s to %s: got %v, want a stepError", from, to, err)
			}
		}
	}
}

// TestUpdateLeavesTheImportToAccept: a later import of an unfinished row changes its import, file and line, and the
// worker's next update succeeds.
func TestUpdateLeavesTheImportToAccept(t *testing.T) {
	l, _ := openTest(t)
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	later := testRow(1, "i2")
	later.File, later.Line = "more.csv", 7
	if again := acceptOne(t, l, later, pipeline.Open); again.Version != r.Version || again.Row != later {
		t.Errorf("later import: got %+v, want row %+v at version %d", again, later, r.Version)
	}
	advance(t, l, r, pipeline.Creating, nil)
	if got := get(t, l, r.Row); got.Row != later || got.Stage != pipeline.Creating {
		t.Errorf("got %+v, want row %+v in stage creating", got, later)
	}
}

func TestKeysAreKept(t *testing.T) {
	l, o := openTest(t)
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	first, second := createKey(0, o.Now()), createKey(1, o.Now().Add(time.Minute))
	r = advance(t, l, r, pipeline.Creating, func(r *pipeline.Record) { r.CreateKey = first })
	first.Outcome, first.LastSent = pipeline.KeyAnswered, o.Now().Add(time.Second)
	r = advance(t, l, r, pipeline.Creating, func(r *pipeline.Record) { r.CreateKey = first })
	r = advance(t, l, r, pipeline.Creating, func(r *pipeline.Record) { r.CreateKey = second })
	submit := testKey(pipeline.OpSubmit, 0, o.Now())
	r = advance(t, l, r, pipeline.Challenged, func(r *pipeline.Record) { r.SubmitKey = submit })
	keys, err := l.keys(t.Context(), r.ID)
	if want := []pipeline.Key{first, second, submit}; err != nil || !reflect.DeepEqual(keys, want) {
		t.Errorf("got %+v, %v; want %+v", keys, err, want)
	}
	// A record without keys does not delete the row's keys.
	r = advance(t, l, r, pipeline.Challenged, func(r *pipeline.Record) {
		r.CreateKey, r.SubmitKey = pipeline.Key{}, pipeline.Key{}
	})
	if got := get(t, l, r.Row); got.CreateKey != second || got.SubmitKey != submit {
		t.Errorf("got %+v and %+v, want %+v and %+v", got.CreateKey, got.SubmitKey, second, submit)
	}
}

// TestAKeysPayloadNeverChanges: the partner answers 422 to a key with another payload, so the ledger does not record
// it.
func TestAKeysPayloadNeverChanges(t *testing.T) {
	l, o := openTest(t)
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	r = advance(t, l, r, pipeline.Creating, func(r *pipeline.Record) { r.CreateKey = createKey(0, o.Now()) })
	for name, spoil := range map[string]func(*pipeline.Key){
		"digest": func(k *pipeline.Key) { k.Digest[0]++ },
		"id":     func(k *pipeline.Key) { k.ID[0]++ },
	} {
		next := r
		next.Class = "spoiled"
		spoil(&next.CreateKey)
		_, err := l.Update(t.Context(), next)
		var key *keyError
		if !errors.As(err, &key) || *key != (keyError{ID: r.ID, Operation: pipeline.OpCreate}) {
			t.Errorf("%s: got %v, want a keyError", name, err)
		}
	}
	wrong := r
	wrong.SubmitKey = createKey(0, o.Now())
	if _, err := l.Update(t.Context(), wrong); err == nil {
		t.Error("create key as submit key: got no error, want one")
	}
	if got := get(t, l, r.Row); !reflect.DeepEqual(got, r) {
		t.Errorf("after failed updates: got %+v, want %+v", got, r)
	}
}

func TestSetPartnerStatuses(t *testing.T) {
	l, _ := openTest(t)
	r := settle(t, l, acceptOne(t, l, testRow(1, "i1"), pipeline.Open), pipeline.Onboarded, "c1")
	for range 2 {
		if err := l.SetPartnerStatuses(t.Context(), map[int64]string{r.ID: "rejected"}); err != nil {
			t.Fatal(err)
		}
	}
	got := get(t, l, r.Row)
	if got.PartnerStatus != "rejected" || got.Stage != pipeline.Onboarded || got.Version != r.Version {
		t.Errorf("got %+v, want status rejected, stage onboarded and version %d", got, r.Version)
	}
	if err := l.SetPartnerStatuses(t.Context(), map[int64]string{77: "active"}); !errors.Is(err, errNotFound) {
		t.Errorf("unknown row: got %v, want errNotFound", err)
	}
}

func TestEndedContextWritesNothing(t *testing.T) {
	l, _ := openTest(t)
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.Stage = pipeline.Creating
	if _, err := l.Update(ctx, r); !errors.Is(err, context.Canceled) {
		t.Errorf("Update: got %v, want context.Canceled", err)
	}
	if _, err := l.Accept(ctx, []pipeline.Row{testRow(2, "i1")}); !errors.Is(err, context.Canceled) {
		t.Errorf("Accept: got %v, want context.Canceled", err)
	}
	if got := get(t, l, r.Row); got.Version != 1 {
		t.Errorf("got %+v, want version 1", got)
	}
}

// TestFrequentStatementsBuildNoIndex: the statements that run for each row, their triggers included, make no temporary
// index, which takes as long as the rest of a statement.
func TestFrequentStatementsBuildNoIndex(t *testing.T) {
	l, _ := openTest(t)
	for _, query := range []string{insertRowQuery, updateQuery, putKeyQuery, putNonceQuery, removeFromOutboxQuery} {
		for _, opcode := range opcodes(t, l, query) {
			switch opcode {
			case "OpenEphemeral", "OpenAutoindex", "SorterOpen":
				t.Errorf("%s: got %s, want none", query, opcode)
			}
		}
	}
}

// TestStatementsAreParsedOnce: no statement that runs for a row is parsed again, with its values or for another reason.
// SQLite asks an authorizer while it parses.
func TestStatementsAreParsedOnce(t *testing.T) {
	l, _ := newFollower(t, newTopic(1))
	var parsed []string
	err := l.writer.stmts.conn.Raw(func(conn any) error {
		authorize := func(_ int, a, b, _ string) int {
			parsed = append(parsed, a+" "+b)
			return 0
		}
		conn.(*sqlite3.SQLiteConn).RegisterAuthorizer(authorize) //nolint:forcetypeassert // it is the only driver
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	restarts := func(n int) { // a row that fails twice, and is imported again meanwhile and afterwards
		for _, importID := range []string{"import-1", "import-2", "import-3"} {
			r := acceptOne(t, l, testRow(n, importID), pipeline.Open)
			r = advance(t, l, r, pipeline.Creating, func(r *pipeline.Record) { r.CreateKey = createKey(0, noClock()) })
			acceptOne(t, l, testRow(n, importID+"-again"), pipeline.Open)
			r = advance(t, l, r, pipeline.Challenged, func(r *pipeline.Record) { r.CustomerID = "c" })
			r = use(t, l, r, fmt.Sprint("nonce", n, importID), "challenge", nil)
			advance(t, l, r, pipeline.Failed, nil)
		}
	}
	restarts(1)
	if len(parsed) == 0 {
		t.Fatal("got nothing parsed after the authorizer was set, which has all statements parsed again; want it seen")
	}
	parsed = nil
	restarts(2)
	if len(parsed) > 0 {
		t.Errorf("for a second row: got %d columns and tables asked for while parsing, first %q; want none",
			len(parsed), parsed[0])
	}
}

// opcodes returns the instructions of a statement and of its triggers (sqlite.org/opcode.html).
func opcodes(t *testing.T, l *Ledger, query string) (all []string) {
	t.Helper()
	rows, err := l.conn.QueryContext(t.Context(), `EXPLAIN `+query, make([]any, strings.Count(query, "?"))...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var opcode string
	var other any
	for rows.Next() {
		if err := rows.Scan(&other, &opcode, &other, &other, &other, &other, &other, &other); err != nil {
			t.Fatal(err)
		}
		all = append(all, opcode)
	}
	if err := rows.Err(); err != nil || len(all) == 0 {
		t.Fatalf("got %d instructions, %v; want some", len(all), err)
	}
	return all
}
