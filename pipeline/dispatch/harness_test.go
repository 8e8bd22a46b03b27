package dispatch

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"sync"
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
	"github.com/purser-onboard/purser/siwe"
)

// harness is a Dispatcher with the fakes that it works with, for one test, inside a synctest bubble.
type harness struct {
	t             *testing.T
	options       Options
	workerOptions onboard.Options
	dispatcher    *Dispatcher // of the options above, as the test has altered them
	ledger        *memoryLedger
	partner       *memoryPartner
	keys          []*ecdsa.PrivateKey
	dead          *deadLetters
	halted        chan error            // receives the halt
	acked         chan pipeline.Message // receives each message that is acknowledged
	cancel        context.CancelFunc
	offset        int64 // of the latest message
}

func newHarness(t *testing.T, alter func(*harness)) *harness {
	h := newHarnessFor(t, &memoryLedger{restarted: map[string]bool{}}, newMemoryPartner(time.Now), alter)
	t.Cleanup(h.stop)
	return h
}

// newHarnessFor returns a harness over a ledger and a partner that earlier runs may have used. The caller stops it.
func newHarnessFor(t *testing.T, ledger *memoryLedger, partner *memoryPartner, alter func(*harness)) *harness {
	h := &harness{
		t: t, ledger: ledger, partner: partner,
		dead: &deadLetters{}, halted: make(chan error, 1), acked: make(chan pipeline.Message, 1000),
	}
	for i := range 20 {
		h.keys = append(h.keys, signertest.Key(uint64(i)))
	}
	h.workerOptions = onboard.Options{
		API: h.partner, Signer: signer.Verified(signertest.NewMemory(h.keys...)), Ledger: h.ledger,
		Keyring: pipeline.Keyring{APIHost: "partner.test", APIKeyID: "key"}, Limits: onboard.DefaultLimits(),
		Encoding: client.EncodingHex, ListPause: time.Second, Now: time.Now,
		Policy: func(a pipeline.Account) siwe.Policy {
			return siwe.Policy{Domain: "partner.test", ChainID: a.Chain, Address: a.Address,
				MaxAge: time.Hour, Skew: time.Minute, Now: time.Now}
		},
	}
	h.options = Options{
		DeadLetters: h.dead, DeadLetterTopic: "dead", Concurrency: 4,
		Logger: slog.New(slog.DiscardHandler), OnHalt: func(err error) { h.halted <- err },
	}
	h.options.Probe, h.options.OutageWait = h.partner.probe, 2*time.Minute
	if alter != nil {
		alter(h)
	}
	h.workerOptions.Probes = h.options.Probe != nil
	var err error
	if h.options.Worker, err = onboard.New(h.workerOptions); err != nil {
		t.Fatal(err)
	}
	if h.dispatcher, err = New(h.options); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	h.cancel = cancel
	h.dispatcher.Start(ctx)
	return h
}

// withHarness runs a test in a bubble with a clock of its own. alter changes the harness before its dispatcher starts.
func withHarness(t *testing.T, alter func(*harness), test func(*testing.T, *harness)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(t, newHarness(t, alter))
	})
}

func (h *harness) stop() {
	h.dispatcher.Close()
	h.cancel()
}

func (h *harness) row(i int) pipeline.Row {
	return pipeline.Row{
		Account:    pipeline.Account{Chain: 300, Address: signertest.Address(signertest.Key(uint64(i)))},
		ExternalID: fmt.Sprintf("customer-%d", i), ImportID: "import-1", File: "export.csv", Line: i + 2,
	}
}

// rows returns n rows from the first on.
func (h *harness) rows(first, n int) []pipeline.Row {
	var rows []pipeline.Row
	for i := range n {
		rows = append(rows, h.row(first+i))
	}
	return rows
}

func (h *harness) message(r pipeline.Row) pipeline.Message {
	h.offset++
	return pipeline.Message{
		Topic: "work", Offset: h.offset, Key: []byte(r.Account.String()), Value: pipeline.AppendMessage(nil, r),
	}
}

func (h *harness) take(rows ...pipeline.Row) {
	h.t.Helper()
	var batch []pipeline.Message
	for _, r := range rows {
		batch = append(batch, h.message(r))
	}
	if err := h.dispatcher.Take(h.t.Context(), batch, func(m pipeline.Message) { h.acked <- m }); err != nil {
		h.t.Fatal(err)
	}
}

// await waits until n messages are acknowledged. A halt fails the test.
func (h *harness) await(n int) {
	h.t.Helper()
	for range n {
		select {
		case <-h.acked:
		case err := <-h.halted:
			h.t.Fatalf("got halt %v, want %d messages acknowledged", err, n)
		case <-time.After(24 * time.Hour):
			h.t.Fatalf("got %+v after a day, want %d messages acknowledged", h.dispatcher.Tally(), n)
		}
	}
}

// wantStage fails the test unless the row is in the stage, with the class.
func (h *harness) wantStage(row pipeline.Row, stage pipeline.Stage, class string) {
	h.t.Helper()
	if r := h.ledger.get(row); r.Stage != stage || r.Class != class {
		h.t.Errorf("%s: got stage %q, class %q (%s), want %q, %q", row.Where(), r.Stage, r.Class, r.Reason, stage, class)
	}
}

// awaitHalt waits for the halt and fails the test unless it has the class.
func (h *harness) awaitHalt(class onboard.Class) onboard.HaltError {
	h.t.Helper()
	err := <-h.halted
	var halt *onboard.HaltError
	if !errors.As(err, &halt) || halt.Class != class {
		h.t.Fatalf("got halt %v, want one of class %q", err, class)
	}
	return *halt
}

// checkKeys fails the test if a key was sent with two payloads.
func (h *harness) checkKeys(t *testing.T) {
	t.Helper()
	bodies := map[uuid.UUID]string{}
	for _, c := range h.partner.calls {
		if c.key == uuid.Nil {
			continue
		}
		if earlier, ok := bodies[c.key]; ok && earlier != c.body {
			t.Errorf("key %s: got payload %s, want the first one, %s", c.key, c.body, earlier)
		}
		bodies[c.key] = c.body
	}
}

// onlyFor answers every call of one operation with err.
func onlyFor(op string, err error) func(*harness) {
	return func(h *harness) { h.partner.faults = always(op, err) }
}

// always gives every call of one operation the fault err.
func always(op string, err error) func(string, int) *fault {
	return func(called string, _ int) *fault {
		if called == op {
			return &fault{err: err}
		}
		return nil
	}
}

// scripted gives the first calls of each operation the given faults.
func scripted(script map[string][]*fault) func(string, int) *fault {
	return func(op string, n int) *fault {
		if faults := script[op]; n <= len(faults) {
			return faults[n-1]
		}
		return nil
	}
}

// scriptedSigner fails the calls for which sign or has returns an error. It signs and finds keys otherwise.
type scriptedSigner struct {
	signer.Backend
	mu   sync.Mutex
	sign func(n int) error // for the n-th signature; nil: none fails
	has  func(n int) error // for the n-th question for a key; nil: none fails
	n, h int
	slow time.Duration // how long each signature takes, also when several are made at once
}

func (m *scriptedSigner) SignMessage(ctx context.Context, a common.Address, message []byte) (signer.Signature, error) {
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

func (m *scriptedSigner) HasKey(ctx context.Context, a common.Address) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.h++
	if m.has != nil {
		if err := m.has(m.h); err != nil {
			return err
		}
	}
	return m.Backend.HasKey(ctx, a)
}

func withSigner(m *scriptedSigner) func(*harness) {
	return func(h *harness) {
		m.Backend = signertest.NewMemory(h.keys...)
		h.workerOptions.Signer = signer.Verified(m)
	}
}
