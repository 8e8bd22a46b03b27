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

// custodian is a signer whose requests a person must approve. It counts requests and polls.
type custodian struct {
	signer.Backend
	mu        sync.Mutex
	requests  map[string]int
	approved  bool
	cancelled []string
	polls     int
}

func newCustodian(h *harness) *custodian {
	return &custodian{Backend: signertest.NewMemory(h.keys...), requests: map[string]int{}}
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

// once fails the test unless there were want transactions, each requested once.
func (c *custodian) once(t *testing.T, want int) {
	t.Helper()
	if len(c.requests) != want {
		t.Errorf("got %d transactions, want %d", len(c.requests), want)
	}
	for id, n := range c.requests {
		if n != 1 {
			t.Errorf("transaction %s: got %d requests, want 1", id, n)
		}
	}
}

// TestCustodianApprovesLate: rows wait without occupying a worker, are polled at growing intervals, and end when the
// custodian has decided.
func TestCustodianApprovesLate(t *testing.T) {
	var c *custodian
	withHarness(t, func(h *harness) {
		h.options.Concurrency, h.options.SignerConcurrency = 1, 1
		c = newCustodian(h)
		h.workerOptions.Signer = signer.Verified(c).(onboard.Signer)
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0), h.row(1), h.row(2))
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if tally := h.dispatcher.Tally(); tally.Open != 3 {
			t.Errorf("got %+v, want 3 open", tally)
		}
		if c.polls > 3*40 {
			t.Errorf("got %d polls in 20 minutes, want at most %d", c.polls, 3*40)
		}
		for i := range 3 {
			if r := h.ledger.get(h.row(i)); r.Stage != pipeline.Signing || r.ExternalTxID == "" || r.Attempts != 0 {
				t.Errorf("got stage %s, transaction %q, %d attempts; want signing, a transaction, 0",
					r.Stage, r.ExternalTxID, r.Attempts)
			}
		}
		c.approve()
		h.await(3)
		c.once(t, 3)
		if tally := h.dispatcher.Tally(); tally.Onboarded != 3 || tally.Signatures != 3 {
			t.Errorf("got %+v, want 3 onboarded, 3 signatures", tally)
		}
	})
}

// TestCustodianAfterRestart: the next process polls the transaction that the first one requested, and requests no
// other.
func TestCustodianAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger, partner := &memoryLedger{restarted: map[string]bool{}}, newMemoryPartner(time.Now)
		var c *custodian
		first := newHarnessFor(t, ledger, partner, func(h *harness) {
			c = newCustodian(h)
			h.workerOptions.Signer = signer.Verified(c).(onboard.Signer)
		})
		first.take(first.row(0))
		time.Sleep(time.Minute)
		synctest.Wait()
		first.stop()
		second := newHarnessFor(t, ledger, partner, func(h *harness) {
			h.workerOptions.Signer = signer.Verified(c).(onboard.Signer)
		})
		defer second.stop()
		c.approve()
		second.take(second.row(0))
		second.await(1)
		c.once(t, 1)
	})
}

// TestCustodianOutlivesChallenge: when the challenge expires, its request is cancelled and a new challenge is signed.
func TestCustodianOutlivesChallenge(t *testing.T) {
	var c *custodian
	withHarness(t, func(h *harness) {
		c = newCustodian(h)
		h.workerOptions.Signer = signer.Verified(c).(onboard.Signer)
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0))
		time.Sleep(70 * time.Minute)
		synctest.Wait()
		if len(c.cancelled) != 1 || len(c.requests) != 2 {
			t.Errorf("got cancelled %v, requests %v; want 1 cancelled of 2 requests", c.cancelled, c.requests)
		}
		c.approve()
		h.await(1)
		c.once(t, 2)
		h.wantStage(h.row(0), pipeline.Onboarded, "")
	})
}

// TestSignerWait: a drain defers rows that the custodian has not decided within SignerWait, and lists them.
func TestSignerWait(t *testing.T) {
	var c *custodian
	deferred := make(chan pipeline.Message, 10)
	withHarness(t, func(h *harness) {
		deferred = make(chan pipeline.Message, 10)
		c = newCustodian(h)
		h.workerOptions.Signer = signer.Verified(c).(onboard.Signer)
		h.options.SignerWait = 10 * time.Minute
		h.options.Defer = func(m pipeline.Message) { deferred <- m }
	}, func(t *testing.T, h *harness) {
		start := time.Now()
		h.take(h.row(0))
		<-deferred
		if waited := time.Since(start); waited < 10*time.Minute || waited > 12*time.Minute {
			t.Errorf("got the message deferred after %v, want 10m to 12m", waited)
		}
		synctest.Wait()
		tally, waiting := h.dispatcher.Tally(), h.dispatcher.Waiting()
		if tally.Waiting != 1 || tally.Open != 0 || !tally.Bad() || len(waiting) != 1 || waiting[0].ExternalTxID == "" {
			t.Errorf("got %+v, waiting %+v; want 0 open, 1 waiting with its transaction", tally, waiting)
		}
	})
}

// decidedCustodian is a custodian that answers each poll with decision, unless that is nil.
type decidedCustodian struct {
	*custodian
	decision error
}

func (v *decidedCustodian) Poll(ctx context.Context, id string, a common.Address, message []byte) (signer.Signature, error) {
	v.mu.Lock()
	decision := v.decision
	v.mu.Unlock()
	if decision != nil {
		return signer.Signature{}, decision
	}
	return v.custodian.Poll(ctx, id, a, message)
}

func (v *decidedCustodian) set(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.decision = err
}

// waitingRow returns a row that an earlier run left waiting for the custodian. age is its challenge's.
func waitingRow(h *harness, age time.Duration) pipeline.Record {
	c := h.row(0)
	h.partner.customers = nil
	customer, err := h.partner.CreateCustomer(h.t.Context(), uuid.New(),
		fmt.Appendf(nil, `{"chainId":%q,"externalId":%q}`, c.Account, c.ExternalID))
	if err != nil {
		h.t.Fatal(err)
	}
	text := h.partner.challenge[customer.ID]
	return pipeline.Record{
		Row: c, ID: 1, Version: 1, Stage: pipeline.Signing, CustomerID: customer.ID,
		Challenge: text, ChallengeAt: time.Now().Add(-age), ExternalTxID: "purser-test",
	}
}

// TestRefusalOutlivesTheChallenge: a declined request fails the row also when the challenge has expired meanwhile.
func TestRefusalOutlivesTheChallenge(t *testing.T) {
	withHarness(t, func(h *harness) {
		h.workerOptions.Signer = signer.Verified(&decidedCustodian{newCustodian(h), signer.ErrDeclined}).(onboard.Signer)
	}, func(t *testing.T, h *harness) {
		h.ledger.records = []pipeline.Record{waitingRow(h, 2*time.Hour)}
		h.take(h.row(0))
		h.await(1)
		h.wantStage(h.row(0), pipeline.Failed, "declined")
	})
}

// TestSignerWasAnotherOne: a row that another kind of signer left at signing, without a transaction, gets a new
// challenge.
func TestSignerWasAnotherOne(t *testing.T) {
	var c *custodian
	withHarness(t, func(h *harness) {
		c = newCustodian(h)
		c.approve()
		h.workerOptions.Signer = signer.Verified(c).(onboard.Signer)
	}, func(t *testing.T, h *harness) {
		r := waitingRow(h, time.Minute)
		r.ExternalTxID = ""
		h.ledger.records = []pipeline.Record{r}
		h.take(h.row(0))
		h.await(1)
		h.wantStage(h.row(0), pipeline.Onboarded, "")
		c.once(t, 1)
	})
}

// TestCustodianGlitches: failed polls cost a waiting row no attempts, however many there are.
func TestCustodianGlitches(t *testing.T) {
	var v *decidedCustodian
	withHarness(t, func(h *harness) {
		v = &decidedCustodian{custodian: newCustodian(h)}
		h.workerOptions.Limits.MaxAttempts = 3
		h.workerOptions.Signer = signer.Verified(v).(onboard.Signer)
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		v.set(errors.New("500"))
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		v.set(nil)
		v.approve()
		h.await(1)
		h.wantStage(h.row(0), pipeline.Onboarded, "")
	})
}

// onFailingPolls runs a row whose custodian accepts the request and then answers polls with 500 until the test changes
// it.
func onFailingPolls(t *testing.T, alter func(*harness), test func(*testing.T, *harness, *decidedCustodian)) {
	t.Helper()
	var v *decidedCustodian
	withHarness(t, func(h *harness) {
		v = &decidedCustodian{custodian: newCustodian(h)}
		h.workerOptions.Signer = signer.Verified(v).(onboard.Signer)
		h.workerOptions.PollLimit = 30 * time.Minute
		alter(h)
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		v.set(errors.New("500\nback end"))
		test(t, h, v)
	})
}

// TestFailingPollsAreReported: the first failed poll is reported at once, then their count once a minute. A successful
// poll begins a new count.
func TestFailingPollsAreReported(t *testing.T) {
	var reported []onboard.PollTrouble
	var at []time.Time
	onFailingPolls(t, func(h *harness) {
		reported, at = nil, nil
		h.workerOptions.OnPollTrouble = func(p onboard.PollTrouble) {
			reported, at = append(reported, p), append(at, time.Now())
		}
	}, func(t *testing.T, h *harness, v *decidedCustodian) {
		start := time.Now()
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if len(reported) < 8 || len(reported) > 16 {
			t.Fatalf("got %d reports in 15 minutes, want 8 to 16", len(reported))
		}
		if reported[0].Failed != 1 || reported[0].OfAllRows != 1 || at[0].Sub(start) > 2*h.workerOptions.Limits.RetryMax {
			t.Errorf("got report %+v after %v, want the first failed poll at once", reported[0], at[0].Sub(start))
		}
		failed := 0
		for i, p := range reported {
			failed += p.OfAllRows
			if p.Failed != failed || p.Row != h.row(0) || p.ExternalTxID == "" || p.Cause == nil {
				t.Errorf("report %d: got %+v, want %d failed polls of row 0", i, p, failed)
			}
			if i > 0 && at[i].Sub(at[i-1]) < time.Minute {
				t.Errorf("report %d: got it %v after the last, want at least a minute", i, at[i].Sub(at[i-1]))
			}
		}
		v.set(nil) // pending
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		n := len(reported)
		v.set(errors.New("502"))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if len(reported) == n || reported[n].Failed != 1 {
			t.Errorf("got reports %+v, want a count from 1 after an answer", reported[n:])
		}
		v.set(nil)
		v.approve()
		h.await(1)
	})
}

// TestFailingPollsEnd: after PollLimit, SignerCheck decides whether the run halts or the row fails.
func TestFailingPollsEnd(t *testing.T) {
	t.Run("signer check fails", func(t *testing.T) {
		onFailingPolls(t, func(h *harness) {
			h.workerOptions.SignerCheck = func(context.Context) error { return errors.New("no route to host") }
		}, func(t *testing.T, h *harness, v *decidedCustodian) {
			start := time.Now()
			if halt := h.awaitHalt("signer"); halt.SetUp() {
				t.Errorf("got halt %v of the set-up, want one of the signer", &halt)
			}
			if took := time.Since(start); took < 29*time.Minute || took > 35*time.Minute {
				t.Errorf("got a halt after %v, want 29m to 35m", took)
			}
			h.stop()
			if r := h.ledger.get(h.row(0)); r.Stage != pipeline.Signing || len(v.cancelled) > 0 {
				t.Errorf("got stage %s, cancelled %v; want signing, none: the next run polls", r.Stage, v.cancelled)
			}
		})
	})
	t.Run("signer check passes", func(t *testing.T) {
		onFailingPolls(t, func(h *harness) {
			h.workerOptions.SignerCheck = func(context.Context) error { return nil }
		}, func(t *testing.T, h *harness, v *decidedCustodian) {
			id := h.ledger.get(h.row(0)).ExternalTxID
			h.await(1)
			r := h.ledger.get(h.row(0))
			if r.Stage != pipeline.Failed || r.Class != "signer-error" || len(v.cancelled) != 1 || v.cancelled[0] != id {
				t.Errorf("got %s, %q, cancelled %v; want failed, signer-error, %s", r.Stage, r.Class, v.cancelled, id)
			}
			for _, want := range []string{"polls of the custodian's transaction " + id + " failed in 30m", `500\nback end`} {
				if !strings.Contains(r.Reason, want) {
					t.Errorf("got reason %q, want %q in it", r.Reason, want)
				}
			}
		})
	})
	t.Run("polls succeed in between", func(t *testing.T) {
		onFailingPolls(t, func(h *harness) {
			h.workerOptions.SignerCheck = func(context.Context) error { return errors.New("SignerCheck was called") }
		}, func(t *testing.T, h *harness, v *decidedCustodian) {
			time.Sleep(20 * time.Minute)
			v.set(nil)
			time.Sleep(5 * time.Minute)
			v.set(errors.New("500"))
			time.Sleep(20 * time.Minute)
			v.set(nil)
			v.approve()
			h.await(1)
			h.wantStage(h.row(0), pipeline.Onboarded, "")
		})
	})
}

// TestFailingPollsOfADrain: after SignerWait the row is deferred to the next run, with the reason.
func TestFailingPollsOfADrain(t *testing.T) {
	deferred := make(chan pipeline.Message, 10)
	onFailingPolls(t, func(h *harness) {
		deferred = make(chan pipeline.Message, 10)
		h.workerOptions.PollLimit, h.options.SignerWait = 0, 30*time.Minute
		h.options.Defer = func(m pipeline.Message) { deferred <- m }
	}, func(t *testing.T, h *harness, _ *decidedCustodian) {
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		_, doing, ok := h.dispatcher.Holding(0, h.offset)
		if !ok || !strings.Contains(doing, "polls failed: 500\\nback end") {
			t.Errorf("got %q (found: %v), want the failing polls", doing, ok)
		}
		<-deferred
		synctest.Wait()
		waiting := h.dispatcher.Waiting()
		if len(waiting) != 1 || waiting[0].Reason != `500\nback end` {
			t.Errorf("got waiting rows %+v, want 1 with its last failure", waiting)
		}
	})
}

// TestFirstPollsFail: the failed polls of a custodian that has never answered are reported before the run halts.
func TestFirstPollsFail(t *testing.T) {
	var reported []onboard.PollTrouble
	withHarness(t, func(h *harness) {
		reported = nil
		h.workerOptions.Signer = signer.Verified(&decidedCustodian{newCustodian(h), errors.New("500")}).(onboard.Signer)
		h.workerOptions.OnPollTrouble = func(p onboard.PollTrouble) { reported = append(reported, p) }
	}, func(t *testing.T, h *harness) {
		h.take(h.row(0))
		h.awaitHalt("signer")
		h.stop()
		if len(reported) == 0 || reported[0].Failed != 1 {
			t.Errorf("got reports %+v, want the first failed poll", reported)
		}
	})
}
