package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
	"github.com/purser-onboard/purser/signer"
)

func TestHalts(t *testing.T) {
	tests := []struct {
		name  string
		alter func(*harness)
		rows  int
		class onboard.Class
	}{
		{"401", func(h *harness) {
			h.partner.faults = func(string, int) *fault { return &fault{err: status(401, client.Unauthorized)} }
		}, 1, "configuration"},
		{"403", func(h *harness) {
			h.partner.faults = func(string, int) *fault { return &fault{err: status(403, client.Forbidden)} }
		}, 1, "configuration"},
		{"redirect", func(h *harness) {
			h.partner.faults = func(string, int) *fault { return &fault{err: status(302, client.Redirected)} }
		}, 1, "configuration"},
		{"wrong secret", func(h *harness) {
			h.partner.faults = func(string, int) *fault {
				return &fault{err: &client.Error{Kind: client.NoToken, Err: status(401, client.Unauthorized)}}
			}
		}, 1, "configuration"},
		{"no such API", func(h *harness) {
			h.partner.faults = func(op string, _ int) *fault {
				if op == "probe" {
					return nil
				}
				return &fault{err: status(404, client.NotFound)}
			}
		}, 1, "configuration"},
		{"partner gone", func(h *harness) {
			h.partner.faults = func(string, int) *fault { return &fault{err: errDropped} }
		}, 1, "unreachable"},
		{"partner broken", func(h *harness) {
			h.partner.faults = func(string, int) *fault { return &fault{err: status(500, client.ServerError)} }
		}, 8, "unreachable"},
		{"five teapots", func(h *harness) {
			h.partner.faults = func(op string, _ int) *fault {
				if op == "probe" {
					return nil
				}
				return &fault{err: status(418, client.Unexpected)}
			}
		}, 8, "unexpected"},
		{"disk full", func(h *harness) { h.ledger.fail = errors.New("disk full") }, 1, "ledger"},
		{"signer locked", func(h *harness) { h.workerOptions.Signer = broken{signer.ErrUnusable} }, 1, "signer"},
		{"wrong signer", func(h *harness) { h.workerOptions.Signer = broken{signer.ErrMismatch} }, 8, "signer-mismatch"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			withHarness(t, tt.alter, func(t *testing.T, h *harness) {
				h.take(h.rows(0, tt.rows)...)
				h.awaitHalt(tt.class)
				h.stop()
				for _, r := range h.ledger.records {
					if tt.class != "unexpected" && tt.class != "signer-mismatch" && r.Stage.Terminal() {
						t.Errorf("%s: got stage %s (%s), want it unfinished", r.Where(), r.Stage, r.Class)
					}
				}
			})
		})
	}
}

// TestSignerThatMayLock: a signer whose device another attempt may lock ends the run with exit code 2, which no scheduler
// repeats; one that is away ends it with 1.
func TestSignerThatMayLock(t *testing.T) {
	for name, tt := range map[string]struct {
		err   error
		setUp bool
	}{
		"a wrong PIN": {&signer.LockoutError{Err: fmt.Errorf("%w: it does not accept the PIN", signer.ErrUnusable)}, true},
		"away":        {fmt.Errorf("%w: it is away", signer.ErrUnusable), false},
	} {
		t.Run(name, func(t *testing.T) {
			withHarness(t, func(h *harness) { h.workerOptions.Signer = broken{tt.err} }, func(t *testing.T, h *harness) {
				h.take(h.row(0))
				if halt := h.awaitHalt("signer"); halt.SetUp() != tt.setUp {
					t.Errorf("got a halt of the set-up: %v, want %v", halt.SetUp(), tt.setUp)
				}
				h.stop()
			})
		})
	}
}

// broken is a signer that has every key and returns err for every signature.
type broken struct{ err error }

func (b broken) HasKey(context.Context, common.Address) error { return nil }

func (b broken) SignMessage(context.Context, common.Address, []byte) (signer.Signature, error) {
	return signer.Signature{}, b.err
}

// wrongSetUps are failures that all rows share, with the class and the setting that the halt must name.
func wrongSetUps() map[string]struct {
	alter func(*harness)
	first int // of the rows
	class onboard.Class
	names string
} {
	return map[string]struct {
		alter func(*harness)
		first int
		class onboard.Class
		names string
	}{
		"wrong domain": {alter: func(h *harness) {
			h.partner.text = func(s string) string { return strings.ReplaceAll(s, "partner.test", "other.test") }
		}, class: "challenge", names: "--challenge-domain"},
		"wrong statement": {alter: func(h *harness) {
			h.partner.text = func(s string) string { return strings.Replace(s, "\n\n\n", "\n\nHello.\n\n", 1) }
		}, class: "challenge", names: "--challenge-statement"},
		"wrong encoding": {alter: func(h *harness) { h.workerOptions.Encoding = client.EncodingRaw },
			class: "signature-refused", names: "--signature-encoding"},
		"400 to every creation": {alter: onlyFor("create", status(400, client.Invalid)), class: "invalid", names: "--api-url"},
		"422 to every creation": {alter: onlyFor("create", status(422, client.KeyReused)),
			class: "unprocessable", names: "--api-key"},
		"404 to every submission": {alter: onlyFor("submit", status(404, client.NotFound)),
			class: "customer-gone", names: "--api-url"},
		"404 to every challenge": {alter: func(h *harness) {
			onlyFor("challenge", status(404, client.NotFound))(h)
			h.partner.text = func(string) string { return "" }
		}, class: "no-challenge", names: "--challenge-ttl"},
		"undocumented status": {alter: func(h *harness) { h.partner.created = "pending" }, class: "unexpected", names: "--api-url"},
		"keys of others":      {first: 50, class: "no-key", names: "--signer"},
		"a key, and none to sign with": {alter: func(h *harness) { h.workerOptions.Signer = broken{signer.ErrNoKey} },
			class: "no-key", names: "--signer"},
	}
}

// TestWrongSetUpCostsFewRows: five rows end and the others stay. The halt names the class, the setting and the rows.
func TestWrongSetUpCostsFewRows(t *testing.T) {
	for name, tt := range wrongSetUps() {
		t.Run(name, func(t *testing.T) {
			withHarness(t, func(h *harness) {
				h.options.Concurrency = 16
				if tt.alter != nil {
					tt.alter(h)
				}
			}, func(t *testing.T, h *harness) {
				h.take(h.rows(tt.first, 20)...)
				err := <-h.halted
				var halt *onboard.HaltError
				if !errors.As(err, &halt) || halt.Class != tt.class || halt.Count != onboard.SetupLimit || !halt.SetUp() {
					t.Fatalf("got %v, want a halt of the set-up after %d rows with class %s", err, onboard.SetupLimit, tt.class)
				}
				h.stop()
				ended := 0
				for _, r := range h.ledger.records {
					if !r.Stage.Terminal() {
						continue
					}
					ended++
					if r.Class != string(tt.class) {
						t.Errorf("%s: got class %s, want %s", r.Where(), r.Class, tt.class)
					}
					if !strings.Contains(err.Error(), r.Where()) {
						t.Errorf("got halt %q, want %s in it", err, r.Where())
					}
				}
				if ended != onboard.SetupLimit {
					t.Errorf("got %d rows that ended, want %d", ended, onboard.SetupLimit)
				}
				if !strings.Contains(err.Error(), tt.names) || !strings.Contains(err.Error(), string(tt.class)) {
					t.Errorf("got halt %q, want %s and %s in it", err, tt.names, tt.class)
				}
				// Rows that end only after long waits let other rows start.
				if created := len(h.partner.customers); created > 2*onboard.SetupLimit && tt.class != "no-challenge" {
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

// TestHaltAfter: rows that end alike in a series halt the run after HaltAfter of them.
func TestHaltAfter(t *testing.T) {
	for name, tt := range map[string]struct {
		haltAfter, want int // rows that end before the halt; 0: none
	}{
		"a series": {haltAfter: 7, want: 7},
		"never":    {haltAfter: 0, want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			withHarness(t, func(h *harness) {
				h.workerOptions.HaltAfter = tt.haltAfter
				h.partner.faults = failingAfter(1, status(400, client.Invalid))
			}, func(t *testing.T, h *harness) {
				h.take(h.row(0))
				h.await(1)
				h.take(h.rows(1, 15)...)
				if tt.want == 0 {
					h.await(15)
					return
				}
				var halt *onboard.HaltError
				if err := <-h.halted; !errors.As(err, &halt) || halt.Count != tt.want {
					t.Errorf("got %v, want a halt after %d rows", err, tt.want)
				}
			})
		})
	}
}

// TestSuccessEndsASeries: failures between rows that are onboarded do not halt the run.
func TestSuccessEndsASeries(t *testing.T) {
	withHarness(t, func(h *harness) {
		h.workerOptions.HaltAfter, h.options.Concurrency = 3, 1
		h.partner.faults = func(op string, n int) *fault {
			if op == "create" && n%3 != 1 {
				return &fault{err: status(400, client.Invalid)}
			}
			return nil
		}
	}, func(t *testing.T, h *harness) {
		for i := range 18 { // each after the last, so that the order is known
			h.take(h.row(i))
			h.await(1)
		}
		if tally := h.dispatcher.Tally(); tally.Failed != 12 || tally.Onboarded != 6 {
			t.Errorf("got %d failed and %d onboarded, want 12 and 6", tally.Failed, tally.Onboarded)
		}
	})
}

// TestReplayOfBadRowsEnds: rows that end in the class of their earlier end do not halt the run.
func TestReplayOfBadRowsEnds(t *testing.T) {
	withHarness(t, func(h *harness) {
		onlyFor("create", status(400, client.Invalid))(h)
		for i := range 12 {
			r := h.row(i)
			h.ledger.records = append(h.ledger.records, pipeline.Record{
				Row: r, ID: int64(i + 1), Version: 1, Stage: pipeline.Failed, Class: "invalid",
				CreateKey: pipeline.Key{
					Operation: pipeline.OpCreate, ID: h.workerOptions.Keyring.Create(r, 0),
					FirstSent: time.Now(), Outcome: pipeline.KeySettled,
				},
			})
		}
	}, func(t *testing.T, h *harness) {
		rows := h.rows(0, 12)
		for i := range rows {
			rows[i].ImportID = "import-2"
		}
		h.take(rows...)
		h.await(12)
		if tally := h.dispatcher.Tally(); tally.Failed != 12 {
			t.Errorf("got %d failed, want 12", tally.Failed)
		}
	})
}

// TestAlternatingClassesHalt: each class is counted separately until a row has passed the step.
func TestAlternatingClassesHalt(t *testing.T) {
	withHarness(t, func(h *harness) {
		h.partner.faults = func(op string, n int) *fault {
			switch {
			case op != "create":
				return nil
			case n%2 == 0:
				return &fault{err: status(400, client.Invalid)}
			}
			return &fault{err: status(418, client.Unexpected)}
		}
	}, func(t *testing.T, h *harness) {
		h.take(h.rows(0, 20)...)
		var halt *onboard.HaltError
		if err := <-h.halted; !errors.As(err, &halt) || halt.Count != onboard.SetupLimit || !halt.SetUp() {
			t.Errorf("got %v, want a halt after %d rows of one class", err, onboard.SetupLimit)
		}
		h.stop()
		if tally := h.dispatcher.Tally(); tally.Failed > 2*onboard.SetupLimit {
			t.Errorf("got %d rows that failed, want at most %d", tally.Failed, 2*onboard.SetupLimit)
		}
	})
}
