package contracts

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mattn/go-sqlite3"
	"go.yaml.in/yaml/v3"
)

// sqlite opens SQLite files read-only, without a driver registered in database/sql.
type sqlite struct{ path string }

func (s sqlite) Connect(context.Context) (driver.Conn, error) {
	return s.Driver().Open("file:" + s.path + "?mode=ro")
}
func (sqlite) Driver() driver.Driver { return &sqlite3.SQLiteDriver{} }

// metadata is what the tests read of docs/datasette/metadata.yaml.
type metadata struct {
	Databases struct {
		Ledger struct {
			AllowSQL *bool `yaml:"allow_sql"`
			Tables   map[string]struct {
				Allow       *bool
				Description string
			}
			Queries map[string]struct{ Title, SQL string }
		}
	}
}

func readMetadata(t *testing.T) (m metadata) {
	t.Helper()
	text, err := os.ReadFile("../../docs/datasette/metadata.yaml")
	if err == nil {
		err = yaml.Unmarshal(text, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// documentedQueries are the queries of docs/looking-into-a-night.md by the question that they answer.
func documentedQueries(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/looking-into-a-night.md")
	if err != nil {
		t.Fatal(err)
	}
	queries := map[string]string{}
	block := regexp.MustCompile("(?s)```sql\n(.*?)\n```")
	for _, part := range regexp.MustCompile(`(?m)^\*\*`).Split(string(text), -1)[1:] {
		title, rest, _ := strings.Cut(part, "**")
		if found := block.FindStringSubmatch(rest); found != nil {
			queries[title] = found[1]
		}
	}
	if all := len(block.FindAllString(string(text), -1)); all != len(queries) || all < 10 {
		t.Errorf("got %d queries under %d questions, want each under its own, and at least 10", all, len(queries))
	}
	return queries
}

// testQueries runs every query of the document against the ledger. All but those about what is still to be done find
// something in it.
func (n *night) testQueries(t *testing.T) {
	db := sql.OpenDB(sqlite{n.ledger()})
	defer db.Close()
	for title, query := range documentedQueries(t) {
		var parameters []any
		if strings.Contains(query, ":external_id") {
			parameters = append(parameters, sql.Named("external_id", "13a670bc-cbcf-561e-a32d-6fcaa48cccfe"))
		}
		count, err := countRows(t.Context(), db, query, parameters...)
		if err != nil {
			t.Errorf("%s: got %v, want an answer", title, err)
			continue
		}
		none := title == "Which rows are unsettled?" || title == "Which events are still to be published?" ||
			title == "Which onboarded rows have another status at the partner?" // TestReconcileFindsFallenRows
		if (count == 0) != none {
			t.Errorf("%s: got %d rows, want none: %v", title, count, none)
		}
	}
}

func countRows(ctx context.Context, db *sql.DB, query string, parameters ...any) (count int, err error) {
	rows, err := db.QueryContext(ctx, query, parameters...)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		count++
	}
	return count, rows.Err()
}

// testMetadata checks that Datasette shows all views with the document's queries, and none of the tables.
func (n *night) testMetadata(t *testing.T) {
	of := readMetadata(t).Databases.Ledger
	if of.AllowSQL == nil || *of.AllowSQL {
		t.Error("got no allow_sql: false, want it")
	}
	db := sql.OpenDB(sqlite{n.ledger()})
	defer db.Close()
	for kind, denied := range map[string]bool{"table": true, "view": false} {
		var names string
		err := db.QueryRowContext(t.Context(), `SELECT group_concat(name, ' ') FROM sqlite_schema WHERE type = ?`, kind).
			Scan(&names)
		if err != nil {
			t.Fatal(err)
		}
		for name := range strings.FieldsSeq(names) {
			table, described := of.Tables[name]
			if isDenied := table.Allow != nil && !*table.Allow; !described || isDenied != denied {
				t.Errorf("%s %s: got it described: %v, denied: %v; want true, %v", kind, name, described, isDenied, denied)
			}
			if (table.Description == "") != denied {
				t.Errorf("%s %s: got description %q, want one: %v", kind, name, table.Description, !denied)
			}
		}
	}
	queries := map[string]string{}
	for name, q := range of.Queries {
		if _, taken := of.Tables[name]; taken {
			t.Errorf("query %s: got the name of a table, whose page it would show; want another", name)
		}
		queries[q.Title] = q.SQL
	}
	want := documentedQueries(t)
	for _, title := range slices.Sorted(maps.Keys(want)) {
		if queries[title] != want[title] {
			t.Errorf("%s: got the query %q, want it as in the document: %q", title, queries[title], want[title])
		}
	}
	if len(queries) != len(want) {
		t.Errorf("got %d queries, want the %d of the document", len(queries), len(want))
	}
}
