package cmd

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"golang.org/x/sync/errgroup"

	"github.com/purser-onboard/purser/internal/benchtest"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/csvimport"
	"github.com/purser-onboard/purser/sandbox"
)

// The benchmarks measure the commands as the processes that operators run, each with something to compare it with. None
// fails for being slow. docs/benchmarks.md has the results.

const (
	manyRows = 1_000_000
	bigRows  = 10_000_000 // with $PURSER_BIG=1
)

// programs are the commands as `make build` makes them, and the watcher that runs them.
type programs struct {
	watcher
	importer, consumer string
}

func buildPrograms(b *testing.B) programs {
	b.Helper()
	dir := b.TempDir()
	build := exec.CommandContext(b.Context(), "go", "build", "-o", dir+"/", "./importer", "./consumer")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("got %v, want the commands built:\n%s", err, out)
	}
	return programs{buildWatcher(b), filepath.Join(dir, "importer"), filepath.Join(dir, "consumer")}
}

// benchKey is the private key of the nth customer.
func benchKey(tb testing.TB, n int) *ecdsa.PrivateKey {
	tb.Helper()
	var d [32]byte
	binary.BigEndian.PutUint64(d[24:], uint64(n)+1)
	key, err := crypto.ToECDSA(d[:])
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// scattered is the address of the nth customer of benchmarks that sign nothing. Like real addresses, neighbours are far
// apart, and it costs less than a key.
func scattered(n int) common.Address {
	var address common.Address
	x := uint64(n)
	for i := 0; i < len(address); i += 4 { // splitmix64
		x += 0x9e3779b97f4a7c15
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.BigEndian.PutUint32(address[i:], uint32(z^z>>31))
	}
	return address
}

// writeExport writes an export with addresses in EIP-55 form, as a stream: it may be larger than memory.
func writeExport(tb testing.TB, rows int, address func(n int) common.Address) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "export.csv")
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	line := []byte("address,externalId\n")
	for n := 0; err == nil && n <= rows; n++ {
		_, err = w.Write(line)
		line = fmt.Appendf(append(line[:0], address(n).Hex()...), ",cust-%08d\n", n)
	}
	if err := errors.Join(err, w.Flush(), f.Close()); err != nil {
		tb.Fatal(err)
	}
	return path
}

// importSizes are the numbers of rows that importing is measured with.
func importSizes() []int {
	if os.Getenv("PURSER_BIG") == "1" {
		return []int{manyRows, bigRows}
	}
	return []int{manyRows}
}

// embeddedEnv is the environment for an importer with the embedded broker in a directory of its own.
func embeddedEnv(tb testing.TB) []string {
	return append(os.Environ(), "PURSER_CHAIN=eip155:300", "PURSER_DATA_DIR="+filepath.Join(tb.TempDir(), "data"))
}

func reportImport(b *testing.B, rows int, all []usage) {
	b.Helper()
	var took, cpu time.Duration
	peak := 0.0
	for _, u := range all {
		took, cpu, peak = took+u.took, cpu+u.cpu, max(peak, u.mib())
	}
	done := float64(rows * len(all))
	b.ReportMetric(done/took.Seconds(), "rows/s")
	b.ReportMetric(took.Seconds()/float64(len(all)), "s")
	b.ReportMetric(float64(cpu.Microseconds())/done, "cpu-µs/row")
	b.ReportMetric(peak, "MiB-peak")
	b.ReportMetric(0, "ns/op") // which is s, with the making of directories in it
}

// BenchmarkImport imports mixed-case addresses into the embedded broker, which is part of the process.
func BenchmarkImport(b *testing.B) {
	p := buildPrograms(b)
	for _, rows := range importSizes() {
		b.Run(fmt.Sprintf("embedded/rows=%d", rows), func(b *testing.B) {
			export := writeExport(b, rows, scattered)
			var all []usage
			for b.Loop() {
				all = append(all, p.run(b, embeddedEnv(b), p.importer, export))
			}
			reportImport(b, rows, all)
		})
	}
	b.Run(fmt.Sprintf("dry-run/rows=%d", manyRows), func(b *testing.B) {
		export := writeExport(b, manyRows, scattered)
		var all []usage
		for b.Loop() {
			all = append(all, p.run(b, embeddedEnv(b), p.importer, "--dry-run", export))
		}
		reportImport(b, manyRows, all)
	})
}

// writeKeys writes the customers' keys for the signer that costs least.
func writeKeys(tb testing.TB, keys int) (path string) {
	tb.Helper()
	path = filepath.Join(tb.TempDir(), "keys.csv")
	text := []byte("address,privateKey\n")
	for n := range keys {
		key := benchKey(tb, n)
		text = fmt.Appendf(text, "%s,%x\n", crypto.PubkeyToAddress(key.PublicKey).Hex(), crypto.FromECDSA(key))
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// queued imports rows with keys into the embedded broker, and returns the environment with their signer.
func queued(b *testing.B, p programs, env []string, rows int) []string {
	b.Helper()
	env = append(env, "PURSER_SIGNER=insecure-file:"+writeKeys(b, rows))
	address := func(n int) common.Address { return crypto.PubkeyToAddress(benchKey(b, n).PublicKey) }
	p.run(b, env, p.importer, writeExport(b, rows, address))
	return env
}

// BenchmarkRate keeps a partner's rate, with answers that take 50 ms. The partner, strict as ever, verifies each
// signature in this process; the consumer is another one on the same processors.
func BenchmarkRate(b *testing.B) {
	const lasting = 15 // seconds
	p := buildPrograms(b)
	for _, rate := range []int{50, 200, 1000} {
		b.Run(fmt.Sprintf("rate=%d", rate), func(b *testing.B) {
			rows := rate * lasting / 2 // a row takes two requests
			for b.Loop() {
				server, env := partnerEnv(b, sandbox.Config{
					Latency: 50 * time.Millisecond, Rate: float64(rate), DeclaredRate: float64(rate),
				})
				env = append(queued(b, p, env, rows), fmt.Sprint("PURSER_RATE=", rate),
					// The default, unless the rate times the latency, with half as much again, needs more.
					fmt.Sprint("PURSER_CONCURRENCY=", max(32, rate*75/1000)))
				ran := p.run(b, env, p.consumer, "--drain")
				stats, verdict := server.Stats(), server.Judge(nil)
				if stats.ByStatus[http.StatusTooManyRequests] > 0 || len(verdict.Violations) > 0 ||
					verdict.Customers != rows {
					b.Fatalf("got %d answers 429, %d customers, violations %+v; want 0, %d, none\n%s",
						stats.ByStatus[http.StatusTooManyRequests], verdict.Customers, verdict.Violations, rows, ran.said)
				}
				b.ReportMetric(100*steadyRate(server.History())/float64(rate), "%-of-rate")
				b.ReportMetric(float64(stats.ByStatus[http.StatusTooManyRequests]), "429s")
				b.ReportMetric(100*ran.cpu.Seconds()/ran.took.Seconds(), "%-cpu")
			}
		})
	}
}

// steadyRate returns the requests per second, without the first and the last two seconds.
func steadyRate(history []sandbox.Entry) float64 {
	first, last := history[0].Elapsed, history[len(history)-1].Elapsed
	const edge = 2 * time.Second
	n := 0
	for _, e := range history {
		if e.Elapsed >= first+edge && e.Elapsed < last-edge {
			n++
		}
	}
	return float64(n) / (last - first - 2*edge).Seconds()
}

// BenchmarkRowCPU is the processor time that the consumer takes for a row, from the queue to its event, compared with
// the consumer's own cryptography: two P-384 signatures of requests and the recovery of one address. The cost of
// starting is measured by a run without rows and subtracted. So is the cost of the wallet's signature, which a key in
// memory makes here and a device in production. The partner costs nothing, because it is another process.
func BenchmarkRowCPU(b *testing.B) {
	const rows = 10_000
	p := buildPrograms(b)
	for _, set := range []struct {
		name    string
		workers int
		traced  bool // each row has a trace, which is exported to a server in this process
	}{{"workers=32", 32, false}, {"workers=256", 256, false}, {"workers=32/traced", 32, true}} {
		b.Run(set.name, func(b *testing.B) {
			own, wallet := bareCryptography(b)
			var cpu time.Duration
			for b.Loop() {
				_, env := partnerEnv(b, sandbox.Config{}) // for its credentials
				free := httptest.NewServer(freePartner(b))
				env = append(env, "OFFBLOCKS_API_URL="+free.URL+"/v1", "PURSER_RATE=1000000",
					fmt.Sprint("PURSER_CONCURRENCY=", set.workers))
				if set.traced {
					takes := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						_, _ = io.Copy(io.Discard, r.Body)
					}))
					defer takes.Close()
					env = append(env, "OTEL_EXPORTER_OTLP_ENDPOINT="+takes.URL, "OTEL_BSP_MAX_QUEUE_SIZE=1000000")
				}
				env = queued(b, p, append(env, "PURSER_CHALLENGE_STATEMENT="+freeStatement), rows)
				full := p.run(b, env, p.consumer, "--drain")
				if want := fmt.Sprintf("%[1]d received: %[1]d onboarded\n", rows); !strings.Contains(full.said, want) {
					b.Fatalf("got output %q, want %q in it", full.said, want)
				}
				cpu += full.cpu - p.run(b, env, p.consumer, "--drain").cpu
				free.Close()
			}
			each := cpu/time.Duration(rows*b.N) - wallet
			b.ReportMetric(float64(each.Nanoseconds())/1000, "cpu-µs/row")
			b.ReportMetric(float64(own.Nanoseconds())/1000, "bare-µs/row")
			b.ReportMetric(float64(wallet.Nanoseconds())/1000, "wallet-µs/row")
			b.ReportMetric(float64(each)/float64(own), "x-bare")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// bareCryptography is the processor time of a row's cryptography with the libraries that the consumer uses: its own,
// and the wallet's signature. All processors do it at once, as they do while the consumer and its partner run:
// hyperthreads that share a core are slower than a single thread.
func bareCryptography(b *testing.B) (own, wallet time.Duration) {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	owner := benchKey(b, 1)
	base := make([]byte, 600) // of a request
	digest := crypto.Keccak256(base)
	signature, err := crypto.Sign(digest, owner)
	if err != nil {
		b.Fatal(err)
	}
	spend := func(do func() error) time.Duration {
		const rounds = 3000
		var all errgroup.Group
		begun := benchtest.ProcessorTime(b)
		for range runtime.GOMAXPROCS(0) {
			all.Go(func() error {
				for range rounds {
					if err := do(); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := all.Wait(); err != nil {
			b.Fatal(err)
		}
		return (benchtest.ProcessorTime(b) - begun) / time.Duration(rounds*runtime.GOMAXPROCS(0))
	}
	wallet = spend(func() error {
		_, err := crypto.Sign(digest, owner)
		return err
	})
	own = spend(func() error {
		for range 2 {
			sum := sha512.Sum384(base)
			if _, _, err := ecdsa.Sign(rand.Reader, key, sum[:]); err != nil {
				return err
			}
		}
		_, err := crypto.SigToPub(digest, signature)
		return err
	})
	return own, wallet
}

// freeStatement is the statement of freePartner's challenges.
const freeStatement = "Sign in with Ethereum to the app."

// freePartner answers the requests for new customers and verifies nothing.
func freePartner(b *testing.B) http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(body); err != nil {
			b.Error(err)
		}
	}
	mux.HandleFunc("POST /v1/auth/token", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{
			"token": "t", "expiresAt": time.Now().Add(time.Hour).Unix(), "tokenType": "Bearer",
		})
	})
	mux.HandleFunc("POST /v1/customers", func(w http.ResponseWriter, r *http.Request) {
		var asked struct{ ChainID, ExternalID string }
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			b.Error(err)
		}
		id := sha512.Sum512_256([]byte(asked.ChainID))
		account := strings.Split(asked.ChainID, ":")
		challenge := fmt.Sprintf("%s wants you to sign in with your Ethereum account:\n%s\n\n"+
			"%[6]s\n\nURI: http://%[1]s\nVersion: 1\nChain ID: %[3]s\nNonce: %[4]x\nIssued At: %[5]s",
			r.Host, account[2], account[1], id[:8], time.Now().UTC().Format(time.RFC3339), freeStatement)
		answer(w, http.StatusCreated, map[string]any{
			"id":      fmt.Sprintf("%x-%x-4%03x-8%03x-%x", id[:4], id[4:6], id[6], id[7], id[8:14]),
			"chainId": asked.ChainID, "externalId": asked.ExternalID, "status": "initiating",
			"challenge": base64.StdEncoding.EncodeToString([]byte(challenge)),
		})
	})
	mux.HandleFunc("POST /v1/customers/{id}/challenge/sign", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			b.Error(err)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// BenchmarkReplay runs the consumer over an export whose rows are all settled. "s-idle" is a run with an empty queue,
// which is mostly the opening of the ledger, which reads all of it; "rows/s" and "cpu-µs/row" are without
// it.
func BenchmarkReplay(b *testing.B) {
	p := buildPrograms(b)
	_, env := partnerEnv(b, sandbox.Config{}) // for its credentials; nothing is asked of it
	export := writeExport(b, manyRows, scattered)
	env = append(env, "PURSER_SIGNER=insecure-file:"+writeKeys(b, 1))
	settleAll(b, env, export)
	b.Run(fmt.Sprintf("rows=%d", manyRows), func(b *testing.B) {
		var took, idle, cpu time.Duration
		peak := 0.0
		for b.Loop() {
			p.run(b, env, p.importer, export)
			full := p.run(b, env, p.consumer, "--drain")
			want := fmt.Sprintf("%[1]d received: 0 onboarded, %[1]d skipped\n", manyRows)
			if !strings.Contains(full.said, want) {
				b.Fatalf("got output %q, want %q in it", full.said, want)
			}
			took, peak = took+full.took, max(peak, full.mib())
			nothing := p.run(b, env, p.consumer, "--drain")
			idle, cpu = idle+nothing.took, cpu+full.cpu-nothing.cpu
		}
		done := float64(manyRows * b.N)
		b.ReportMetric(done/(took-idle).Seconds(), "rows/s")
		b.ReportMetric(done/took.Seconds(), "rows/s-whole")
		b.ReportMetric(idle.Seconds()/float64(b.N), "s-idle")
		b.ReportMetric(float64(cpu.Microseconds())/done, "cpu-µs/row")
		b.ReportMetric(peak, "MiB-peak")
		b.ReportMetric(0, "ns/op")
	})
}

// accepts has a ledger accept the rows of published messages.
type accepts struct{ *ledger.Ledger }

func (a accepts) Publish(ctx context.Context, _ string, messages []pipeline.Message) error {
	rows := make([]pipeline.Row, len(messages))
	for i, m := range messages {
		var err error
		if rows[i], err = pipeline.ParseMessage(m.Value); err != nil {
			return err
		}
	}
	_, err := a.Accept(ctx, rows)
	return err
}

// settleAll writes the ledger of a run that onboarded every row of the export.
func settleAll(b *testing.B, env []string, export string) {
	b.Helper()
	book, path := openBook(b, env)
	f, err := os.Open(export)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	rows, err := csvimport.NewReader(csvimport.Input{Reader: f},
		csvimport.Options{Name: "export.csv", Chain: 300, ImportID: "first"})
	if err != nil {
		b.Fatal(err)
	}
	im := csvimport.Importer{Publisher: accepts{book}, Rejects: csvimport.NewRejectsWriter(io.Discard), BatchSize: 10_000}
	if err := errors.Join(im.Import(b.Context(), rows), book.Close()); err != nil {
		b.Fatal(err)
	}
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		b.Fatal(err)
	}
	_, err = db.ExecContext(b.Context(), `UPDATE rows SET stage = 'onboarded', version = 6, create_generation = 0,
		customer_id = 'c0ffee00-0000-4000-8000-' || printf('%012d', id), challenge = printf('%.300c', 'x'),
		signature = printf('%.132c', 'y'); DELETE FROM outbox`)
	if err := errors.Join(err, db.Close()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkReconcile runs `consumer reconcile` over a list of a million customers, of which a fifth are rows of the
// ledger whose status has changed. "x-list" is its time divided by that of the same command with an empty ledger, which
// only reads the list.
func BenchmarkReconcile(b *testing.B) {
	customers := listedBig
	if testing.Short() {
		customers = listed
	}
	p, list := buildPrograms(b), serveList(b, customers)
	reconcile := func(rows int) time.Duration {
		_, env := partnerEnv(b, sandbox.Config{}) // for its credentials
		env = append(env, "OFFBLOCKS_API_URL="+list.URL+"/v1")
		knowRows(b, env, customers, rows)
		ran := p.run(b, env, p.consumer, "reconcile")
		want := fmt.Sprintf("ledger    %[1]d rows, %[1]d of them with the partner, %[1]d statuses changed\n", rows)
		if !strings.Contains(ran.said, want) {
			b.Fatalf("got output %q, want %q in it", ran.said, want)
		}
		return ran.took
	}
	var took, reading time.Duration
	for b.Loop() {
		reading += reconcile(0)
		took += reconcile(customers / 5)
	}
	b.ReportMetric(took.Seconds()/float64(b.N), "s")
	b.ReportMetric(reading.Seconds()/float64(b.N), "s-list")
	b.ReportMetric(took.Seconds()/reading.Seconds(), "x-list")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRunMemory is the greatest resident size of a consumer for the first 10 s of a run on the embedded broker. It
// takes messages ahead of its work, and the memory that they need must not depend on how many are queued.
func BenchmarkRunMemory(b *testing.B) {
	p := buildPrograms(b)
	for _, rows := range append([]int{10_000}, importSizes()...) {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			peak := 0.0
			for b.Loop() {
				_, env := partnerEnv(b, sandbox.Config{})
				env = append(env, "PURSER_RATE=50", "PURSER_SIGNER=insecure-file:"+writeKeys(b, 2000))
				p.run(b, env, p.importer, writeExport(b, rows, func(n int) common.Address {
					if n > 2000 {
						return scattered(n)
					}
					return crypto.PubkeyToAddress(benchKey(b, n).PublicKey)
				}))
				peak = max(peak, p.stopped(b, env, 10*time.Second, p.consumer).mib())
			}
			b.ReportMetric(peak, "MiB-peak")
			b.ReportMetric(0, "ns/op")
		})
	}
}
