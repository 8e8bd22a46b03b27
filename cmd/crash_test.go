package cmd

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/sandbox"
)

// The crash suite kills the real consumer with SIGKILL at named points and at random moments while the partner injects
// faults, starts it again until every row is settled, and has the partner judge its history. Each point belongs to one
// seed; the full form adds kills at random moments. $PURSER_CRASH_SEED repeats one seed; $PURSER_CRASH_SEEDS sets the
// number of seeds.

// crashPoints are passed around every durable write and every send.
func crashPoints() []string {
	points := []string{
		"create.before-send", "create.after-send", "submit.before-send", "submit.after-send", "sign.before", "sign.after",
		"ledger.before-commit", "ledger.after-commit", "settled",
	}
	for _, s := range []pipeline.Stage{
		pipeline.Creating, pipeline.Challenged, pipeline.Signing, pipeline.Submitting, pipeline.Onboarded,
	} {
		points = append(points, "ledger."+string(s)+".before", "ledger."+string(s)+".after")
	}
	return points
}

type crashTotals struct {
	kills, runs, lost, requests, faults, halts, violations atomic.Int64
	mu                                                     sync.Mutex
	points                                                 map[string]int
}

func TestCrashes(t *testing.T) {
	t.Parallel()
	plan := crashPlan{seeds: 3, points: crashPoints()}
	if full {
		plan.seeds, plan.kills = 30, 11
	}
	crash(t, plan)
}

// TestCrashesWithLedgerTopic keeps the ledger in a topic, too, and sometimes loses the data directory with a crash: the
// next run begins with an empty one.
func TestCrashesWithLedgerTopic(t *testing.T) {
	t.Parallel()
	k := fakeKafka(t)
	plan := crashPlan{
		seeds: 2, points: append(crashPoints(), "ledger.after-append"), loses: true,
		queue: func(env []string, seed uint64) []string {
			name := fmt.Sprint("crash-", seed)
			env = append(onLedgerTopic(t, onKafka(env, k.addrs, name), name+".ledger"), "PURSER_CREATE_TOPICS=true")
			return append(env, "PURSER_CREATE_PARTITIONS=3",
				"KAFKA_SESSION_TIMEOUT=500ms", "KAFKA_HEARTBEAT_INTERVAL=100ms")
		},
	}
	if full {
		plan.seeds, plan.kills = 4, 11
	}
	crash(t, plan)
}

// crashPlan is what a crash suite kills, and where.
type crashPlan struct {
	seeds  int
	kills  int // for each seed, at random points after the seed's own; 0: at its own points only
	points []string
	queue  func(env []string, seed uint64) []string // selects the broker and topics; nil: the embedded broker
	loses  bool                                     // the data directory is lost sometimes
}

func crash(t *testing.T, plan crashPlan) {
	if raceEnabled && !full {
		t.Skip("the consumer that is killed is built without the race detector, so that it would watch nothing")
	}
	binary := buildConsumer(t)
	totals := &crashTotals{points: map[string]int{}}
	seeds := plan.seeds
	first := uint64(1)
	if s := os.Getenv("PURSER_CRASH_SEEDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("PURSER_CRASH_SEEDS: got %v, want a number", err)
		}
		seeds = n
	}
	single := os.Getenv("PURSER_CRASH_SEED")
	if single != "" {
		n, err := strconv.ParseUint(single, 10, 64)
		if err != nil {
			t.Fatalf("PURSER_CRASH_SEED: got %v, want a number", err)
		}
		first, seeds = n, 1
	}
	start := time.Now()
	t.Run("seeds", func(t *testing.T) {
		for i := range seeds {
			seed := first + uint64(i)
			t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
				t.Parallel()
				crashSeed(t, binary, seed, plan, totals)
			})
		}
	})
	t.Logf("%d kills in %d runs over %d seeds, %d data directories lost, %d requests, %d faults, %d halts, "+
		"%d violations, %v",
		totals.kills.Load(), totals.runs.Load(), seeds, totals.lost.Load(), totals.requests.Load(), totals.faults.Load(),
		totals.halts.Load(), totals.violations.Load(), time.Since(start).Round(time.Second))
	if single != "" {
		return
	}
	if want := int64(seeds * (plan.kills - 1)); totals.kills.Load() < want {
		t.Errorf("got %d kills, want at least %d", totals.kills.Load(), want)
	}
	for _, p := range plan.points {
		if totals.points[p] == 0 && seeds >= plan.seeds {
			t.Errorf("got no kill at %s, want one: is the point still passed?", p)
		}
	}
}

// buildConsumer builds the consumer with crash points, at one of which it can kill itself.
func buildConsumer(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "consumer")
	// Without debugging information it is linked in half the time.
	build := exec.CommandContext(
		t.Context(), "go", "build", "-ldflags", "-w", "-tags", "crashpoints", "-o", path, "./consumer")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("got %v, want the consumer with its crash points built:\n%s", err, out)
	}
	return path
}

// crashFaults draws the partner's faults for a seed. Every fault is limited, so that every row can settle. The short
// form has fewer, so that they are not taken for an outage, which would take long.
func crashFaults(random *rand.Rand) sandbox.Faults {
	most := 0.05
	if full {
		most = 0.2
	}
	f := sandbox.Faults{Limit: 2, SlowFor: 300 * time.Millisecond, RetryAfter: time.Second}
	for _, p := range []*float64{
		&f.ExpiredToken, &f.DropBefore, &f.HTMLError, &f.InFlight409, &f.Unstored5xx, &f.Stored5xx, &f.Stored5xxAfter,
		&f.Unstored5xxAfter, &f.RefuseSignature, &f.Slow, &f.DropAfter, &f.Truncated, &f.Malformed, &f.Trickle,
	} {
		if random.IntN(2) == 0 {
			*p = random.Float64() * most
		}
	}
	if random.IntN(4) == 0 {
		f.Throttle429, f.Throttle503, f.Redirect = 0.02, 0.02, 0.02
	}
	if random.IntN(2) == 0 {
		for _, p := range []*float64{
			&f.ChallengeAddress, &f.ChallengeDomain, &f.ChallengeChain, &f.ChallengeURI,
			&f.ChallengeStale, &f.ChallengeNotSIWE, &f.ChallengeHomograph, &f.ChallengeTrailing,
			&f.ChallengeStatement, &f.ChallengeURIQuery, &f.ChallengeExpiration, &f.ChallengeNotBefore,
			&f.ChallengeRequestID, &f.ChallengeResources,
		} {
			*p = random.Float64() * 0.03
		}
	}
	return f
}

func crashSeed(t *testing.T, binary string, seed uint64, plan crashPlan, totals *crashTotals) {
	random := rand.New(rand.NewPCG(seed, 0))
	const rate = 300
	config := sandbox.Config{
		Seed: seed, Faults: crashFaults(random), DeclaredRate: rate, ErrorShape: sandbox.ShapeRotate,
		// A busy machine may pause for a while; the longer window stays strict.
		Tolerance: sandbox.Tolerance{Jitter: time.Second},
	}
	args := []string{
		"--drain", "--concurrency", "4", "--rate", strconv.Itoa(rate), "--max-attempts", "40", "--progress", "none",
		"--retry-min", "5ms", "--retry-max", "100ms", "--list-pause", "50ms", "--request-timeout", "2s", "--log-level", "warn",
	}
	if random.IntN(3) == 0 { // keys and challenges expire while the consumer is down
		config.KeyTTL, config.ChallengeTTL = 2*time.Second, 3*time.Second
		// A challenge that expires on a busy machine is one more signature that is not accepted; the third fails the row.
		config.Faults.RefuseSignature = 0
		args = append(args, "--idempotency-ttl", "2s", "--challenge-ttl", "3s")
	}
	server, env := partnerEnv(t, config)
	if plan.queue != nil {
		env = plan.queue(env, seed)
	}
	mustRun(t, env, "importer", customers)

	var log strings.Builder
	kills, settled := 0, false
	var turns []string // the points of this seed
	for i, p := range plan.points {
		if i%plan.seeds == int(seed)%plan.seeds {
			turns = append(turns, p)
		}
	}
	for run := 0; !settled; run++ {
		if run > 60 {
			t.Fatalf("seed %d: got open rows after %d runs, want all settled:\n%s", seed, run, log.String())
		}
		at, after := "", time.Duration(0)
		switch {
		case len(turns) > 0:
			at = turns[0] + ":1"
		case kills >= plan.kills:
		case random.IntN(4) > 0:
			at = fmt.Sprintf("%s:%d", plan.points[random.IntN(len(plan.points))], 1+random.IntN(5))
		default:
			after = time.Duration(random.IntN(250)) * time.Millisecond
		}
		killed, code, out := crashRun(t, binary, append(env, "PURSER_CRASH_AT="+at), args, after)
		totals.runs.Add(1)
		fmt.Fprintf(&log, "run %d: kill at %q or after %v: killed %v, exit %d\n%s", run, at, after, killed, code, out)
		switch {
		case killed:
			if plan.loses && random.IntN(3) == 0 {
				env = append(env, "PURSER_DATA_DIR="+t.TempDir())
				totals.lost.Add(1)
			}
			kills++
			totals.kills.Add(1)
			if at != "" {
				point, _, _ := strings.Cut(at, ":")
				totals.mu.Lock()
				totals.points[point]++
				totals.mu.Unlock()
				turns = turns[min(1, len(turns)):]
			}
		case code == 0, code == 3:
			// A killed member may hold partitions until its session ends: this drain did not get them.
			settled = plan.queue == nil || allSettled(rowsOf(t, env))
		default: // halted, by a redirect for instance
			totals.halts.Add(1)
		}
	}
	expected := rowsOf(t, env)
	verdict := server.Judge(expected)
	stats := server.Stats()
	totals.requests.Add(int64(stats.Requests))
	for _, n := range stats.ByFault {
		totals.faults.Add(int64(n))
	}
	totals.violations.Add(int64(len(verdict.Violations)))
	for _, v := range verdict.Violations {
		t.Errorf("seed %d: got violation %s of %s by requests %v, want none: %s", seed, v.Rule, v.Subject, v.Seqs, v.Detail)
		for _, e := range server.History() {
			if slices.Contains(v.Seqs, e.Seq) {
				t.Logf("%+v", e)
			}
		}
	}
	if len(expected) != 30 || !verdict.Complete {
		t.Errorf("seed %d: got %d rows, history complete: %v; want 30, true", seed, len(expected), verdict.Complete)
	}
	for _, row := range expected {
		if row.Stage != string(pipeline.Onboarded) && row.Stage != string(pipeline.Refused) {
			t.Errorf("seed %d: %s: got stage %s, want onboarded or refused", seed, row.ChainID, row.Stage)
			for _, e := range server.History() {
				if e.Subject == row.ChainID || strings.Contains(e.Path, customerID(server, row.ChainID)) {
					t.Logf("%+v", e)
				}
			}
		}
	}
	if t.Failed() {
		status, out := command(t, env, "consumer", "status")
		if err := status.Run(); err != nil {
			t.Error(err)
		}
		log.WriteString(out.String())
	}
	if t.Failed() {
		t.Logf("repeat with PURSER_CRASH_SEED=%d; faults %s\n%s", seed, config.Faults, log.String())
	}
}

// allSettled reports whether every row of the export is settled.
func allSettled(rows []sandbox.Expected) bool {
	return len(rows) == 30 && !slices.ContainsFunc(rows, func(r sandbox.Expected) bool {
		return !pipeline.Stage(r.Stage).Terminal()
	})
}

// crashRun runs the consumer until it ends or is killed, by itself or after the given time.
func crashRun(
	t *testing.T, binary string, env, args []string, after time.Duration,
) (killed bool, code int, output string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	var out strings.Builder
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if after > 0 {
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // it may have ended by itself
		defer timer.Stop()
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return false, 0, out.String()
	case errors.As(err, &exit):
		status, ok := exit.Sys().(syscall.WaitStatus)
		return ok && status.Signaled() && status.Signal() == syscall.SIGKILL, exit.ExitCode(), out.String()
	}
	t.Fatal(err)
	return false, 0, ""
}

func customerID(server *sandbox.Server, chainID string) string {
	for _, c := range server.Customers() {
		if c.ChainID == chainID {
			return c.ID
		}
	}
	return "no customer"
}
