package cmd

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/purser-onboard/purser/sandbox"
)

const (
	faultyRows    = 300
	faultyRate    = 200
	faultyLatency = 20 * time.Millisecond
	faultySeeds   = 5
)

// BenchmarkFaults onboards the same 300 rows at 200 requests a second, first without faults, then with a partner that
// drops 4 % of the connections before and 4 % after it has executed the request, and stores a 500 for 4 %. It reports
// the median and the worst of five seeds, each also as a multiple of the time without faults.
func BenchmarkFaults(b *testing.B) {
	p := buildPrograms(b)
	for b.Loop() {
		calm := faultyRun(b, p, 1, "")
		var took []time.Duration
		for seed := range uint64(faultySeeds) {
			took = append(took, faultyRun(b, p, seed+1, "drop-before=0.04,drop-after=0.04,stored-5xx=0.04"))
		}
		slices.Sort(took)
		median, worst := took[len(took)/2], took[len(took)-1]
		b.ReportMetric(calm.Seconds(), "calm-s")
		b.ReportMetric(median.Seconds(), "median-s")
		b.ReportMetric(worst.Seconds(), "worst-s")
		b.ReportMetric(median.Seconds()/calm.Seconds(), "median/calm")
		b.ReportMetric(worst.Seconds()/calm.Seconds(), "worst/calm")
	}
	b.ReportMetric(0, "ns/op")
}

// faultyRun onboards the rows once, checks that none is lost and that the partner's judge found no violation, and
// returns how long the consumer took.
func faultyRun(b *testing.B, p programs, seed uint64, text string) time.Duration {
	b.Helper()
	faults, err := sandbox.ParseFaults(text)
	if err != nil {
		b.Fatal(err)
	}
	server, env := partnerEnv(b, sandbox.Config{
		Seed: seed, Faults: faults, Latency: faultyLatency, DeclaredRate: faultyRate,
		Tolerance: sandbox.Tolerance{Burst: 1 + faultyRate/50 + 1, Jitter: 50 * time.Millisecond},
	})
	env = queued(b, p, append(env, "PURSER_RATE="+strconv.Itoa(faultyRate), "PURSER_SIGNER=insecure-file:"+writeKeys(b, faultyRows)),
		faultyRows)
	start := time.Now()
	cmd, out := command(b, env, p.consumer, "--drain")
	if err := cmd.Run(); err != nil {
		b.Fatalf("seed %d: got %v, want exit code 0:\n%s", seed, err, out)
	}
	took := time.Since(start)
	verdict := server.Judge(nil)
	if len(verdict.Violations) > 0 || verdict.Customers != faultyRows {
		b.Fatalf("seed %d: got %d customers and violations %+v, want %d and none", seed, verdict.Customers, verdict.Violations,
			faultyRows)
	}
	if !strings.Contains(out.String(), fmt.Sprintf("%d onboarded", faultyRows)) {
		b.Fatalf("seed %d: got this output, want %d onboarded:\n%s", seed, faultyRows, out)
	}
	if os.Getenv("PURSER_BENCH_VERBOSE") != "" {
		b.Logf("seed %d: %v, %d requests", seed, took, server.Stats().Requests)
	}
	return took
}
