package cmd

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/sandbox"
)

// A list as long as a bank's. The sandbox keeps its customers in memory, so serveList makes them up as it sends them.
const (
	listed      = 200_000
	listedBig   = 1_000_000 // with $PURSER_BIG=1
	listedKnown = 1_000     // of them in the ledger, spread over the list
	listMemory  = 80 << 10  // KiB that the consumer may take; 61 to 67 MiB were measured for either length
)

// listRow is the nth customer of the list. Neighbours are far apart, as real addresses are, and the list is in
// the order of creation, which is not the order of any index.
func listRow(n int) pipeline.Row {
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], uint64(n))
	digest := sha256.Sum256(number[:])
	return pipeline.Row{
		Account:    pipeline.Account{Chain: 300, Address: common.BytesToAddress(digest[:20])},
		ExternalID: fmt.Sprintf("cust-%x", digest[20:26]), ImportID: "import-1", File: "customers.csv", Line: n + 2,
	}
}

// serveList answers the token request and GET /customers, and nothing else.
func serveList(t testing.TB, customers int) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/auth/token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"token":"t","expiresAt":%d,"tokenType":"Bearer"}`, time.Now().Add(time.Hour).Unix())
	})
	mux.HandleFunc("GET /v1/customers", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		out := bufio.NewWriter(w)
		for n := range customers {
			row := listRow(n)
			lead := ","
			if n == 0 {
				lead = "["
			}
			_, err := fmt.Fprintf(out, `%s{"id":"c0ffee00-0000-4000-8000-%012d","chainId":%q,"externalId":%q,"status":"active",`+
				`"createdAt":"2026-02-01T00:00:00.123Z","updatedAt":"2026-02-02T10:20:30.456Z"}`,
				lead, n, row.Account, row.ExternalID)
			if err != nil {
				return
			}
		}
		if err := errors.Join(out.WriteByte(']'), out.Flush()); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

// TestLongList has `consumer reconcile` read a long list: in bounded memory, and whole.
func TestLongList(t *testing.T) {
	if testing.Short() {
		t.Skip("some seconds of reading; not with -short")
	}
	if raceEnabled {
		t.Skip("the consumer that is measured is built without the race detector, so that it would watch nothing")
	}
	t.Parallel()
	customers := listed
	if os.Getenv("PURSER_BIG") == "1" {
		customers = listedBig
	}
	_, env := partnerEnv(t, sandbox.Config{}) // for its credentials
	list := serveList(t, customers)
	env = append(env, "OFFBLOCKS_API_URL="+list.URL+"/v1")
	knowRows(t, env, customers, listedKnown)
	consumer := buildConsumer(t)
	watcher := buildWatcher(t)
	ran := watcher.run(t, env, consumer, "reconcile")
	want := fmt.Sprintf("partner   %d customers\nledger    %[2]d rows, %[2]d of them with the partner, %[2]d statuses changed\n",
		customers, listedKnown)
	if !strings.Contains(ran.said, want) {
		t.Errorf("got output\n%swant\n%s", ran.said, want)
	}
	t.Logf("%d customers in %v with at most %.1f MiB", customers, ran.took.Round(time.Millisecond), ran.mib())
	if ran.peak > listMemory {
		t.Errorf("got a peak of %.1f MiB, want at most %d", ran.mib(), listMemory>>10)
	}
}

// openBook opens the ledger of a consumer in this environment, and returns its path.
func openBook(t testing.TB, env []string) (*ledger.Ledger, string) {
	t.Helper()
	api, err := url.Parse(setting(env, "OFFBLOCKS_API_URL"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dataOf(env), "ledger.db")
	book, err := ledger.Open(t.Context(), ledger.Options{
		Path: path, Now: time.Now,
		Environment: ledger.Environment{APIHost: api.Host, APIKeyID: setting(env, "OFFBLOCKS_API_KEY")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return book, path
}

// knowRows writes a ledger that has some of the customers as rows, spread over the list.
func knowRows(t testing.TB, env []string, customers, known int) {
	t.Helper()
	book, _ := openBook(t, env)
	rows := make([]pipeline.Row, 0, known)
	for n := range known {
		rows = append(rows, listRow(n*(customers/known)))
	}
	if _, err := book.Accept(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	if err := book.Close(); err != nil {
		t.Fatal(err)
	}
}
