package ledger

import (
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

func TestAcceptNewRow(t *testing.T) {
	l, o := openTest(t)
	row := testRow(1, "i1")
	r := acceptOne(t, l, row, pipeline.Open)
	want := pipeline.Record{
		Row: row, FirstFile: row.File, FirstLine: row.Line, ID: r.ID, Version: 1, Stage: pipeline.Planned,
		AcceptedAt: o.Now(), UpdatedAt: o.Now(),
	}
	if r.ID == 0 || !reflect.DeepEqual(r, want) {
		t.Errorf("got %+v, want %+v", r, want)
	}
	if stored := get(t, l, row); !reflect.DeepEqual(stored, r) {
		t.Errorf("stored: got %+v, want %+v", stored, r)
	}
	if again := acceptOne(t, l, row, pipeline.Open); !reflect.DeepEqual(again, r) {
		t.Errorf("accepted again: got %+v, want %+v", again, r)
	}
}

// TestAcceptAgain: the answer for a row that is delivered again depends on its stage and on whether its import is new.
func TestAcceptAgain(t *testing.T) {
	for _, c := range []struct {
		stage    pipeline.Stage
		customer string
		same     pipeline.Admission
		newer    pipeline.Admission
	}{
		{pipeline.Planned, "", pipeline.Open, pipeline.Open},
		{pipeline.Creating, "", pipeline.Open, pipeline.Open},
		{pipeline.Onboarded, "c1", pipeline.Settled, pipeline.Settled},
		{pipeline.Rejected, "c1", pipeline.Settled, pipeline.Settled},
		{pipeline.Failed, "", pipeline.Settled, pipeline.Open},
		{pipeline.Failed, "c1", pipeline.Settled, pipeline.Open},
		{pipeline.Conflict, "", pipeline.Settled, pipeline.Open},
		{pipeline.Refused, "c1", pipeline.Settled, pipeline.Open},
	} {
		t.Run(fmt.Sprintf("%s%s", c.stage, c.customer), func(t *testing.T) {
			l, _ := openTest(t)
			r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
			switch {
			case c.stage == pipeline.Creating:
				r = advance(t, l, r, pipeline.Creating, nil)
			case c.stage.Terminal():
				r = settle(t, l, r, c.stage, c.customer)
			}
			same := acceptOne(t, l, testRow(1, "i1"), c.same)
			if same.ID != r.ID || same.Stage != c.stage || same.Class != r.Class || same.Reason != r.Reason ||
				same.CustomerID != c.customer || same.Row != r.Row {
				t.Errorf("same import: got %+v, want %+v", same, r)
			}
			newer := acceptOne(t, l, testRow(1, "i2"), c.newer)
			if stored := get(t, l, r.Row); c.newer == pipeline.Open && !reflect.DeepEqual(stored, newer) {
				t.Errorf("stored: got %+v, want the answer %+v", stored, newer)
			}
			wantImport := "i1"
			if c.newer == pipeline.Open {
				wantImport = "i2"
			}
			if newer.ImportID != wantImport {
				t.Errorf("newer import: got import %s, want %s", newer.ImportID, wantImport)
			}
			// A message of the older import changes nothing.
			older := accept(t, l, testRow(1, "i1"))[0]
			if older.Record.ImportID != wantImport || older.Record.Stage != newer.Stage {
				t.Errorf("older import: got %+v, want stage %s and import %s", older.Record, newer.Stage, wantImport)
			}
		})
	}
}

func TestRestartKeepsKeysAndCustomer(t *testing.T) {
	l, o := openTest(t)
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	r = advance(t, l, r, pipeline.Creating, func(r *pipeline.Record) { r.CreateKey = createKey(0, o.Now()) })
	r = advance(t, l, r, pipeline.Challenged, func(r *pipeline.Record) {
		r.CustomerID, r.PartnerStatus, r.Challenge, r.ChallengeAt = "c1", "initiating", "sign me", o.Now()
		r.CreateKey.Outcome = pipeline.KeySettled
	})
	r = advance(t, l, r, pipeline.Signing, func(r *pipeline.Record) { r.ExternalTxID = "tx1" })
	r = advance(t, l, r, pipeline.Submitting, func(r *pipeline.Record) {
		r.Signature, r.SubmitKey = "0xsig", testKey(pipeline.OpSubmit, 0, o.Now())
	})
	r = advance(t, l, r, pipeline.Failed, func(r *pipeline.Record) {
		r.Class, r.Reason, r.Attempts, r.Refusals, r.SubmitKey.Outcome = "refused", "three times", 4, 3, pipeline.KeyAnswered
	})
	again := testRow(1, "i2")
	again.File, again.Line = "failures.csv", 2
	got := acceptOne(t, l, again, pipeline.Open)
	want := pipeline.Record{
		Row: again, FirstFile: r.File, FirstLine: r.Line, ID: r.ID, Version: r.Version + 1, Stage: pipeline.Planned,
		CustomerID: "c1", PartnerStatus: "initiating", CreateKey: r.CreateKey, SubmitKey: r.SubmitKey,
		AcceptedAt: o.Now(), UpdatedAt: o.Now(),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestFirstPlace: however often a row is imported, it is known where its first import had it.
func TestFirstPlace(t *testing.T) {
	l, _ := openTest(t)
	first := testRow(1, "i1")
	var r pipeline.Record
	for i, importID := range []string{"i1", "i2", "i3", "i4"} {
		row := testRow(1, importID)
		row.File, row.Line = fmt.Sprintf("%d-%s", i, first.File), first.Line+i
		if r = acceptOne(t, l, row, pipeline.Open); r.Row != row || r.FirstFile != "0-"+first.File || r.FirstLine != first.Line {
			t.Errorf("import %s: got the row at %s, first at %s:%d; want it at %s, first at 0-%s", importID, r.Where(),
				r.FirstFile, r.FirstLine, row.Where(), first.Where())
		}
		if i > 0 { // the imports before have found the row unfinished
			advance(t, l, r, pipeline.Failed, nil)
		}
	}
}

// TestOldImportsRestartNothing: all earlier imports of a row are known, whether it was settled or unfinished then.
func TestOldImportsRestartNothing(t *testing.T) {
	l, _ := openTest(t)
	acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	r := acceptOne(t, l, testRow(1, "i2"), pipeline.Open) // while the row is unfinished
	settle(t, l, r, pipeline.Failed, "")
	for _, importID := range []string{"i1", "i2", "i1"} {
		acceptOne(t, l, testRow(1, importID), pipeline.Settled)
	}
	r = acceptOne(t, l, testRow(1, "i3"), pipeline.Open)
	settle(t, l, r, pipeline.Failed, "")
	for _, importID := range []string{"i1", "i2", "i3"} {
		acceptOne(t, l, testRow(1, importID), pipeline.Settled)
	}
}

func TestContradictions(t *testing.T) {
	for name, c := range map[string]struct {
		later pipeline.Row
		words string
	}{
		"same account":    {pair(1, 9, "i1"), "customers.csv:3 has the same account with externalId cust-0000001"},
		"same externalId": {pair(9, 1, "i1"), "customers.csv:3 has the same externalId with account " + account(1).String()},
	} {
		t.Run(name, func(t *testing.T) {
			l, _ := openTest(t)
			acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
			r := acceptOne(t, l, c.later, pipeline.Contradicted)
			if r.Stage != pipeline.Conflict || r.Class != classDuplicate || r.Reason != c.words {
				t.Errorf("got %+v, want reason %q", r, c.words)
			}
			if stored := get(t, l, c.later); !reflect.DeepEqual(stored, r) {
				t.Errorf("stored: got %+v, want the answer %+v", stored, r)
			}
			acceptOne(t, l, c.later, pipeline.Settled) // not reported twice
			later := c.later
			later.ImportID, later.Line = "i2", 40
			r = acceptOne(t, l, later, pipeline.Contradicted)
			words := strings.Replace(c.words, ":3 has", ":3 of another import has", 1)
			if r.Row != later || r.Version != 2 || r.Reason != words {
				t.Errorf("by another import: got %+v, want row %+v at version 2, reason %q", r, later, words)
			}
			acceptOne(t, l, later, pipeline.Settled)
			acceptOne(t, l, c.later, pipeline.Settled)
		})
	}
}

// TestOrderWithinABatch: an earlier row of a batch has its claims before the later rows are accepted.
func TestOrderWithinABatch(t *testing.T) {
	l, _ := openTest(t)
	answers := accept(t, l, testRow(1, "i1"), pair(1, 2, "i1"), pair(3, 2, "i1"), testRow(1, "i1"), pair(3, 1, "i1"))
	want := []pipeline.Admission{
		pipeline.Open, pipeline.Contradicted,
		pipeline.Open, // a contradicted row has no claims
		pipeline.Open, pipeline.Contradicted,
	}
	for i, answer := range answers {
		if answer.Admission != want[i] {
			t.Errorf("row %d: got admission %d, want %d", i, answer.Admission, want[i])
		}
	}
	if answers[3].Record.ID != answers[0].Record.ID {
		t.Errorf("repeated row: got id %d, want %d", answers[3].Record.ID, answers[0].Record.ID)
	}
	holder := pair(3, 2, "")
	if words := answers[4].Record.Reason; !strings.Contains(words, "same account with externalId "+holder.ExternalID) {
		t.Errorf("got reason %q, want the row with the same account, %s", words, holder.ExternalID)
	}
}

// TestRestartWithinABatch: a batch may restart a row that was settled before it.
func TestRestartWithinABatch(t *testing.T) {
	l, _ := openTest(t)
	r := settle(t, l, acceptOne(t, l, testRow(1, "i1"), pipeline.Open), pipeline.Failed, "")
	answers := accept(t, l, testRow(1, "i1"), testRow(1, "i2"), testRow(1, "i1"))
	for i, want := range []pipeline.Admission{pipeline.Settled, pipeline.Open, pipeline.Open} {
		if answers[i].Admission != want || answers[i].Record.ID != r.ID {
			t.Errorf("row %d: got %+v, want admission %d and id %d", i, answers[i], want, r.ID)
		}
	}
}

func TestCorrectedExportTakesClaims(t *testing.T) {
	for name, c := range map[string]struct {
		stage    pipeline.Stage
		customer string
		importID string
		want     pipeline.Admission
	}{
		"failed":                 {pipeline.Failed, "", "i2", pipeline.Open},
		"conflict":               {pipeline.Conflict, "", "i2", pipeline.Open},
		"failed, same import":    {pipeline.Failed, "", "i1", pipeline.Contradicted},
		"failed with a customer": {pipeline.Failed, "c1", "i2", pipeline.Contradicted},
		"refused":                {pipeline.Refused, "", "i2", pipeline.Contradicted},
		"rejected":               {pipeline.Rejected, "", "i2", pipeline.Contradicted},
		"onboarded":              {pipeline.Onboarded, "c1", "i2", pipeline.Contradicted},
	} {
		for side, corrected := range map[string]pipeline.Row{
			"externalId": pair(1, 2, c.importID), "account": pair(2, 1, c.importID),
		} {
			t.Run(name+"/"+side, func(t *testing.T) {
				l, _ := openTest(t)
				first := settle(t, l, acceptOne(t, l, testRow(1, "i1"), pipeline.Open), c.stage, c.customer)
				acceptOne(t, l, corrected, c.want)
				if c.want != pipeline.Open {
					return
				}
				// The first row comes again and now contradicts the corrected row.
				acceptOne(t, l, first.Row, pipeline.Settled)
				old := testRow(1, "i3")
				r := acceptOne(t, l, old, pipeline.Contradicted)
				if r.ID != first.ID || r.Stage != pipeline.Conflict || r.Class != classDuplicate {
					t.Errorf("first row again: got %+v, want row %d as a duplicate in conflict", r, first.ID)
				}
				acceptOne(t, l, old, pipeline.Settled)
				// Once the corrected row has failed, a fourth import can restart the first row.
				settle(t, l, get(t, l, corrected), pipeline.Failed, "")
				r = acceptOne(t, l, testRow(1, "i4"), pipeline.Open)
				if r.ID != first.ID || r.Stage != pipeline.Planned || r.Class != "" || r.Reason != "" {
					t.Errorf("fourth import: got %+v, want row %d planned, without class and reason", r, first.ID)
				}
			})
		}
	}
}

// TestClaimsAreTakenTogether: if one of two claims may not be taken, neither is.
func TestClaimsAreTakenTogether(t *testing.T) {
	l, _ := openTest(t)
	failed := settle(t, l, acceptOne(t, l, testRow(1, "i1"), pipeline.Open), pipeline.Failed, "")
	settle(t, l, acceptOne(t, l, testRow(2, "i1"), pipeline.Open), pipeline.Onboarded, "c2")
	acceptOne(t, l, pair(1, 2, "i2"), pipeline.Contradicted)
	acceptOne(t, l, pair(1, 3, "i1"), pipeline.Contradicted) // failed still holds its account
	if r := acceptOne(t, l, testRow(1, "i3"), pipeline.Open); r.ID != failed.ID {
		t.Errorf("got %+v, want row %d", r, failed.ID)
	}
	settle(t, l, get(t, l, failed.Row), pipeline.Failed, "")
	other := settle(t, l, acceptOne(t, l, testRow(4, "i1"), pipeline.Open), pipeline.Failed, "")
	acceptOne(t, l, pair(1, 4, "i9"), pipeline.Open) // takes one claim of each
	acceptOne(t, l, testRow(4, "i10"), pipeline.Contradicted)
	if r := get(t, l, other.Row); r.Stage != pipeline.Conflict {
		t.Errorf("got %+v, want stage conflict", r)
	}
}

func TestAcceptOddTexts(t *testing.T) {
	l, _ := openTest(t)
	texts := []string{
		`quote " backslash \`, "Łódź 🙂", "<&>", "\u2028", `{"a":1}`, "'; DROP TABLE rows; --", "\ttab\n", "\x7f",
	}
	for i, text := range texts {
		row := testRow(i, "i1")
		row.ExternalID = text
		r := acceptOne(t, l, row, pipeline.Open)
		settle(t, l, r, pipeline.Onboarded, "c")
		if got := acceptOne(t, l, row, pipeline.Settled); got.ExternalID != text || got.ID != r.ID {
			t.Errorf("got %+v, want externalId %q and id %d", got, text, r.ID)
		}
	}
}

func TestAcceptInvalidRow(t *testing.T) {
	l, _ := openTest(t)
	for name, spoil := range map[string]func(*pipeline.Row){
		"no account":    func(r *pipeline.Row) { r.Account.Chain = 0 },
		"no externalId": func(r *pipeline.Row) { r.ExternalID = "" },
		"no import id":  func(r *pipeline.Row) { r.ImportID = "" },
		"not text":      func(r *pipeline.Row) { r.ExternalID = "a\xff" },
		"is not text":   func(r *pipeline.Row) { r.ExternalID = "a\x00b" },
	} {
		bad := testRow(2, "i1")
		spoil(&bad)
		_, err := l.Accept(t.Context(), []pipeline.Row{testRow(1, "i1"), bad})
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "customers.csv:4") {
			t.Errorf("%s: got %v, want an error with the name and customers.csv:4", name, err)
		}
	}
	if _, err := l.get(t.Context(), account(1).String(), testRow(1, "").ExternalID); !errors.Is(err, sql.ErrNoRows) {
		t.Errorf("first row of a failed batch: got %v, want sql.ErrNoRows", err)
	}
	if answers, err := l.Accept(t.Context(), nil); err != nil || len(answers) != 0 {
		t.Errorf("empty batch: got %v, %v; want neither answers nor an error", answers, err)
	}
}

// TestReplayOfSettledRowsWritesNothing: replaying a settled export does not use the writer, in the same or a new
// import.
func TestReplayOfSettledRowsWritesNothing(t *testing.T) {
	o := testOptions(t.TempDir() + "/ledger.db")
	commits := 0
	o.Hook = func(string) { commits++ }
	l := reopen(t, o)
	var rows []pipeline.Row
	for n := range 50 {
		rows = append(rows, testRow(n, "i1"))
	}
	for i, a := range accept(t, l, rows...) {
		stage := []pipeline.Stage{pipeline.Onboarded, pipeline.Rejected}[i%2]
		settle(t, l, a.Record, stage, fmt.Sprint("c", i))
	}
	failed := settle(t, l, acceptOne(t, l, testRow(99, "i1"), pipeline.Open), pipeline.Failed, "")
	commits = 0
	accept(t, l, append(rows, failed.Row)...)
	for i := range rows {
		rows[i].ImportID = "i2"
	}
	accept(t, l, rows...)
	if commits != 0 {
		t.Errorf("got %d calls of the commit hook, want 0", commits)
	}
}

// TestOpenCreationKeepsItsClaim: an unanswered creation may have created a customer. Until the partner has long
// forgotten its key, a corrected export does not take the row's claims.
func TestOpenCreationKeepsItsClaim(t *testing.T) {
	l, o := openTest(t)
	row := pair(1, 1, "i1")
	record := acceptOne(t, l, row, pipeline.Open)
	record = advance(t, l, record, pipeline.Creating, func(r *pipeline.Record) { r.CreateKey = createKey(0, o.Now()) })
	advance(t, l, record, pipeline.Failed, func(r *pipeline.Record) { r.Class = "no-answer" })
	acceptOne(t, l, pair(1, 2, "i2"), pipeline.Contradicted)
	execSQL(t, l, `UPDATE keys SET first_sent = ?`, o.Now().Add(-3*time.Hour).UnixMicro())
	acceptOne(t, l, pair(1, 3, "i2"), pipeline.Open)
}

// TestUnicodeForms: an externalId in composed and in decomposed form is one externalId, whichever comes first, within a
// batch and between imports.
func TestUnicodeForms(t *testing.T) {
	composed, decomposed := "caf\u00e9", "cafe\u0301"
	for _, ids := range [][]string{{composed, decomposed}, {decomposed, composed}} {
		first, second, plain := testRow(1, "i1"), testRow(2, "i1"), testRow(3, "i1")
		first.ExternalID, second.ExternalID, plain.ExternalID = ids[0], ids[1], "cafe"
		l, _ := openTest(t)
		got := accept(t, l, first, second, plain)
		if got[0].Admission != pipeline.Open || got[1].Admission != pipeline.Contradicted || got[2].Admission != pipeline.Open {
			t.Errorf("%+q: got %v, %v, %v, want the second in conflict", ids, got[0].Admission, got[1].Admission, got[2].Admission)
		}
		want := "has the same externalId in another Unicode form (NFC or NFD) with account " + first.Account.String()
		if !strings.Contains(got[1].Record.Reason, want) {
			t.Errorf("%+q: got the reason %q, want %q in it", ids, got[1].Record.Reason, want)
		}
		second.ImportID = "i2"
		acceptOne(t, l, second, pipeline.Contradicted)
		settle(t, l, got[0].Record, pipeline.Failed, "")
		second.ImportID = "i3" // the export was corrected: the first row has lost its claim
		acceptOne(t, l, second, pipeline.Open)
		first.ImportID = "i3"
		acceptOne(t, l, first, pipeline.Contradicted)
	}
}
