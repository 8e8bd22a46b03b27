package dispatch

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// slowPartner takes its time for each request.
type slowPartner struct {
	*memoryPartner
	takes time.Duration
}

func (p slowPartner) CreateCustomer(ctx context.Context, key uuid.UUID, body []byte) (client.Customer, error) {
	time.Sleep(p.takes)
	return p.memoryPartner.CreateCustomer(ctx, key, body)
}

func (p slowPartner) Challenge(ctx context.Context, id string) (string, error) {
	time.Sleep(p.takes)
	return p.memoryPartner.Challenge(ctx, id)
}

func (p slowPartner) SubmitSignature(ctx context.Context, id string, key uuid.UUID, body []byte) error {
	time.Sleep(p.takes)
	return p.memoryPartner.SubmitSignature(ctx, id, key, body)
}

// TestReleaseTakesOneRequest releases all partitions at 200 moments of a run under load, some rows having messages on
// two of them. Each release ends with the request in flight, and afterwards no message is settled any more.
func TestReleaseTakesOneRequest(t *testing.T) {
	const takes, partitions = 400 * time.Millisecond, 4
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			b := newBench(t, func(b *bench) {
				b.options.Concurrency = 6
				b.worker.API = slowPartner{b.partner, takes}
				b.partner.faults = func(op string, n int) *fault {
					if n%7 == 3 && op != "probe" {
						return &fault{err: errDropped}
					}
					return nil
				}
			})
			released := make([]bool, partitions)
			var batches [partitions][]pipeline.Message
			for i := range 20 {
				m := b.message(b.row(i))
				m.Partition = random.IntN(partitions)
				batches[m.Partition] = append(batches[m.Partition], m)
				if random.IntN(3) == 0 {
					twin := b.message(b.row(i))
					twin.Partition = random.IntN(partitions)
					batches[twin.Partition] = append(batches[twin.Partition], twin)
				}
			}
			for _, batch := range batches {
				err := b.runner.Take(t.Context(), batch, func(m pipeline.Message) {
					if released[m.Partition] {
						t.Errorf("seed %d: a message of partition %d was settled after its release", seed, m.Partition)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Duration(random.Int64N(int64(6 * time.Second))))
			begun := time.Now()
			var all sync.WaitGroup
			for p := range partitions { // all at once, as the consumer does
				all.Go(func() {
					b.runner.Release(t.Context(), p)
					b.runner.mu.Lock()
					defer b.runner.mu.Unlock()
					released[p] = true
				})
			}
			all.Wait()
			if took := time.Since(begun); took > takes {
				t.Errorf("seed %d: got a release of %v, want at most the %v of the request in flight", seed, took, takes)
			}
			b.runner.Close()
		})
	}
}
