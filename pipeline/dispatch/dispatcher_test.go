package dispatch

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/google/uuid"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

// onBench runs a test in a bubble with a clock of its own.
func onBench(t *testing.T, alter func(*bench), test func(*testing.T, *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(t, newBench(t, alter))
	})
}

func TestRowIsOnboarded(t *testing.T) {
	onBench(t, func(b *bench) {
		b.partner.before = func(c call) { // rule "Write, then send": what leaves is recorded already
			switch c.op {
			case "create":
				if r := b.ledger.get(b.row(0)); r.Stage != pipeline.Creating || r.CreateKey.ID != c.key {
					t.Errorf("sent %v before it was recorded: %+v", c.key, r)
				}
			case "submit":
				if r := b.ledger.get(b.row(0)); r.Stage != pipeline.Submitting || r.SubmitKey.ID != c.key || !strings.Contains(c.body, "signature") {
					t.Errorf("sent %v before it was recorded: %+v", c.key, r)
				}
			}
		}
	}, func(t *testing.T, b *bench) {
		b.take(b.row(0))
		b.await(1)
		r := b.ledger.get(b.row(0))
		if r.Stage != pipeline.Onboarded || r.AlreadyOnboarded || r.Class != "" || r.PartnerStatus != "screening" {
			t.Errorf("%+v", r)
		}
		if tally := b.runner.Tally(); tally.Onboarded != 1 || tally.Received != 1 || tally.Signatures != 1 || tally.Retried != 0 || tally.Bad() {
			t.Errorf("%+v", tally)
		}
		if len(b.partner.calls) != 2 {
			t.Errorf("calls %+v", b.partner.calls)
		}
	})
}

func TestRepeatedMessageIsSkipped(t *testing.T) {
	onBench(t, nil, func(t *testing.T, b *bench) {
		b.take(b.row(0), b.row(0))
		b.await(2)
		b.take(b.row(0))
		b.await(1)
		if tally := b.runner.Tally(); tally.Received != 3 || tally.Skipped != 2 || tally.Onboarded != 1 {
			t.Errorf("%+v", tally)
		}
		if n := len(b.partner.of("create")); n != 1 {
			t.Errorf("created %d times", n)
		}
	})
}

func TestContradictionIsAConflict(t *testing.T) {
	onBench(t, nil, func(t *testing.T, b *bench) {
		other := b.row(0)
		other.ExternalID = "another"
		reverse := b.row(1)
		reverse.ExternalID = b.row(0).ExternalID
		b.take(b.row(0), other, reverse)
		b.await(3)
		if tally := b.runner.Tally(); tally.Onboarded != 1 || tally.Conflict != 2 || !tally.Bad() {
			t.Errorf("%+v", tally)
		}
	})
}

func TestBadMessageGoesToTheDeadLetters(t *testing.T) {
	onBench(t, nil, func(t *testing.T, b *bench) {
		bad := pipeline.Message{Topic: "work", Partition: 0, Offset: 1, Key: []byte("k"), Value: []byte("{"),
			Headers: []pipeline.Header{{Key: "h", Value: []byte("v")}}}
		good := b.message(b.row(0))
		good.Offset = 2
		if err := b.runner.Take(t.Context(), []pipeline.Message{bad, good}, func(m pipeline.Message) { b.settled <- m }); err != nil {
			t.Fatal(err)
		}
		b.await(2)
		if len(b.dead.published) != 1 || string(b.dead.published[0].Value) != "{" || len(b.dead.published[0].Headers) != 8 {
			t.Errorf("%+v", b.dead.published)
		}
		if tally := b.runner.Tally(); tally.DeadLettered != 1 || tally.Onboarded != 1 || tally.Received != 2 {
			t.Errorf("%+v", tally)
		}
	})
}

// scripted makes the first calls of operations meet the given faults.
func scripted(script map[string][]*fault) func(string, int) *fault {
	return func(op string, n int) *fault {
		if faults := script[op]; n <= len(faults) {
			return faults[n-1]
		}
		return nil
	}
}

// TestFaultsOnTheRoad: whatever happens to a request, the row ends where it should, with one customer and never two
// payloads under a key.
func TestFaultsOnTheRoad(t *testing.T) {
	before, after := &fault{err: errDropped}, &fault{act: true, err: errDropped}
	e500 := status(500, client.ServerError)
	e502 := status(502, client.ServerError)
	truncated := &client.Error{Op: "test", Kind: client.Malformed, Status: 201}
	throttled := &client.Error{Op: "test", Kind: client.Throttled, Status: 429, RetryAfter: 7 * time.Second}
	noToken := &client.Error{Op: "test", Kind: client.NoToken, Err: errDropped}
	inFlight := status(409, client.Conflicting)
	tests := []struct {
		name    string
		script  map[string][]*fault
		stage   pipeline.Stage
		class   onboard.Class
		already bool
		creates int // calls of create
		keys    int // different create keys
	}{
		{name: "none", stage: pipeline.Onboarded, creates: 1, keys: 1},
		{name: "create lost before", script: map[string][]*fault{"create": {before}}, stage: pipeline.Onboarded, creates: 2, keys: 1},
		{name: "create lost after", script: map[string][]*fault{"create": {after}}, stage: pipeline.Onboarded, creates: 2, keys: 1},
		{name: "create truncated", script: map[string][]*fault{"create": {{act: true, err: truncated}}}, stage: pipeline.Onboarded, creates: 2, keys: 1},
		{name: "create gateway error after", script: map[string][]*fault{"create": {{act: true, err: e502}, {err: e502}, {err: e502}, {err: e502}}}, stage: pipeline.Onboarded, creates: 2, keys: 1},
		{name: "create 500 before", script: map[string][]*fault{"create": {{err: e500}}}, stage: pipeline.Onboarded, creates: 2, keys: 1},
		{name: "create 500 after", script: map[string][]*fault{"create": {{act: true, err: e500}}}, stage: pipeline.Onboarded, creates: 2, keys: 1},
		{name: "create 500 replayed thrice", script: map[string][]*fault{"create": {{err: e500}, {err: e500}, {err: e500}}}, stage: pipeline.Onboarded, creates: 4, keys: 2},
		{name: "create in flight, then created", script: map[string][]*fault{"create": {{err: inFlight}, {err: inFlight}}}, stage: pipeline.Onboarded, creates: 3, keys: 1},
		{name: "create throttled", script: map[string][]*fault{"create": {{err: throttled}, {err: throttled}}}, stage: pipeline.Onboarded, creates: 3, keys: 1},
		{name: "create without token", script: map[string][]*fault{"create": {{err: noToken}}}, stage: pipeline.Onboarded, creates: 2, keys: 1},
		{name: "create 422 twice", script: map[string][]*fault{"create": {{err: status(422, client.KeyReused)}, {err: status(422, client.KeyReused)}}}, stage: pipeline.Onboarded, creates: 3, keys: 3},
		{name: "create 422 thrice", script: map[string][]*fault{"create": {{err: status(422, client.KeyReused)}, {err: status(422, client.KeyReused)}, {err: status(422, client.KeyReused)}}}, stage: pipeline.Failed, class: "unprocessable", creates: 3, keys: 3},
		{name: "create 400", script: map[string][]*fault{"create": {{err: status(400, client.Invalid)}}}, stage: pipeline.Failed, class: "invalid", creates: 1, keys: 1},
		{name: "create teapot", script: map[string][]*fault{"create": {{err: status(418, client.Unexpected)}}}, stage: pipeline.Failed, class: "unexpected", creates: 1, keys: 1},
		{name: "submit lost before", script: map[string][]*fault{"submit": {before, before}}, stage: pipeline.Onboarded, creates: 1, keys: 1},
		{name: "submit lost after", script: map[string][]*fault{"submit": {after}}, stage: pipeline.Onboarded, creates: 1, keys: 1},
		{name: "submit 500 after, stored", script: map[string][]*fault{"submit": {{act: true, err: e500}, {err: e500}, {err: e500}}}, stage: pipeline.Onboarded, creates: 1, keys: 1},
		{name: "submit 500 before, stored", script: map[string][]*fault{"submit": {{err: e500}, {err: e500}, {err: e500}}}, stage: pipeline.Onboarded, creates: 1, keys: 1},
		{name: "submit in flight", script: map[string][]*fault{"submit": {{err: inFlight}}}, stage: pipeline.Onboarded, creates: 1, keys: 1},
		{name: "submit refused twice", script: map[string][]*fault{"submit": {{err: status(400, client.Invalid)}, {err: status(400, client.Invalid)}}}, stage: pipeline.Onboarded, creates: 1, keys: 1},
		{name: "submit refused thrice", script: map[string][]*fault{"submit": {{err: status(400, client.Invalid)}, {err: status(400, client.Invalid)}, {err: status(400, client.Invalid)}}}, stage: pipeline.Failed, class: "signature-refused", creates: 1, keys: 1},
		{name: "submit refused although accepted", script: map[string][]*fault{"submit": {{act: true, err: status(400, client.Invalid)}}}, stage: pipeline.Onboarded, creates: 1, keys: 1},
		{name: "submit 404", script: map[string][]*fault{"submit": {{err: status(404, client.NotFound)}}}, stage: pipeline.Onboarded, creates: 1, keys: 1},
		{name: "list lost", script: map[string][]*fault{"create": {{err: inFlight}}, "list": {before, {err: e502}, {err: throttled}}}, stage: pipeline.Onboarded, creates: 2, keys: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			onBench(t, func(b *bench) {
				if tt.script != nil {
					b.partner.faults = scripted(tt.script)
				}
			}, func(t *testing.T, b *bench) {
				b.take(b.row(0))
				b.await(1)
				r := b.ledger.get(b.row(0))
				if r.Stage != tt.stage || r.Class != string(tt.class) || r.AlreadyOnboarded != tt.already {
					t.Errorf("%s (%s) already %v: %s", r.Stage, r.Class, r.AlreadyOnboarded, r.Reason)
				}
				b.checkKeys(t)
				creates := b.partner.of("create")
				keys := map[uuid.UUID]bool{}
				for _, c := range creates {
					keys[c.key] = true
				}
				if len(creates) != tt.creates || len(keys) != tt.keys {
					t.Errorf("%d creations under %d keys, want %d under %d", len(creates), len(keys), tt.creates, tt.keys)
				}
				if len(b.partner.customers) > 1 {
					t.Errorf("customers: %+v", b.partner.customers)
				}
			})
		})
	}
}

// checkKeys makes sure that no key was seen with two payloads.
func (b *bench) checkKeys(t *testing.T) {
	t.Helper()
	bodies := map[uuid.UUID]string{}
	for _, c := range b.partner.calls {
		if c.key == uuid.Nil {
			continue
		}
		if earlier, ok := bodies[c.key]; ok && earlier != c.body {
			t.Errorf("key %s with two payloads:\n%s\n%s", c.key, earlier, c.body)
		}
		bodies[c.key] = c.body
	}
}

// TestFullPartner: with an empty ledger and customers that are all there already, every row is settled and none is
// created again.
func TestFullPartner(t *testing.T) {
	onBench(t, nil, func(t *testing.T, b *bench) {
		for i, s := range []client.Status{"initiating", "screening", "active", "inactive", "rejected"} {
			c := client.Customer{ID: uuid.NewString(), ChainID: strings.ToLower(b.row(i).Account.String()), ExternalID: b.row(i).ExternalID, Status: s}
			b.partner.customers = append(b.partner.customers, c)
		}
		taken := client.Customer{ID: uuid.NewString(), ChainID: b.row(5).Account.String(), ExternalID: "somebody else", Status: "active"}
		b.partner.customers = append(b.partner.customers, taken)
		b.take(b.row(0), b.row(1), b.row(2), b.row(3), b.row(4), b.row(5))
		b.await(6)
		if tally := b.runner.Tally(); tally.Onboarded != 4 || tally.AlreadyOnboarded != 3 || tally.Rejected != 1 || tally.Conflict != 1 {
			t.Errorf("%+v", tally)
		}
		if n := len(b.partner.of("list")); n != 1 {
			t.Errorf("the list was read %d times", n)
		}
		if len(b.partner.customers) != 6 {
			t.Errorf("%d customers", len(b.partner.customers))
		}
		if r := b.ledger.get(b.row(5)); !strings.Contains(r.Reason, "somebody else") {
			t.Errorf("the reason does not name the other: %q", r.Reason)
		}
	})
}

func TestHostileChallengeIsNotSigned(t *testing.T) {
	for name, text := range map[string]func(string) string{
		"not a sign-in": func(string) string { return "I owe you 5 ETH" },
		"domain":        func(s string) string { return strings.ReplaceAll(s, "partner.test", "partner.test.evil") },
		"chain":         func(s string) string { return strings.Replace(s, "Chain ID: 300", "Chain ID: 1", 1) },
		"address": func(s string) string {
			return strings.Replace(s, signertest.Address(signertest.Key(0)).Hex(), signertest.Address(signertest.Key(1)).Hex(), 1)
		},
		"trailing": func(s string) string { return s + "\nand more" },
	} {
		t.Run(name, func(t *testing.T) {
			onBench(t, func(b *bench) { b.partner.text = text }, func(t *testing.T, b *bench) {
				b.take(b.row(0))
				b.await(1)
				r := b.ledger.get(b.row(0))
				if r.Stage != pipeline.Refused || r.Class != "challenge" || r.Reason == "" {
					t.Errorf("%+v", r)
				}
				if tally := b.runner.Tally(); tally.Signatures != 0 || tally.Refused != 1 {
					t.Errorf("%+v", tally)
				}
			})
		})
	}
}

// TestReplayedStaleChallenge: a creation answered from the partner's store brings a challenge of long ago; a fresh one
// is fetched and signed. When that too is stale, it is refused.
func TestStaleChallenge(t *testing.T) {
	for name, tt := range map[string]struct {
		stale int
		want  pipeline.Stage
	}{"first": {1, pipeline.Onboarded}, "always": {99, pipeline.Refused}} {
		t.Run(name, func(t *testing.T) {
			issued := 0
			onBench(t, func(b *bench) {
				b.partner.text = func(s string) string {
					if issued++; issued <= tt.stale {
						now := time.Now().UTC().Format(time.RFC3339)
						return strings.Replace(s, now[:13], time.Now().UTC().Add(-3 * time.Hour).Format(time.RFC3339)[:13], 1)
					}
					return s
				}
			}, func(t *testing.T, b *bench) {
				b.take(b.row(0))
				b.await(1)
				if r := b.ledger.get(b.row(0)); r.Stage != tt.want {
					t.Errorf("%s: %s", r.Stage, r.Reason)
				}
			})
		})
	}
}

// constantNonce has all challenges name the same nonce.
func constantNonce(s string) string {
	above, below, _ := strings.Cut(s, "Nonce: ")
	return above + "Nonce: aaaaaaaa" + below[strings.Index(below, "\n"):]
}

// TestNonceIsSignedOnce: of challenges with one nonce, one is signed.
func TestNonceIsSignedOnce(t *testing.T) {
	onBench(t, func(b *bench) { b.partner.text = constantNonce }, func(t *testing.T, b *bench) {
		b.take(b.row(0), b.row(1), b.row(2), b.row(3))
		b.await(4)
		if tally := b.runner.Tally(); tally.Signatures != 1 || tally.Onboarded != 1 || tally.Refused != 3 {
			t.Errorf("got %d signatures, %d onboarded, %d refused, want 1, 1, 3", tally.Signatures, tally.Onboarded, tally.Refused)
		}
		for i := range 4 {
			if r := b.ledger.get(b.row(i)); r.Stage == pipeline.Refused && !strings.Contains(r.Reason, "nonce") {
				t.Errorf("got reason %q, want it to name the nonce", r.Reason)
			}
		}
	})
}

// TestUsedNoncesHalt: a refused nonce is no success of the policy, so that a series of them halts the run.
func TestUsedNoncesHalt(t *testing.T) {
	onBench(t, func(b *bench) {
		b.partner.text = constantNonce
		b.worker.HaltAfter, b.options.Concurrency = 3, 1
	}, func(t *testing.T, b *bench) {
		b.take(b.row(0), b.row(1), b.row(2), b.row(3), b.row(4), b.row(5))
		var halt *onboard.HaltError
		if err := <-b.halted; !errors.As(err, &halt) || halt.Class != "challenge" || halt.Count != 3 {
			t.Errorf("got %v, want a halt after 3 rows of class challenge", err)
		}
	})
}

func TestNoKey(t *testing.T) {
	onBench(t, nil, func(t *testing.T, b *bench) {
		b.take(b.row(77))
		b.await(1)
		if r := b.ledger.get(b.row(77)); r.Stage != pipeline.Failed || r.Class != "no-key" {
			t.Errorf("%+v", r)
		}
		if len(b.partner.calls) != 0 {
			t.Errorf("a customer that nobody can sign for was sent: %+v", b.partner.calls)
		}
	})
}

func TestHalts(t *testing.T) {
	tests := []struct {
		name  string
		alter func(*bench)
		rows  int
		class onboard.Class
	}{
		{"401", func(b *bench) {
			b.partner.faults = func(string, int) *fault { return &fault{err: status(401, client.Unauthorized)} }
		}, 1, "configuration"},
		{"403", func(b *bench) {
			b.partner.faults = func(string, int) *fault { return &fault{err: status(403, client.Forbidden)} }
		}, 1, "configuration"},
		{"redirect", func(b *bench) {
			b.partner.faults = func(string, int) *fault { return &fault{err: status(302, client.Redirected)} }
		}, 1, "configuration"},
		{"wrong secret", func(b *bench) {
			b.partner.faults = func(string, int) *fault {
				return &fault{err: &client.Error{Kind: client.NoToken, Err: status(401, client.Unauthorized)}}
			}
		}, 1, "configuration"},
		{"no such API", func(b *bench) {
			b.partner.faults = func(op string, _ int) *fault {
				if op == "probe" {
					return nil
				}
				return &fault{err: status(404, client.NotFound)}
			}
		}, 1, "configuration"},
		{"partner gone", func(b *bench) {
			b.partner.faults = func(string, int) *fault { return &fault{err: errDropped} }
		}, 1, "unreachable"},
		{"partner broken", func(b *bench) {
			b.partner.faults = func(string, int) *fault { return &fault{err: status(500, client.ServerError)} }
		}, 8, "unreachable"},
		{"five teapots", func(b *bench) {
			b.partner.faults = func(op string, _ int) *fault {
				if op == "probe" {
					return nil
				}
				return &fault{err: status(418, client.Unexpected)}
			}
		}, 8, "unexpected"},
		{"disk full", func(b *bench) { b.ledger.fail = errors.New("disk full") }, 1, "ledger"},
		{"signer locked", func(b *bench) { b.worker.Signer = broken{signer.ErrUnusable} }, 1, "signer"},
		{"wrong signer", func(b *bench) { b.worker.Signer = broken{signer.ErrMismatch} }, 8, "signer-mismatch"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			onBench(t, tt.alter, func(t *testing.T, b *bench) {
				var rows []pipeline.Row
				for i := range tt.rows {
					rows = append(rows, b.row(i))
				}
				b.take(rows...)
				err := <-b.halted
				var halt *onboard.HaltError
				if !errors.As(err, &halt) || halt.Class != tt.class {
					t.Fatalf("%v", err)
				}
				b.stop()
				for _, r := range b.ledger.records {
					if tt.class != "unexpected" && tt.class != "signer-mismatch" && r.Stage.Terminal() {
						t.Errorf("%s: the run's trouble ended the row: %s (%s)", r.Where(), r.Stage, r.Class)
					}
				}
			})
		})
	}
}

// broken is a signer that has every key and fails every signature.
type broken struct{ err error }

func (b broken) HasKey(context.Context, common.Address) (bool, error) { return true, nil }

func (b broken) SignMessage(context.Context, common.Address, []byte) (signer.Signature, error) {
	return signer.Signature{}, b.err
}

// TestNewImportRetries: what ended badly starts again with a new import, and only with a new one.
func TestNewImportRetries(t *testing.T) {
	onBench(t, func(b *bench) {
		b.partner.faults = scripted(map[string][]*fault{"create": {{err: status(400, client.Invalid)}}})
	}, func(t *testing.T, b *bench) {
		b.take(b.row(0))
		b.await(1)
		b.take(b.row(0))
		b.await(1)
		if tally := b.runner.Tally(); tally.Failed != 1 || tally.Skipped != 1 || tally.BadRows != 1 {
			t.Errorf("%+v", tally)
		}
		again := b.row(0)
		again.ImportID = "import-2"
		b.take(again)
		b.await(1)
		if tally := b.runner.Tally(); tally.Failed != 1 || tally.Onboarded != 1 || tally.Bad() {
			t.Errorf("got %+v, want one failed, one onboarded, and no row left that ended badly", tally)
		}
		if r := b.ledger.get(again); r.Stage != pipeline.Onboarded || r.CreateKey.Generation != 1 {
			t.Errorf("%+v", r)
		}
		b.checkKeys(t)
	})
}

// TestStop: on release, idle rows are given back at once; the row at work finishes its act and goes no further.
func TestRelease(t *testing.T) {
	arrived, answer := make(chan struct{}, 10), make(chan struct{})
	onBench(t, func(b *bench) {
		arrived, answer = make(chan struct{}, 10), make(chan struct{})
		b.options.Concurrency = 1
		b.partner.before = func(call) { arrived <- struct{}{}; <-answer }
	}, func(t *testing.T, b *bench) {
		b.take(b.row(0), b.row(1), b.row(2))
		<-arrived
		released := make(chan struct{})
		go func() { b.runner.Release(t.Context(), 0); close(released) }()
		synctest.Wait()
		select {
		case <-released:
			t.Fatal("released while a request was in flight")
		default:
		}
		close(answer)
		<-released
		if tally := b.runner.Tally(); tally.Open != 0 || tally.Dropped != 3 {
			t.Errorf("%+v", tally)
		}
		if r := b.ledger.get(b.row(0)); r.Stage != pipeline.Challenged {
			t.Errorf("the answer was not stored: %s", r.Stage)
		}
		if len(b.partner.calls) != 1 {
			t.Errorf("went on after the release: %+v", b.partner.calls)
		}
		b.partner.before = func(call) {}
		b.take(b.row(0), b.row(1), b.row(2)) // they come again
		b.await(3)
		if tally := b.runner.Tally(); tally.Onboarded != 3 {
			t.Errorf("%+v", tally)
		}
	})
}

// TestRecordedSignatureIsResent: signatures of an HSM differ each time; the one that was recorded goes out again, after
// a silence under the same key, after an answer that settles nothing under the next.
func TestRecordedSignatureIsResent(t *testing.T) {
	onBench(t, func(b *bench) {
		b.partner.faults = scripted(map[string][]*fault{"submit": {{err: errDropped}, {err: status(500, client.ServerError)}, {err: errDropped}}})
	}, func(t *testing.T, b *bench) {
		b.take(b.row(0))
		b.await(1)
		submits := b.partner.of("submit")
		if len(submits) != 4 {
			t.Fatalf("got %d submissions, want 4", len(submits))
		}
		for i, s := range submits {
			if s.body != submits[0].body {
				t.Errorf("submission %d: got body %s, want %s", i+1, s.body, submits[0].body)
			}
			if same, want := s.key == submits[0].key, i < 2; same != want {
				t.Errorf("submission %d: got the first key: %v, want %v", i+1, same, want)
			}
		}
		if tally := b.runner.Tally(); tally.Signatures != 1 || tally.Retried != 2 {
			t.Errorf("got %d signatures and %d repetitions, want 1 and 2", tally.Signatures, tally.Retried)
		}
		if got := len(b.partner.of("read")); got != 3 {
			t.Errorf("got %d reads of the customer, want one after each of the 3 failures", got)
		}
	})
}

// TestBegunRowsGoFirst: with one worker and many rows waiting, each row that has begun is finished before the next one
// begins: its challenge must not run out in the queue.
func TestBegunRowsGoFirst(t *testing.T) {
	onBench(t, func(b *bench) { b.options.Concurrency, b.options.SignerConcurrency = 1, 1 }, func(t *testing.T, b *bench) {
		var rows []pipeline.Row
		for i := range 10 {
			rows = append(rows, b.row(i))
		}
		b.take(rows...)
		b.await(10)
		open, most := 0, 0
		for _, c := range b.partner.calls {
			switch c.op {
			case "create":
				open++
			case "submit":
				open--
			}
			most = max(most, open)
		}
		if most > 3 { // one at the signer, one waiting for it, one being created meanwhile
			t.Errorf("%d rows were under way at once", most)
		}
	})
}
