package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/google/uuid"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

// moody is a signer whose answers a test decides; without a mood it signs.
type moody struct {
	signer.Backend
	mu   sync.Mutex
	sign func(n int) error
	has  func(n int) error
	n, h int
	slow time.Duration // how long a signature takes; many at once
}

func (m *moody) SignMessage(ctx context.Context, a common.Address, message []byte) (signer.Signature, error) {
	time.Sleep(m.slow)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	if m.sign != nil {
		if err := m.sign(m.n); err != nil {
			return signer.Signature{}, err
		}
	}
	return m.Backend.SignMessage(ctx, a, message)
}

func (m *moody) HasKey(ctx context.Context, a common.Address) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.h++
	if m.has != nil {
		if err := m.has(m.h); err != nil {
			return false, err
		}
	}
	return m.Backend.HasKey(ctx, a)
}

func withMood(m *moody) func(*bench) {
	return func(b *bench) {
		m.Backend = signertest.NewMemory(b.keys...)
		b.worker.Signer = signer.Verified(m)
	}
}

// throttled is what a backend says that asks to be left alone.
type throttled struct{ after time.Duration }

func (e throttled) Error() string                    { return "slow down" }
func (e throttled) Throttled() (time.Duration, bool) { return e.after, true }

// TestUnsoundKeyIsItsRowsFailure: what the signer says of one key before anything is sent ends that row and no other.
func TestUnsoundKeyIsItsRowsFailure(t *testing.T) {
	for class, cause := range map[string]error{
		"signer-mismatch": signer.ErrMismatch, "declined": signer.ErrDeclined, "no-key": signer.ErrNoKey,
	} {
		t.Run(class, func(t *testing.T) {
			m := &moody{has: func(n int) error {
				if n == 1 {
					return fmt.Errorf("this key: %w", cause)
				}
				return nil
			}}
			onBench(t, func(b *bench) { withMood(m)(b); b.options.Concurrency = 1 }, func(t *testing.T, b *bench) {
				b.take(b.row(0), b.row(1))
				b.await(2)
				want := fmt.Sprintf("this key: %v", cause)
				if r := b.ledger.get(b.row(0)); r.Stage != pipeline.Failed || r.Class != class || r.Reason != want {
					t.Errorf("got %s, class %q, reason %q; want failed, %q, %q", r.Stage, r.Class, r.Reason, class, want)
				}
				if r := b.ledger.get(b.row(1)); r.Stage != pipeline.Onboarded {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

// TestSignerAway: a signer that is away for a while holds rows up; one that stays away halts the run and fails none.
func TestSignerAway(t *testing.T) {
	away := errors.New("connection refused")
	t.Run("for a while", func(t *testing.T) {
		m := &moody{sign: func(n int) error {
			if n <= 20 {
				return away
			}
			return nil
		}}
		onBench(t, withMood(m), func(t *testing.T, b *bench) {
			b.take(b.row(0), b.row(1), b.row(2))
			b.await(3)
			if tally := b.runner.Tally(); tally.Onboarded != 3 {
				t.Errorf("%+v", tally)
			}
		})
	})
	t.Run("for good", func(t *testing.T) {
		m := &moody{sign: func(int) error { return away }}
		onBench(t, withMood(m), func(t *testing.T, b *bench) {
			b.take(b.row(0), b.row(1), b.row(2))
			var halt *onboard.HaltError
			if err := <-b.halted; !errors.As(err, &halt) || halt.Class != "signer" {
				t.Errorf("%v", err)
			}
			b.stop()
			for _, r := range b.ledger.records {
				if r.Stage.Terminal() {
					t.Errorf("%s: %s (%s)", r.Where(), r.Stage, r.Class)
				}
			}
		})
	})
}

// TestSignerThrottles: a signer that asks to be left alone is, and the row pays nothing for it.
func TestSignerThrottles(t *testing.T) {
	m := &moody{sign: func(n int) error {
		if n <= 30 {
			return throttled{after: 2 * time.Second}
		}
		return nil
	}}
	onBench(t, withMood(m), func(t *testing.T, b *bench) {
		begun := time.Now()
		b.take(b.row(0))
		b.await(1)
		if r := b.ledger.get(b.row(0)); r.Stage != pipeline.Onboarded {
			t.Errorf("%+v", r)
		}
		if took := time.Since(begun); took < time.Minute {
			t.Errorf("30 times 2 seconds were asked for, and it took %v", took)
		}
	})
}

// custodian is a signer that a person must approve; it counts what it is asked.
type custodian struct {
	signer.Backend
	mu        sync.Mutex
	requests  map[string]int
	approved  bool
	cancelled []string
	polls     int
}

func newCustodian(b *bench) *custodian {
	return &custodian{Backend: signertest.NewMemory(b.keys...), requests: map[string]int{}}
}

func (c *custodian) Request(_ context.Context, id string, _ common.Address, _ []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests[id]++
	return nil
}

func (c *custodian) Poll(ctx context.Context, id string, account common.Address, message []byte) (signer.Signature, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.polls++
	switch {
	case c.requests[id] == 0:
		return signer.Signature{}, signer.ErrUnknownRequest
	case !c.approved:
		return signer.Signature{}, signer.ErrPending
	}
	return c.Backend.SignMessage(ctx, account, message)
}

func (c *custodian) Cancel(_ context.Context, id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancelled = append(c.cancelled, id)
	return nil
}

func (c *custodian) approve() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.approved = true
}

func (c *custodian) once(t *testing.T, want int) {
	t.Helper()
	if len(c.requests) != want {
		t.Errorf("%d transactions, want %d", len(c.requests), want)
	}
	for id, n := range c.requests {
		if n != 1 {
			t.Errorf("transaction %s was asked for %d times", id, n)
		}
	}
}

// TestCustodianApprovesLate: rows wait without occupying a worker, are polled ever more seldom, and end when the
// custodian has decided.
func TestCustodianApprovesLate(t *testing.T) {
	var c *custodian
	onBench(t, func(b *bench) {
		b.options.Concurrency, b.options.SignerConcurrency = 1, 1
		c = newCustodian(b)
		b.worker.Signer = signer.Verified(c).(onboard.Signer)
	}, func(t *testing.T, b *bench) {
		b.take(b.row(0), b.row(1), b.row(2))
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if tally := b.runner.Tally(); tally.Open != 3 {
			t.Errorf("%+v", tally)
		}
		if c.polls > 3*40 {
			t.Errorf("%d polls in 20 minutes", c.polls)
		}
		for i := range 3 {
			if r := b.ledger.get(b.row(i)); r.Stage != pipeline.Signing || r.ExternalTxID == "" || r.Attempts != 0 {
				t.Errorf("%+v", r)
			}
		}
		c.approve()
		b.await(3)
		c.once(t, 3)
		if tally := b.runner.Tally(); tally.Onboarded != 3 || tally.Signatures != 3 {
			t.Errorf("%+v", tally)
		}
	})
}

// TestCustodianAfterRestart: another process polls what the first one asked for, and never asks again.
func TestCustodianAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book, partner := &memoryLedger{restarted: map[string]bool{}}, newMemoryPartner(time.Now)
		var c *custodian
		first := newBenchFor(t, book, partner, func(b *bench) {
			c = newCustodian(b)
			b.worker.Signer = signer.Verified(c).(onboard.Signer)
		})
		first.take(first.row(0))
		time.Sleep(time.Minute)
		synctest.Wait()
		first.stop()
		second := newBenchFor(t, book, partner, func(b *bench) { b.worker.Signer = signer.Verified(c).(onboard.Signer) })
		defer second.stop()
		c.approve()
		second.take(second.row(0))
		second.await(1)
		c.once(t, 1)
	})
}

// TestCustodianOutlivesChallenge: when the challenge runs out, the stale request is cancelled and a new challenge
// signed.
func TestCustodianOutlivesChallenge(t *testing.T) {
	var c *custodian
	onBench(t, func(b *bench) {
		c = newCustodian(b)
		b.worker.Signer = signer.Verified(c).(onboard.Signer)
	}, func(t *testing.T, b *bench) {
		b.take(b.row(0))
		time.Sleep(70 * time.Minute)
		synctest.Wait()
		if len(c.cancelled) != 1 || len(c.requests) != 2 {
			t.Errorf("cancelled %v, requests %v", c.cancelled, c.requests)
		}
		c.approve()
		b.await(1)
		c.once(t, 2)
		if r := b.ledger.get(b.row(0)); r.Stage != pipeline.Onboarded {
			t.Errorf("%+v", r)
		}
	})
}

// TestSignerWait: a drain leaves rows to the custodian when it has waited long enough, and names them.
func TestSignerWait(t *testing.T) {
	var c *custodian
	abandoned := make(chan pipeline.Message, 10)
	onBench(t, func(b *bench) {
		abandoned = make(chan pipeline.Message, 10)
		c = newCustodian(b)
		b.worker.Signer = signer.Verified(c).(onboard.Signer)
		b.options.SignerWait = 10 * time.Minute
		b.options.Defer = func(m pipeline.Message) { abandoned <- m }
	}, func(t *testing.T, b *bench) {
		begun := time.Now()
		b.take(b.row(0))
		<-abandoned
		if waited := time.Since(begun); waited < 10*time.Minute || waited > 12*time.Minute {
			t.Errorf("abandoned after %v", waited)
		}
		synctest.Wait()
		tally, waiting := b.runner.Tally(), b.runner.Waiting()
		if tally.Waiting != 1 || tally.Open != 0 || !tally.Bad() || len(waiting) != 1 || waiting[0].ExternalTxID == "" {
			t.Errorf("%+v, %+v", tally, waiting)
		}
	})
}

// verdicts is a custodian that decided while nobody looked.
type verdicts struct {
	*custodian
	verdict error
}

func (v *verdicts) Poll(ctx context.Context, id string, a common.Address, message []byte) (signer.Signature, error) {
	v.mu.Lock()
	verdict := v.verdict
	v.mu.Unlock()
	if verdict != nil {
		return signer.Signature{}, verdict
	}
	return v.custodian.Poll(ctx, id, a, message)
}

func (v *verdicts) set(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.verdict = err
}

// waitingRow is a row that an earlier run left with the custodian, with a challenge of that age.
func waitingRow(b *bench, age time.Duration) pipeline.Record {
	c := b.row(0)
	b.partner.customers = nil
	customer, err := b.partner.CreateCustomer(b.t.Context(), uuid.New(), []byte(
		fmt.Sprintf(`{"chainId":%q,"externalId":%q}`, c.Account, c.ExternalID)))
	if err != nil {
		b.t.Fatal(err)
	}
	text := b.partner.challenge[customer.ID]
	return pipeline.Record{
		Row: c, ID: 1, Version: 1, Stage: pipeline.Signing, CustomerID: customer.ID,
		Challenge: text, ChallengeAt: time.Now().Add(-age), ExternalTxID: "purser-test",
	}
}

// TestRefusalOutlivesTheChallenge: a person's no counts also when it is read after the challenge ran out.
func TestRefusalOutlivesTheChallenge(t *testing.T) {
	onBench(t, func(b *bench) {
		b.worker.Signer = signer.Verified(&verdicts{newCustodian(b), signer.ErrDeclined}).(onboard.Signer)
	}, func(t *testing.T, b *bench) {
		b.ledger.records = []pipeline.Record{waitingRow(b, 2*time.Hour)}
		b.take(b.row(0))
		b.await(1)
		if r := b.ledger.get(b.row(0)); r.Stage != pipeline.Failed || r.Class != "declined" {
			t.Errorf("%+v", r)
		}
	})
}

// TestSignerWasAnotherOne: a row that another kind of signer left without a transaction begins with a new challenge.
func TestSignerWasAnotherOne(t *testing.T) {
	var c *custodian
	onBench(t, func(b *bench) {
		c = newCustodian(b)
		c.approve()
		b.worker.Signer = signer.Verified(c).(onboard.Signer)
	}, func(t *testing.T, b *bench) {
		r := waitingRow(b, time.Minute)
		r.ExternalTxID = ""
		b.ledger.records = []pipeline.Record{r}
		b.take(b.row(0))
		b.await(1)
		if r := b.ledger.get(b.row(0)); r.Stage != pipeline.Onboarded {
			t.Errorf("%+v", r)
		}
		c.once(t, 1)
	})
}

// TestCustodianGlitches: an answer that fails now and then costs a waiting row nothing, however often it happens.
func TestCustodianGlitches(t *testing.T) {
	var v *verdicts
	onBench(t, func(b *bench) {
		v = &verdicts{custodian: newCustodian(b)}
		b.worker.Limits.MaxAttempts = 3
		b.worker.Signer = signer.Verified(v).(onboard.Signer)
	}, func(t *testing.T, b *bench) {
		b.take(b.row(0))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		v.set(errors.New("500"))
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		v.set(nil)
		v.approve()
		b.await(1)
		if r := b.ledger.get(b.row(0)); r.Stage != pipeline.Onboarded {
			t.Errorf("%+v", r)
		}
	})
}

// onFailingPolls runs a row whose custodian was asked and then answers polls with 500 for as long as the test wants.
func onFailingPolls(t *testing.T, alter func(*bench), test func(*testing.T, *bench, *verdicts)) {
	t.Helper()
	var v *verdicts
	onBench(t, func(b *bench) {
		v = &verdicts{custodian: newCustodian(b)}
		b.worker.Signer = signer.Verified(v).(onboard.Signer)
		b.worker.PollLimit = 30 * time.Minute
		alter(b)
	}, func(t *testing.T, b *bench) {
		b.take(b.row(0))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		v.set(errors.New("500\nback end"))
		test(t, b, v)
	})
}

// TestFailingPollsAreTold: of the first one at once, then once a minute with the count; an answer begins a new count.
func TestFailingPollsAreTold(t *testing.T) {
	var told []onboard.PollTrouble
	var at []time.Time
	onFailingPolls(t, func(b *bench) {
		told, at = nil, nil
		b.worker.OnPollTrouble = func(p onboard.PollTrouble) { told, at = append(told, p), append(at, time.Now()) }
	}, func(t *testing.T, b *bench, v *verdicts) {
		begun := time.Now()
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if len(told) < 8 || len(told) > 16 {
			t.Fatalf("told %d times in 15 minutes, want 8 to 16", len(told))
		}
		if told[0].Failed != 1 || told[0].OfAllRows != 1 || at[0].Sub(begun) > 2*b.worker.Limits.RetryMax {
			t.Errorf("first %+v after %v, want the first failed poll", told[0], at[0].Sub(begun))
		}
		failed := 0
		for i, p := range told {
			failed += p.OfAllRows
			if p.Failed != failed || p.Row != b.row(0) || p.ExternalTxID == "" || p.Cause == nil {
				t.Errorf("%d: got %+v, want %d failed polls of row 0", i, p, failed)
			}
			if i > 0 && at[i].Sub(at[i-1]) < time.Minute {
				t.Errorf("%d: told after %v, want a minute", i, at[i].Sub(at[i-1]))
			}
		}
		v.set(nil) // not decided yet
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		n := len(told)
		v.set(errors.New("502"))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if len(told) == n || told[n].Failed != 1 {
			t.Errorf("got %+v, want a new count after an answer", told[n:])
		}
		v.set(nil)
		v.approve()
		b.await(1)
	})
}

// TestFailingPollsEnd: after PollLimit the signer's own check says whether it is the run's trouble or the row's.
func TestFailingPollsEnd(t *testing.T) {
	t.Run("the signer is away", func(t *testing.T) {
		onFailingPolls(t, func(b *bench) {
			b.worker.SignerCheck = func(context.Context) error { return errors.New("no route to host") }
		}, func(t *testing.T, b *bench, v *verdicts) {
			begun := time.Now()
			var halt *onboard.HaltError
			if err := <-b.halted; !errors.As(err, &halt) || halt.Class != "signer" || halt.SetUp() {
				t.Errorf("got %v, want a halt of the class signer", err)
			}
			if took := time.Since(begun); took < 29*time.Minute || took > 35*time.Minute {
				t.Errorf("halted after %v, want about 30m", took)
			}
			b.stop()
			if r := b.ledger.get(b.row(0)); r.Stage != pipeline.Signing || len(v.cancelled) > 0 {
				t.Errorf("stage %s, cancelled %v; want signing and nothing cancelled: the next run polls", r.Stage, v.cancelled)
			}
		})
	})
	t.Run("the signer is well", func(t *testing.T) {
		onFailingPolls(t, func(b *bench) {
			b.worker.SignerCheck = func(context.Context) error { return nil }
		}, func(t *testing.T, b *bench, v *verdicts) {
			id := b.ledger.get(b.row(0)).ExternalTxID
			b.await(1)
			r := b.ledger.get(b.row(0))
			if r.Stage != pipeline.Failed || r.Class != "signer-error" || len(v.cancelled) != 1 || v.cancelled[0] != id {
				t.Errorf("%s, %q, cancelled %v; want failed, signer-error, %s", r.Stage, r.Class, v.cancelled, id)
			}
			for _, want := range []string{"polls of the custodian's transaction " + id + " failed in 30m", `500\nback end`} {
				if !strings.Contains(r.Reason, want) {
					t.Errorf("reason %q, want %q in it", r.Reason, want)
				}
			}
		})
	})
	t.Run("answers in between", func(t *testing.T) {
		onFailingPolls(t, func(b *bench) {
			b.worker.SignerCheck = func(context.Context) error { return errors.New("must not be asked") }
		}, func(t *testing.T, b *bench, v *verdicts) {
			time.Sleep(20 * time.Minute)
			v.set(nil)
			time.Sleep(5 * time.Minute)
			v.set(errors.New("500"))
			time.Sleep(20 * time.Minute)
			v.set(nil)
			v.approve()
			b.await(1)
			if r := b.ledger.get(b.row(0)); r.Stage != pipeline.Onboarded {
				t.Errorf("%s (%s), want onboarded", r.Stage, r.Reason)
			}
		})
	})
}

// TestFailingPollsOfADrain: the row is left to the next run when --signer-wait is over, with the reason.
func TestFailingPollsOfADrain(t *testing.T) {
	abandoned := make(chan pipeline.Message, 10)
	onFailingPolls(t, func(b *bench) {
		abandoned = make(chan pipeline.Message, 10)
		b.worker.PollLimit, b.options.SignerWait = 0, 30*time.Minute
		b.options.Defer = func(m pipeline.Message) { abandoned <- m }
	}, func(t *testing.T, b *bench, _ *verdicts) {
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		_, doing, ok := b.runner.Holding(0, b.offset)
		if !ok || !strings.Contains(doing, "polls failed: 500\\nback end") {
			t.Errorf("the row is said to be %q (found: %v), want its failing polls", doing, ok)
		}
		<-abandoned
		synctest.Wait()
		waiting := b.runner.Waiting()
		if len(waiting) != 1 || waiting[0].Class != string(onboard.SignerFailed) || waiting[0].Reason != `500\nback end` {
			t.Errorf("waiting %+v, want the row with its last failure", waiting)
		}
	})
}

// TestFirstQuestionFails: also a custodian that has not answered yet is told of, while the row's tries last.
func TestFirstQuestionFails(t *testing.T) {
	var told []onboard.PollTrouble
	onBench(t, func(b *bench) {
		told = nil
		b.worker.Signer = signer.Verified(&verdicts{newCustodian(b), errors.New("500")}).(onboard.Signer)
		b.worker.OnPollTrouble = func(p onboard.PollTrouble) { told = append(told, p) }
	}, func(t *testing.T, b *bench) {
		b.take(b.row(0))
		var halt *onboard.HaltError
		if err := <-b.halted; !errors.As(err, &halt) || halt.Class != "signer" {
			t.Errorf("got %v, want a halt of the class signer", err)
		}
		b.stop()
		if len(told) == 0 || told[0].Failed != 1 {
			t.Errorf("told %+v, want the first failure", told)
		}
	})
}
