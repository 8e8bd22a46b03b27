//go:build external

package contracts

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/internal/remotetest"
)

// datasette returns the command line of Datasette, which `make test-external` installs, or which the variable DATASETTE
// names.
func datasette(t *testing.T) string {
	t.Helper()
	path := os.Getenv("DATASETTE")
	if path == "" {
		path = filepath.Join("..", "..", "bin", "datasette", "bin", "datasette")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no Datasette (make test-external installs it; or set DATASETTE): %v", err)
	}
	return path
}

// TestDatasette: Datasette shows the views and the queries of a night's ledger, and neither tables nor other SQL.
func TestDatasette(t *testing.T) {
	t.Parallel()
	command := exec.CommandContext(t.Context(), datasette(t), badNight(t).ledger(), "--port", "0",
		"--metadata", "../../docs/datasette/metadata.yaml", "--setting", "allow_download", "off")
	command.Env = append(os.Environ(), "HOME="+t.TempDir())
	base := remotetest.Start(t, command, 1, func(line string) (int, string, bool) {
		_, rest, ok := strings.Cut(line, "Uvicorn running on ")
		address, _, _ := strings.Cut(rest, " ")
		return 0, address, ok
	})[0]
	get := func(path string) (status int, text string) {
		response, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	of := readMetadata(t).Databases.Ledger
	const customer = "?_shape=array&external_id=13a670bc-cbcf-561e-a32d-6fcaa48cccfe"
	for path, want := range map[string]string{
		"/ledger":                              "Why did rows end badly?",
		"/ledger/v_failures.json?_shape=array": `"stage": "refused"`,
		"/ledger/v_runs":                       "The latest runs",
		"/ledger/reasons.json?_shape=array":    `"stage": "conflict"`,
		"/ledger/customer.json" + customer:     `"stage": "onboarded"`,
		"/ledger/requests.json" + customer:     `"operation": "create"`,
	} {
		if status, got := get(path); status != http.StatusOK || !strings.Contains(got, want) {
			t.Errorf("%s: got status %d, %.2000s; want 200 with %s", path, status, got, want)
		}
	}
	denied := []string{"/ledger.json?sql=select+signature+from+rows", "/ledger.db"}
	for name, table := range of.Tables {
		if table.Allow != nil {
			denied = append(denied, "/ledger/"+name, "/ledger/"+name+".json")
		} else if status, got := get("/ledger/" + name); status != http.StatusOK {
			t.Errorf("view %s: got status %d, %.500s; want 200", name, status, got)
		}
	}
	for name := range of.Queries {
		if status, got := get("/ledger/" + name); status != http.StatusOK {
			t.Errorf("query %s: got status %d, %.500s; want 200", name, status, got)
		}
	}
	for _, path := range denied {
		if status, got := get(path); status != http.StatusForbidden {
			t.Errorf("%s: got status %d, %.500s; want 403", path, status, got)
		}
	}
}
