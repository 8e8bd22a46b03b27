package cmd

import (
	"database/sql"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/sandbox"
)

// TestReconcileFindsFallenRows: reconcile ends with 3 for an onboarded row whose customer was rejected since, and says
// where the query is that lists it.
func TestReconcileFindsFallenRows(t *testing.T) {
	t.Parallel()
	server, env := partnerEnv(t, sandbox.Config{DeclaredRate: 500})
	mustRun(t, env, "importer", export(t, 3))
	mustRun(t, env, "consumer", "--drain")
	fallen := server.Customers()[1]
	answer := httptest.NewRecorder()
	server.Control().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodPut,
		"/customers/"+fallen.ID, strings.NewReader(`{"status":"rejected"}`)))
	if answer.Code != http.StatusNoContent {
		t.Fatalf("reject a customer: got %d, want 204", answer.Code)
	}
	exitsWith(t, env, 3, []string{"1 onboarded row has a customer that is initiating or rejected at the partner; " +
		"docs/looking-into-a-night.md has the SQL"}, "consumer", "reconcile")

	text, err := os.ReadFile("../docs/looking-into-a-night.md")
	if err != nil {
		t.Fatal(err)
	}
	_, query, _ := strings.Cut(string(text), "**Which onboarded rows have another status at the partner?**")
	_, query, _ = strings.Cut(query, "```sql\n")
	query, _, _ = strings.Cut(query, "```")
	db, err := sql.Open("sqlite3", filepath.Join(dataOf(env), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var id, status string
	var n int
	err = db.QueryRowContext(t.Context(), "SELECT external_id, partner, count(*) OVER () FROM ("+query+")").
		Scan(&id, &status, &n)
	if err != nil || n != 1 || id != fallen.ExternalID || status != "rejected" {
		t.Errorf("got %d rows, %s %s and %v, want the customer %s, rejected", n, id, status, err, fallen.ExternalID)
	}
}
