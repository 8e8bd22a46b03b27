package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/google/uuid"

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
}

func (m *moody) SignMessage(ctx context.Context, a common.Address, message []byte) (signer.Signature, error) {
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
			onBench(t, func(b *bench) { withMood(m)(b); b.runner.Concurrency = 1 }, func(t *testing.T, b *bench) {
				b.take(b.row(0), b.row(1))
				b.await(2)
				if r := b.ledger.get(b.row(0)); r.Stage != Failed || r.Class != class {
					t.Errorf("%+v", r)
				}
				if r := b.ledger.get(b.row(1)); r.Stage != Onboarded {
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
			var halt *HaltError
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
		if r := b.ledger.get(b.row(0)); r.Stage != Onboarded {
			t.Errorf("%+v", r)
		}
		if took := time.Since(begun); took < time.Minute {
			t.Errorf("30 times 2 seconds were asked for, and it took %v", took)
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
func waitingRow(b *bench, age time.Duration) Record {
	c := b.row(0)
	b.partner.customers = nil
	customer, err := b.partner.CreateCustomer(b.t.Context(), uuid.New(), []byte(
		fmt.Sprintf(`{"chainId":%q,"externalId":%q}`, c.Account, c.ExternalID)))
	if err != nil {
		b.t.Fatal(err)
	}
	text := b.partner.challenge[customer.ID]
	return Record{
		Row: c, ID: 1, Version: 1, Stage: Signing, CustomerID: customer.ID,
		Challenge: text, ChallengeAt: time.Now().Add(-age), ExternalTxID: externalTxID(c.Account, text),
	}
}

// TestRefusalOutlivesTheChallenge: a person's no counts also when it is read after the challenge ran out.
func TestRefusalOutlivesTheChallenge(t *testing.T) {
	onBench(t, func(b *bench) {
		b.worker.Signer = signer.Verified(&verdicts{newCustodian(b), signer.ErrDeclined}).(Signer)
	}, func(t *testing.T, b *bench) {
		b.ledger.records = []Record{waitingRow(b, 2*time.Hour)}
		b.take(b.row(0))
		b.await(1)
		if r := b.ledger.get(b.row(0)); r.Stage != Failed || r.Class != "declined" {
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
		b.worker.Signer = signer.Verified(c).(Signer)
	}, func(t *testing.T, b *bench) {
		r := waitingRow(b, time.Minute)
		r.ExternalTxID = ""
		b.ledger.records = []Record{r}
		b.take(b.row(0))
		b.await(1)
		if r := b.ledger.get(b.row(0)); r.Stage != Onboarded {
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
		b.worker.Signer = signer.Verified(v).(Signer)
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
		if r := b.ledger.get(b.row(0)); r.Stage != Onboarded {
			t.Errorf("%+v", r)
		}
	})
}
