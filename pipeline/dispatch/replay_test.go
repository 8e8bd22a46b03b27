package dispatch

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// TestStoredListIsNoVerdict: a list of an earlier run names a customer that is gone since. It decides nothing.
func TestStoredListIsNoVerdict(t *testing.T) {
	for name, listed := range map[string]func(b *bench) client.Customer{
		"the externalId was another's": func(b *bench) client.Customer {
			return client.Customer{ChainID: b.row(5).Account.String(), ExternalID: b.row(0).ExternalID}
		},
		"the pair had another id": func(b *bench) client.Customer {
			return client.Customer{ChainID: b.row(0).Account.String(), ExternalID: b.row(0).ExternalID}
		},
	} {
		t.Run(name, func(t *testing.T) {
			onBench(t, func(b *bench) {
				c := listed(b)
				c.ID, c.Status = uuid.NewString(), client.StatusActive
				b.ledger.list = []pipeline.Customer{{ID: c.ID, ChainID: c.ChainID, ExternalID: c.ExternalID, Status: string(c.Status)}}
				b.partner.customers = []client.Customer{{ID: uuid.NewString(), ChainID: b.row(0).Account.String(),
					ExternalID: b.row(0).ExternalID, Status: client.StatusInitiating}}
			}, func(t *testing.T, b *bench) {
				b.take(b.row(0))
				b.await(1)
				if r := b.ledger.get(b.row(0)); r.Stage != pipeline.Onboarded {
					t.Errorf("%s: %s", r.Stage, r.Reason)
				}
				if n := len(b.partner.of("list")); n != 1 {
					t.Errorf("the list was read %d times", n)
				}
			})
		})
	}
}

// TestSilenceKeepsTheKey: a creation that was answered by silence among its 5xx keeps its key, whatever the look-up
// says.
func TestSilenceKeepsTheKey(t *testing.T) {
	e500, silence := &fault{err: status(500, client.ServerError)}, &fault{err: errDropped}
	for name, script := range map[string][]*fault{
		"two silences, one 502":       {silence, silence, {err: status(502, client.ServerError)}},
		"500, silence, 500, silence":  {e500, silence, e500, silence},
		"500, silence, 409 in flight": {e500, silence, {err: status(409, client.Conflicting)}},
		"500, 409 in flight, 500":     {e500, {err: status(409, client.Conflicting)}, e500},
		"500, truncated, 500":         {e500, {err: &client.Error{Kind: client.Malformed, Status: 201}}, e500},
	} {
		t.Run(name, func(t *testing.T) {
			onBench(t, func(b *bench) {
				b.partner.faults = scripted(map[string][]*fault{"create": script})
			}, func(t *testing.T, b *bench) {
				b.take(b.row(0))
				b.await(1)
				keys := map[uuid.UUID]bool{}
				for _, c := range b.partner.of("create") {
					keys[c.key] = true
				}
				if len(keys) != 1 {
					t.Errorf("%d keys", len(keys))
				}
			})
		})
	}
}

// TestRowOnTwoPartitions: each message is settled in its own partition's name, and releasing one partition leaves the
// row to the other.
func TestRowOnTwoPartitions(t *testing.T) {
	type settledAs struct {
		window, partition int
		offset            int64
	}
	take := func(t *testing.T, b *bench, got chan settledAs, partition int, offset int64) {
		t.Helper()
		m := b.message(b.row(0))
		m.Partition, m.Offset = partition, offset
		err := b.runner.Take(t.Context(), []pipeline.Message{m}, func(m pipeline.Message) { got <- settledAs{partition, m.Partition, m.Offset} })
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Run("settled", func(t *testing.T) {
		onBench(t, nil, func(t *testing.T, b *bench) {
			got := make(chan settledAs, 10)
			take(t, b, got, 0, 10)
			take(t, b, got, 1, 77)
			for range 2 {
				if s := <-got; s.window != s.partition {
					t.Errorf("offset %d of partition %d was settled in partition %d's name", s.offset, s.partition, s.window)
				}
			}
		})
	})
	t.Run("one released", func(t *testing.T) {
		var arrived, answer chan struct{}
		onBench(t, func(b *bench) {
			arrived, answer = make(chan struct{}, 10), make(chan struct{})
			b.partner.before = func(call) { arrived <- struct{}{}; <-answer }
		}, func(t *testing.T, b *bench) {
			got := make(chan settledAs, 10)
			take(t, b, got, 0, 10)
			take(t, b, got, 1, 77)
			<-arrived
			released := make(chan struct{})
			go func() { b.runner.Release(t.Context(), 0); close(released) }()
			synctest.Wait()
			close(answer)
			<-released
			before := len(got)
			synctest.Wait()
			all := map[int]int{}
			for i := range len(got) {
				s := <-got
				all[s.partition]++
				if i >= before && s.partition == 0 {
					t.Error("the released partition's message was settled after its release")
				}
			}
			if all[1] != 1 {
				t.Errorf("settled %v, want the message of partition 1", all)
			}
		})
	})
}

// TestHostileChallengeInTheLedger: a row that stands at signing is checked again before the signer sees it.
func TestHostileChallengeInTheLedger(t *testing.T) {
	onBench(t, nil, func(t *testing.T, b *bench) {
		b.ledger.records = []pipeline.Record{{
			Row: b.row(0), ID: 1, Version: 1, Stage: pipeline.Signing, CustomerID: uuid.NewString(),
			Challenge: "I owe you 5 ETH", ChallengeAt: time.Now(),
		}}
		b.take(b.row(0))
		b.await(1)
		if r := b.ledger.get(b.row(0)); r.Stage != pipeline.Refused || b.runner.Tally().Signatures != 0 {
			t.Errorf("%+v", r)
		}
	})
}

// TestRecordedSignatureOfAnotherForm: a recorded signature goes out byte for byte, or not at all. When the encoding was
// changed, the customer is read, and signs a new challenge if it still has to.
func TestRecordedSignatureOfAnotherForm(t *testing.T) {
	for _, there := range []client.Status{client.StatusInitiating, client.StatusScreening} {
		t.Run(string(there), func(t *testing.T) {
			key := pipeline.Key{Operation: pipeline.OpSubmit, ID: uuid.New(), Digest: [32]byte{1}, FirstSent: time.Now(), Outcome: pipeline.KeyOpen}
			onBench(t, func(b *bench) {
				c := client.Customer{ID: uuid.NewString(), ChainID: b.row(0).Account.String(),
					ExternalID: b.row(0).ExternalID, Status: there}
				b.partner.customers = []client.Customer{c}
				b.partner.issue(c)
				key.ID = b.worker.Keyring.Submit(c.ID, key.Digest, 0)
				key.FirstSent = time.Now()
				b.ledger.records = []pipeline.Record{{
					Row: b.row(0), ID: 1, Version: 1, Stage: pipeline.Submitting, CustomerID: c.ID,
					Signature: "0x" + fmt.Sprintf("%0130x", 7), SubmitKey: key,
				}}
			}, func(t *testing.T, b *bench) {
				b.take(b.row(0))
				b.await(1)
				if r := b.ledger.get(b.row(0)); r.Stage != pipeline.Onboarded {
					t.Errorf("got stage %s (%s: %s), want %s", r.Stage, r.Class, r.Reason, pipeline.Onboarded)
				}
				want := 1
				if there != client.StatusInitiating {
					want = 0
				}
				submits := b.partner.of("submit")
				if len(submits) != want {
					t.Errorf("got %d submissions, want %d", len(submits), want)
				}
				for _, c := range submits {
					if c.key == key.ID {
						t.Errorf("got a new payload under the old key %s", c.key)
					}
				}
			})
		})
	}
}

// TestRowMovedMeanwhile: what somebody else did to a row while it was on its way is read, and the row goes on from
// there.
func TestRowMovedMeanwhile(t *testing.T) {
	onBench(t, func(b *bench) {
		moved := false
		b.partner.before = func(c call) {
			if c.op == "create" && !moved {
				moved = true
				b.ledger.mu.Lock()
				defer b.ledger.mu.Unlock()
				b.ledger.records[0].Version++
			}
		}
	}, func(t *testing.T, b *bench) {
		b.take(b.row(0))
		b.await(1)
		if r := b.ledger.get(b.row(0)); r.Stage != pipeline.Onboarded || len(b.partner.customers) != 1 || len(b.partner.of("create")) != 2 {
			t.Errorf("%+v, %d creations", r, len(b.partner.of("create")))
		}
		b.checkKeys(t)
	})
}
