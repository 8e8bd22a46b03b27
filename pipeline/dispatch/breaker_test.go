package dispatch

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

// onlyFor gives every call of one operation the same fault.
func onlyFor(op string, err error) func(*bench) {
	return func(b *bench) {
		b.partner.faults = func(called string, _ int) *fault {
			if called == op {
				return &fault{err: err}
			}
			return nil
		}
	}
}

// wrongSetUps are failures that every row would share, with the class and the setting that the halt has to name.
func wrongSetUps() map[string]struct {
	alter func(*bench)
	first int // of the rows
	class onboard.Class
	names string
} {
	return map[string]struct {
		alter func(*bench)
		first int
		class onboard.Class
		names string
	}{
		"wrong domain": {alter: func(b *bench) {
			b.partner.text = func(s string) string { return strings.ReplaceAll(s, "partner.test", "other.test") }
		}, class: "challenge", names: "--challenge-domain"},
		"wrong statement": {alter: func(b *bench) {
			b.partner.text = func(s string) string { return strings.Replace(s, "\n\n\n", "\n\nHello.\n\n", 1) }
		}, class: "challenge", names: "--challenge-statement"},
		"wrong encoding": {alter: func(b *bench) { b.worker.Encoding = client.EncodingRaw },
			class: "signature-refused", names: "--signature-encoding"},
		"400 to every creation": {alter: onlyFor("create", status(400, client.Invalid)), class: "invalid", names: "--api-url"},
		"422 to every creation": {alter: onlyFor("create", status(422, client.KeyReused)),
			class: "unprocessable", names: "--api-key"},
		"404 to every submission": {alter: onlyFor("submit", status(404, client.NotFound)),
			class: "customer-gone", names: "--api-url"},
		"404 to every challenge": {alter: func(b *bench) {
			onlyFor("challenge", status(404, client.NotFound))(b)
			b.partner.text = func(string) string { return "" }
		}, class: "no-challenge", names: "--challenge-ttl"},
		"undocumented status": {alter: func(b *bench) { b.partner.created = "pending" }, class: "unexpected", names: "--api-url"},
		"keys of others":      {first: 50, class: "no-key", names: "--signer"},
	}
}

// TestWrongSetUpCostsFewRows: five rows end, the others stay, and the message names the class, the setting and the
// rows.
func TestWrongSetUpCostsFewRows(t *testing.T) {
	for name, tt := range wrongSetUps() {
		t.Run(name, func(t *testing.T) {
			onBench(t, func(b *bench) {
				b.options.Concurrency = 16
				if tt.alter != nil {
					tt.alter(b)
				}
			}, func(t *testing.T, b *bench) {
				rows := b.rows(tt.first)
				b.take(rows...)
				err := <-b.halted
				var halt *onboard.HaltError
				if !errors.As(err, &halt) || halt.Class != tt.class || halt.Count != onboard.SetupLimit || !halt.SetUp() {
					t.Fatalf("got %v, want a halt of the set-up after %d rows with class %s", err, onboard.SetupLimit, tt.class)
				}
				b.stop()
				ended := 0
				for _, r := range b.ledger.records {
					if !r.Stage.Terminal() {
						continue
					}
					ended++
					if r.Class != string(tt.class) {
						t.Errorf("%s: got class %s, want %s", r.Where(), r.Class, tt.class)
					}
					if !strings.Contains(err.Error(), r.Where()) {
						t.Errorf("got %q, want it to name %s", err, r.Where())
					}
				}
				if ended != onboard.SetupLimit {
					t.Errorf("got %d rows that ended, want %d", ended, onboard.SetupLimit)
				}
				if !strings.Contains(err.Error(), tt.names) || !strings.Contains(err.Error(), string(tt.class)) {
					t.Errorf("got %q, want it to name %s and %s", err, tt.names, tt.class)
				}
				// Where rows end only after long waits, others are begun meanwhile.
				if created := len(b.partner.customers); created > 2*onboard.SetupLimit && tt.class != "no-challenge" {
					t.Errorf("got %d customers created, want at most %d", created, 2*onboard.SetupLimit)
				}
			})
		})
	}
}

// failingAfter makes creations fail once n have succeeded.
func failingAfter(n int, err error) func(string, int) *fault {
	return func(op string, call int) *fault {
		if op == "create" && call > n {
			return &fault{err: err}
		}
		return nil
	}
}

func TestHaltAfter(t *testing.T) {
	for name, tt := range map[string]struct {
		haltAfter, want int // rows that end before the halt; 0: none
	}{
		"a series": {haltAfter: 7, want: 7},
		"never":    {haltAfter: 0, want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			onBench(t, func(b *bench) {
				b.worker.HaltAfter = tt.haltAfter
				b.partner.faults = failingAfter(1, status(400, client.Invalid))
			}, func(t *testing.T, b *bench) {
				b.take(b.row(0))
				b.await(1)
				var rows []pipeline.Row
				for i := range 15 {
					rows = append(rows, b.row(1+i))
				}
				b.take(rows...)
				if tt.want == 0 {
					b.await(15)
					return
				}
				var halt *onboard.HaltError
				if err := <-b.halted; !errors.As(err, &halt) || halt.Count != tt.want {
					t.Errorf("got %v, want a halt after %d rows", err, tt.want)
				}
			})
		})
	}
}

// TestSuccessEndsASeries: rows that end alike with others between them that pass are the rows' own trouble.
func TestSuccessEndsASeries(t *testing.T) {
	onBench(t, func(b *bench) {
		b.worker.HaltAfter, b.options.Concurrency = 3, 1
		b.partner.faults = func(op string, n int) *fault {
			if op == "create" && n%3 != 1 {
				return &fault{err: status(400, client.Invalid)}
			}
			return nil
		}
	}, func(t *testing.T, b *bench) {
		for i := range 18 { // one by one, so that the order is known
			b.take(b.row(i))
			b.await(1)
		}
		if tally := b.runner.Tally(); tally.Failed != 12 || tally.Onboarded != 6 {
			t.Errorf("got %d failed and %d onboarded, want 12 and 6", tally.Failed, tally.Onboarded)
		}
	})
}

// TestReplayOfBadRowsEnds: rows that end as they ended before say nothing new about the set-up.
func TestReplayOfBadRowsEnds(t *testing.T) {
	onBench(t, func(b *bench) {
		onlyFor("create", status(400, client.Invalid))(b)
		for i := range 12 {
			r := b.row(i)
			b.ledger.records = append(b.ledger.records, pipeline.Record{
				Row: r, ID: int64(i + 1), Version: 1, Stage: pipeline.Failed, Class: "invalid",
				CreateKey: pipeline.Key{Operation: pipeline.OpCreate, ID: b.worker.Keyring.Create(r, 0), FirstSent: time.Now(), Outcome: pipeline.KeySettled},
			})
		}
	}, func(t *testing.T, b *bench) {
		var rows []pipeline.Row
		for i := range 12 {
			r := b.row(i)
			r.ImportID = "import-2"
			rows = append(rows, r)
		}
		b.take(rows...)
		b.await(12)
		if tally := b.runner.Tally(); tally.Failed != 12 {
			t.Errorf("got %d failed, want 12", tally.Failed)
		}
	})
}

// TestFewRowsBeginAtFirst: before one row has come through, no more than a few customers are created.
func TestFewRowsBeginAtFirst(t *testing.T) {
	onBench(t, func(b *bench) {
		b.options.Concurrency = 16
		most := 0
		b.partner.before = func(c call) {
			if c.op == "create" {
				most++
			}
			if c.op == "submit" && most > 0 {
				if most > onboard.SetupLimit {
					t.Errorf("got %d creations before the first submission, want at most %d", most, onboard.SetupLimit)
				}
				most = -1 << 20
			}
		}
	}, func(t *testing.T, b *bench) {
		rows := b.rows(0)
		b.take(rows...)
		b.await(20)
	})
}

// TestProbeComesFirst: nothing is sent before the probe has passed, and what it finds wrong ends no row.
func TestProbeComesFirst(t *testing.T) {
	for name, tt := range map[string]struct {
		err   error
		class onboard.Class
	}{
		"a refused signature":  {status(400, client.RequestSignature), "configuration"},
		"a certificate":        {&client.Error{Kind: client.Unconnectable}, "configuration"},
		"a wrong secret":       {&client.Error{Kind: client.NoToken, Err: status(401, client.Unauthorized)}, "configuration"},
		"another API":          {status(200, client.Unexpected), "configuration"},
		"another API's tokens": {&client.Error{Kind: client.NoToken, Err: status(200, client.Unrecognized)}, "configuration"},
		"an outage":            {errDropped, "unreachable"},
	} {
		t.Run(name, func(t *testing.T) {
			onBench(t, onlyFor("probe", tt.err), func(t *testing.T, b *bench) {
				b.take(b.row(0), b.row(1))
				var halt *onboard.HaltError
				if err := <-b.halted; !errors.As(err, &halt) || halt.Class != tt.class {
					t.Errorf("got %v, want a halt with class %s", err, tt.class)
				}
				b.stop()
				if len(b.partner.calls) != 0 {
					t.Errorf("got %d calls, want none", len(b.partner.calls))
				}
				for _, r := range b.ledger.records {
					if r.Stage != pipeline.Planned {
						t.Errorf("%s: got stage %s, want %s", r.Where(), r.Stage, pipeline.Planned)
					}
				}
			})
		})
	}
}

// TestOutage: a partner that is away costs rows nothing, and the run goes on when it is back in time.
func TestOutage(t *testing.T) {
	for name, tt := range map[string]struct {
		away time.Duration
		halt bool
	}{
		"back in time": {away: 90 * time.Second},
		"away":         {away: time.Hour, halt: true},
	} {
		t.Run(name, func(t *testing.T) {
			onBench(t, func(b *bench) {
				var began time.Time
				b.partner.faults = func(op string, n int) *fault {
					if op == "create" && n == 4 {
						began = time.Now()
					}
					if !began.IsZero() && time.Since(began) < tt.away {
						return &fault{err: errDropped}
					}
					return nil
				}
			}, func(t *testing.T, b *bench) {
				rows := b.rows(0)
				b.take(rows...)
				if !tt.halt {
					b.await(20)
					if tally := b.runner.Tally(); tally.Onboarded != 20 {
						t.Errorf("got %d onboarded, want 20", tally.Onboarded)
					}
					return
				}
				var halt *onboard.HaltError
				err := <-b.halted
				for errors.As(err, &halt) && halt.Class != "unreachable" {
					t.Fatalf("got %v, want a halt with class unreachable", err)
				}
				b.stop()
				for _, r := range b.ledger.records {
					if r.Stage == pipeline.Failed {
						t.Errorf("%s: got %s (%s), want it to stay", r.Where(), r.Stage, r.Class)
					}
				}
			})
		})
	}
}

// TestRowsOwnTroubleEndsTheRow: a row on which alone the partner fails ends when its attempts are spent, even if no
// other row is left and the attempts are those of earlier runs.
func TestRowsOwnTroubleEndsTheRow(t *testing.T) {
	for _, earlier := range []int{0, 11} {
		onBench(t, func(b *bench) {
			b.worker.HaltAfter = 100
			onlyFor("create", status(500, client.ServerError))(b)
			for i := range 13 {
				r := b.row(i)
				b.ledger.records = append(b.ledger.records, pipeline.Record{
					Row: r, ID: int64(i + 1), Version: 1, Stage: pipeline.Creating, Attempts: earlier,
					CreateKey: pipeline.Key{Operation: pipeline.OpCreate, ID: b.worker.Keyring.Create(r, 0), FirstSent: time.Now(), Outcome: pipeline.KeyOpen},
				})
			}
		}, func(t *testing.T, b *bench) {
			var rows []pipeline.Row
			for i := range 13 {
				rows = append(rows, b.row(i))
			}
			b.take(rows...)
			b.await(13)
			if tally := b.runner.Tally(); tally.Failed != 13 {
				t.Errorf("%d earlier attempts: got %d failed, want 13", earlier, tally.Failed)
			}
		})
	}
}

// TestKeyOfAnEarlierAPIKey: whether a key that was derived for another API key id did anything is looked up before
// another is opened.
func TestKeyOfAnEarlierAPIKey(t *testing.T) {
	earlier := pipeline.Keyring{APIHost: "partner.test", APIKeyID: "earlier"}
	for name, there := range map[string]bool{"created": true, "not created": false} {
		t.Run(name, func(t *testing.T) {
			var old pipeline.Key
			onBench(t, func(b *bench) {
				r := b.row(0)
				if there {
					c := client.Customer{ID: "0b8f2c1e-6d3a-4b57-8a55-2f0f0c3f9d11", ChainID: r.Account.String(),
						ExternalID: r.ExternalID, Status: client.StatusInitiating}
					b.partner.customers = append(b.partner.customers, c)
					b.partner.issue(c)
				}
				old = pipeline.Key{Operation: pipeline.OpCreate, ID: earlier.Create(r, 0), FirstSent: time.Now(), Outcome: pipeline.KeyOpen}
				b.ledger.records = []pipeline.Record{{Row: r, ID: 1, Version: 1, Stage: pipeline.Creating, CreateKey: old}}
			}, func(t *testing.T, b *bench) {
				b.take(b.row(0))
				b.await(1)
				if r := b.ledger.get(b.row(0)); r.Stage != pipeline.Onboarded {
					t.Errorf("got stage %s (%s: %s), want %s", r.Stage, r.Class, r.Reason, pipeline.Onboarded)
				}
				creates := b.partner.of("create")
				if there && len(creates) != 0 || !there && len(creates) != 1 {
					t.Errorf("got %d creations, want the missing ones", len(creates))
				}
				for _, c := range creates {
					if c.key == old.ID {
						t.Errorf("got a creation under the key of the earlier API key id")
					}
				}
				if b.partner.calls[0].op != "list" {
					t.Errorf("got %s first, want the list", b.partner.calls[0].op)
				}
			})
		})
	}
}

// TestAlternatingClassesHalt: each class is counted for itself until a row has passed the step.
func TestAlternatingClassesHalt(t *testing.T) {
	onBench(t, func(b *bench) {
		b.partner.faults = func(op string, n int) *fault {
			switch {
			case op != "create":
				return nil
			case n%2 == 0:
				return &fault{err: status(400, client.Invalid)}
			}
			return &fault{err: status(418, client.Unexpected)}
		}
	}, func(t *testing.T, b *bench) {
		rows := b.rows(0)
		b.take(rows...)
		var halt *onboard.HaltError
		if err := <-b.halted; !errors.As(err, &halt) || halt.Count != onboard.SetupLimit || !halt.SetUp() {
			t.Errorf("got %v, want a halt after %d rows of one class", err, onboard.SetupLimit)
		}
		b.stop()
		if tally := b.runner.Tally(); tally.Failed > 2*onboard.SetupLimit {
			t.Errorf("got %d rows that failed, want at most %d", tally.Failed, 2*onboard.SetupLimit)
		}
	})
}

// TestTrialRowsThatStayPlanned: rows that are held up before they have begun do not hold the others up for good.
func TestTrialRowsThatStayPlanned(t *testing.T) {
	for rows := 1; rows <= 8; rows++ {
		m := &moody{has: func(n int) error {
			if n <= rows {
				return errors.New("the signer is busy")
			}
			return nil
		}}
		onBench(t, withMood(m), func(t *testing.T, b *bench) {
			var all []pipeline.Row
			for i := range rows {
				all = append(all, b.row(i))
			}
			b.take(all...)
			b.await(rows)
			if tally := b.runner.Tally(); tally.Onboarded != int64(rows) {
				t.Errorf("%d rows: got %d onboarded, want all", rows, tally.Onboarded)
			}
		})
	}
}

// TestTrialTimeEnds: a signer that takes long holds other rows up no longer than the trial.
func TestTrialTimeEnds(t *testing.T) {
	onBench(t, func(b *bench) {
		b.options.SignerConcurrency = 20
		b.worker.Signer = signer.Verified(&moody{Backend: signertest.NewMemory(b.keys...), slow: 10 * time.Minute})
	}, func(t *testing.T, b *bench) {
		var rows []pipeline.Row
		for i := range 12 {
			rows = append(rows, b.row(i))
		}
		b.take(rows...)
		time.Sleep(trialTime - time.Second)
		synctest.Wait()
		if got := len(b.partner.of("create")); got != onboard.SetupLimit {
			t.Errorf("during the trial: got %d creations, want %d", got, onboard.SetupLimit)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := len(b.partner.of("create")); got != 12 {
			t.Errorf("after the trial: got %d creations, want 12", got)
		}
		b.await(12)
	})
}

// TestOutageOutlastsRebalances: an outage is measured from its beginning, also when each probe is cut short.
func TestOutageOutlastsRebalances(t *testing.T) {
	told := 0
	onBench(t, func(b *bench) {
		n := 0
		b.options.OnOutage = func(error) { told++ }
		b.options.Probe = func(context.Context) error {
			if n++; n%3 == 0 {
				return client.ErrStopped
			}
			return errDropped
		}
	}, func(t *testing.T, b *bench) {
		begun := time.Now()
		b.take(b.row(0))
		var halt *onboard.HaltError
		if err := <-b.halted; !errors.As(err, &halt) || halt.Class != "unreachable" {
			t.Errorf("got %v, want a halt with class unreachable", err)
		}
		if took := time.Since(begun); took > b.options.OutageWait+time.Second || told != 1 {
			t.Errorf("got a halt after %v, told %d times, want it within %v, told once", took, told, b.options.OutageWait)
		}
	})
}

// TestEndlessThrottling: a partner that does nothing but throttle the rows is an outage after a while, though it
// answers the probe.
func TestEndlessThrottling(t *testing.T) {
	onBench(t, func(b *bench) {
		b.partner.faults = func(op string, _ int) *fault {
			return &fault{err: &client.Error{Op: op, Kind: client.Throttled, Status: 503, RetryAfter: time.Minute}}
		}
		b.options.Probe = func(context.Context) error { return nil }
	}, func(t *testing.T, b *bench) {
		begun := time.Now()
		b.take(b.row(0))
		var halt *onboard.HaltError
		if err := <-b.halted; !errors.As(err, &halt) || halt.Class != "unreachable" {
			t.Errorf("got %v, want a halt with class unreachable", err)
		}
		if took := time.Since(begun); took < 2*client.MaxRetryAfter || took > 2*client.MaxRetryAfter+10*time.Minute {
			t.Errorf("got a halt after %v, want it some time after %v", took, 2*client.MaxRetryAfter)
		}
	})
}

// TestPageInTheMiddle: answers of an unknown shape from a partner that was understood before are an outage while the
// probe is not answered as it should be, and a changed API when it is.
func TestPageInTheMiddle(t *testing.T) {
	page := &client.Error{Kind: client.Unrecognized, Status: 200}
	for name, tt := range map[string]struct {
		away  time.Duration // how long everything is answered by the page
		probe bool          // the probe, too
		class onboard.Class // of the halt; empty: none
	}{
		"a page for a while": {away: time.Minute, probe: true},
		"a page for long":    {away: time.Hour, probe: true, class: "unreachable"},
		"another API":        {away: time.Hour, class: "configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			onBench(t, func(b *bench) {
				var began time.Time
				b.partner.faults = func(op string, n int) *fault {
					if op == "create" && n == 8 {
						began = time.Now()
					}
					if !began.IsZero() && time.Since(began) < tt.away && (op == "create" || op == "submit") {
						return &fault{err: page}
					}
					return nil
				}
				b.options.Probe = func(context.Context) error {
					if tt.probe && !began.IsZero() && time.Since(began) < tt.away {
						return &client.Error{Kind: client.Unexpected, Status: 200}
					}
					return nil
				}
			}, func(t *testing.T, b *bench) {
				rows := b.rows(0)
				b.take(rows...)
				if tt.class == "" {
					b.await(20)
					if tally := b.runner.Tally(); tally.Onboarded != 20 {
						t.Errorf("got %d onboarded, want 20", tally.Onboarded)
					}
					return
				}
				var halt *onboard.HaltError
				if err := <-b.halted; !errors.As(err, &halt) || halt.Class != tt.class {
					t.Errorf("got %v, want a halt with class %s", err, tt.class)
				}
				b.stop()
				if tally := b.runner.Tally(); tally.Failed != 0 {
					t.Errorf("got %d rows that failed, want none", tally.Failed)
				}
			})
		})
	}
}

// TestOutageWaitIsUsedToItsEnd: a partner that is back just in time is not given up before.
func TestOutageWaitIsUsedToItsEnd(t *testing.T) {
	onBench(t, func(b *bench) {
		began := time.Now()
		b.options.OutageWait = 20 * time.Second
		b.options.Probe = func(context.Context) error {
			if time.Since(began) < 19300*time.Millisecond {
				return errDropped
			}
			return nil
		}
	}, func(t *testing.T, b *bench) {
		b.take(b.row(0))
		b.await(1)
		if tally := b.runner.Tally(); tally.Onboarded != 1 {
			t.Errorf("got %d onboarded, want 1", tally.Onboarded)
		}
	})
}

// TestLoneRowEndsSoon: a row on which alone the partner fails tries again within seconds while the partner answers.
func TestLoneRowEndsSoon(t *testing.T) {
	onBench(t, onlyFor("create", status(500, client.ServerError)), func(t *testing.T, b *bench) {
		begun := time.Now()
		b.take(b.row(0))
		b.await(1)
		if took := time.Since(begun); took > time.Minute {
			t.Errorf("got its end after %v, want it within a minute", took)
		}
	})
}
