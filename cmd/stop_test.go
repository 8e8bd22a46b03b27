package cmd

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/purser-onboard/purser/sandbox"
)

// stopGrace is how long a stop may take beyond the request in flight. It is longer in the short form, which shares the
// machine with the tests of other packages.
func stopGrace() time.Duration {
	if full {
		return time.Second
	}
	return 5 * time.Second
}

// passing returns faults after which rows wait for another attempt or for the partner's list while other rows go on.
// The preflight has none of them.
func passing() sandbox.Faults {
	return sandbox.Faults{
		DropBefore: 0.05, Stored5xx: 0.05, Unstored5xx: 0.05, Limit: 1,
		On: []sandbox.Operation{sandbox.OpCreate, sandbox.OpSign},
	}
}

// TestStopsUnderLoad sends SIGTERM at random moments. Each stop takes no longer than the request in flight and the
// grace, and in the end every row is onboarded.
func TestStopsUnderLoad(t *testing.T) {
	t.Parallel()
	stops, exports := 8, []int{120}
	if full { // consumers side by side, which mostly wait for answers, with as many rows each
		stops, exports = 67, []int{2800, 1000, 1000}
	}
	for i, rows := range exports {
		t.Run(strconv.Itoa(i+1), func(t *testing.T) {
			t.Parallel()
			stopUnderLoad(t, uint64(i+1), stops, rows)
		})
	}
}

// stopUnderLoad starts and stops a consumer until the given number of stops is reached.
func stopUnderLoad(t *testing.T, seed uint64, stops, rows int) {
	const latency = 100 * time.Millisecond
	faults := passing()
	faults.DropAfter = 0.05
	var next atomic.Pointer[afterLines]
	server, env := partnerBehind(t, sandbox.Config{Latency: latency, DeclaredRate: 500, Faults: faults},
		func(partner http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if moment := next.Load(); moment != nil {
					_, _ = moment.Write(nil)
				}
				partner.ServeHTTP(w, r)
			})
		})
	export, keys, _ := makeExport(t, rows)
	env = append(env, "PURSER_SIGNER=insecure-file:"+keys, "PURSER_RETRY_MAX=1s")
	mustRun(t, env, "importer", export)

	random := rand.New(rand.NewPCG(seed, 0))
	longest, interrupted := time.Duration(0), 0
	for i := range stops {
		moment := newAfterLines(2 + random.Int64N(40)) // from the preflight on
		next.Store(moment)
		cmd, out := command(t, env, "consumer", "--drain", "--concurrency", "8")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-moment.done:
		case err := <-ended:
			t.Fatalf("stop %d: got the end of the run (%v), want it stopped before:\n%s", i, err, out)
		}
		select { // the stop may come at any point of a request
		case <-time.After(time.Duration(random.Int64N(int64(latency)))):
		case err := <-ended:
			t.Fatalf("stop %d: got the end of the run (%v), want it stopped before:\n%s", i, err, out)
		}
		sent := time.Now()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		_ = ignoreExit(<-ended) // its exit code is checked below
		took := time.Since(sent)
		longest = max(longest, took)
		if took > latency+stopGrace() {
			t.Errorf("stop %d: got its end after %v, want at most %v:\n%s", i, took, latency+stopGrace(), out)
		}
		switch code := cmd.ProcessState.ExitCode(); {
		case code == 1 && strings.Contains(out.String(), "interrupted by terminated"):
			interrupted++
		case code != 0: // 0: its rows had settled when the signal came
			t.Errorf("stop %d: got exit code %d, want 1 and \"interrupted by terminated\", or 0:\n%s", i, code, out)
		}
	}
	t.Logf("%d stops, %d of them with rows left, the longest took %v", stops, interrupted, longest.Round(time.Millisecond))
	if interrupted < stops*3/4 {
		t.Errorf("got %d interrupted runs, want at least %d: the other stops came after the load", interrupted, stops*3/4)
	}
	last, out := command(t, env, "consumer", "--drain", "--concurrency", "64")
	if err := last.Run(); err != nil {
		failures, why := command(t, env, "consumer", "failures")
		t.Errorf("last run: got %v, want exit code 0 (failures: %v)\n%s%s", err, failures.Run(), why, out)
	}
	expected := rowsOf(t, env)
	lost := slices.DeleteFunc(slices.Clone(expected), func(r sandbox.Expected) bool { return r.Stage == "onboarded" })
	verdict := server.Judge(expected)
	if len(expected) != rows || len(lost) > 0 ||
		verdict.Customers != rows || !verdict.Complete || len(verdict.Violations) > 0 {
		t.Errorf("got %d rows, %d customers, complete %v, violations %+v, not onboarded %+v; want %d rows onboarded",
			len(expected), verdict.Customers, verdict.Complete, verdict.Violations, lost, rows)
	}
}

// TestHandOver has a second consumer join and leave while the first works. It gets its partitions, and the first gets
// them back, within a heartbeat, the request in flight and the grace.
func TestHandOver(t *testing.T) {
	t.Parallel()
	scale := fleetScale{
		rows: 110, latency: 200 * time.Millisecond, heartbeat: 100 * time.Millisecond, faults: passing(),
		session: 20 * time.Second, // a release that waits in vain would take this long
	}
	turns := 2
	if full {
		turns, scale.rows = 20, 1100
	}
	f := newFleet(t, fakeKafka(t), scale, "hand-over", "PURSER_MAX_ATTEMPTS=40", "PURSER_RETRY_MAX=1s",
		"PURSER_LIST_PAUSE=200ms")
	a, b := f.members[0], f.members[1]
	f.start(a)
	f.awaitShared(a)
	limit := scale.session / 2
	var came, left time.Duration
	for turn := range turns {
		f.awaitCreation(a)
		f.mu.Lock()
		seen := len(f.sightings)
		f.mu.Unlock()
		f.start(b)
		f.awaitShared(a, b)
		f.mu.Lock()
		first := slices.IndexFunc(f.sightings[seen:], func(s sighting) bool { return s.member == b })
		probed := f.sightings[seen+first].at.Add(f.latency) // then it joins the group
		took := f.claims[len(f.claims)-1].at.Sub(probed)
		f.mu.Unlock()
		came = max(came, took)
		if took > limit {
			t.Errorf("turn %d: got a hand-over of %v, want at most %v", turn, took, limit)
		}

		f.awaitCreation(b)
		sent := time.Now()
		b.leave()
		took = time.Since(sent)
		left = max(left, took)
		if took > limit {
			t.Errorf("turn %d: got a stop of %v, want at most %v", turn, took, limit)
		}
		sent = time.Now()
		f.awaitShared(a)
		if took := time.Since(sent); took > limit {
			t.Errorf("turn %d: got the hand-over back after %v, want at most %v", turn, took, limit)
		}
	}
	t.Logf("%d hand-overs, the longest took %v, the longest stop %v", turns, came.Round(time.Millisecond),
		left.Round(time.Millisecond))
	f.awaitCommitted()
	f.verify()
}
