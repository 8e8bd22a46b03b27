package ledger

import (
	"database/sql"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/pipeline"
)

// everyView returns the rows of every view, each as "column=value …".
func everyView(t *testing.T, path string) map[string][]string {
	t.Helper()
	r, err := OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var names string
	err = r.source.QueryRowContext(t.Context(),
		`SELECT group_concat(name, ' ') FROM sqlite_schema WHERE type = 'view'`).Scan(&names)
	if err != nil {
		t.Fatal(err)
	}
	views := map[string][]string{}
	for name := range strings.FieldsSeq(names) {
		views[name] = rowsOf(t, r.source, name)
	}
	return views
}

func rowsOf(t *testing.T, db source, view string) (lines []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT * FROM `+view)
	if err != nil {
		t.Fatalf("%s: got %v, want its rows", view, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		places := make([]any, len(columns))
		for i := range values {
			places[i] = &values[i]
		}
		if err := rows.Scan(places...); err != nil {
			t.Fatal(err)
		}
		var line []string
		for i, column := range columns {
			line = append(line, column+"="+values[i].String)
		}
		lines = append(lines, strings.Join(line, " "))
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: got %v, want its rows", view, err)
	}
	return lines
}

// TestViews: the views show the rows, runs and customers with times in ISO 8601, and none of challenge, signature and
// nonce.
func TestViews(t *testing.T) {
	o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	l, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	settleSigned(t, l, pipeline.Onboarded, 0, 2)
	settleSigned(t, l, pipeline.Refused, 2, 1)
	submitting := acceptOne(t, l, testRow(3, "import-1"), pipeline.Open)
	submitting = advance(t, l, submitting, pipeline.Creating, nil)
	submitting = advance(t, l, submitting, pipeline.Challenged, func(r *pipeline.Record) {
		r.Challenge, _ = signedTexts(3)
		r.ChallengeAt = r.AcceptedAt
	})
	submitting = advance(t, l, submitting, pipeline.Signing, nil)
	advance(t, l, submitting, pipeline.Submitting, func(r *pipeline.Record) { _, r.Signature = signedTexts(3) })
	replace(t, l, o.Now(), testCustomer(1), testCustomer(2))
	for i, report := range []string{
		`{"reason":"halted","rows":{"received":4,"onboarded":2},"latencies":[{"operation":"create","count":4,"p95":0.2}]}`, ``,
	} {
		run := Run{ID: uuid.Must(uuid.NewV7()), Program: "purser 1", Host: "h", StartedAt: o.Now(), Report: report}
		if err := l.BeginRun(t.Context(), run); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			minute := Minute{At: o.Now(), Data: `{"rateUsed":19.5,"settled":{"onboarded":2}}`}
			if err := l.PutMinute(t.Context(), run.ID, minute); err != nil {
				t.Fatal(err)
			}
			if err := l.EndRun(t.Context(), run.ID, RunEnd{At: o.Now(), Exit: 1, Report: report}); err != nil {
				t.Fatal(err)
			}
		}
	}
	closed(t, l)

	views := everyView(t, o.Path)
	for name, want := range map[string]int{
		"v_rows": 4, "v_failures": 1, "v_open": 1, "v_requests": 5, "v_unpublished": 3, "v_customers": 2, "v_runs": 2,
		"v_imports": 0, "v_minutes": 1, "v_latencies": 1,
	} {
		if got := len(views[name]); got != want {
			t.Errorf("%s: got %d rows, want %d", name, got, want)
		}
	}
	times := regexp.MustCompile(`\b\w+_at=(\S*)`)
	iso := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)
	for name, rows := range views {
		for _, row := range rows {
			for n := range 4 {
				head, tail := challengeEnds(n)
				_, signature := signedTexts(n)
				for _, secret := range []string{head, tail, signature, fmt.Sprintf("nonce-%d", n), signature[2:]} {
					if strings.Contains(row, secret) || strings.Contains(row, hex.EncodeToString([]byte(secret))) {
						t.Errorf("%s: got %s, want it without %s", name, row, secret)
					}
				}
			}
			for _, at := range times.FindAllStringSubmatch(row, -1) {
				if ended := strings.HasPrefix(at[0], "ended_at="); !iso.MatchString(at[1]) && !(ended && at[1] == "") {
					t.Errorf("%s: got time %s, want ISO 8601 in UTC", name, at[0])
				}
			}
		}
	}
	for name, want := range map[string]string{
		"v_failures": "stage=refused", "v_open": "stage=submitting", "v_requests": "operation=submit",
		"v_customers": "status=", "v_runs": "reason=halted received=4 skipped= onboarded=2",
		"v_minutes": "rate_used=19.5", "v_latencies": "operation=create count=4 p50= p95=0.2",
	} {
		if !slices.ContainsFunc(views[name], func(row string) bool { return strings.Contains(row, want) }) {
			t.Errorf("%s: got %q, want %s in it", name, views[name], want)
		}
	}
}
