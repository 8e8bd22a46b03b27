package broker_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
)

const million = 1_000_000

// BenchmarkPublish writes 1M messages of 120 bytes to the embedded broker, synced.
func BenchmarkPublish(b *testing.B) {
	messages := make([]pipeline.Message, 32_000)
	for i := range messages {
		messages[i] = pipeline.Message{Key: fmt.Appendf(nil, "eip155:300:0x%040x", i), Value: fmt.Appendf(nil, "%067d", i)}
	}
	for b.Loop() {
		b.StopTimer()
		e, err := broker.OpenEmbedded(b.Context(), broker.EmbeddedOptions{Dir: b.TempDir(), Topics: map[string]int{topic: 0}})
		if err != nil {
			b.Fatal(err)
		}
		p := broker.NewProducer(e.Cluster, broker.ProducerOptions{})
		b.StartTimer()
		for left := million; left > 0; {
			n := min(left, len(messages))
			if err := p.Publish(b.Context(), topic, messages[:n]); err != nil {
				b.Fatal(err)
			}
			left -= n
		}
		b.StopTimer()
		e.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(million)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkConsume drains 1M messages of 120 bytes from the embedded broker through a group, each acknowledged at once.
func BenchmarkConsume(b *testing.B) {
	e, err := broker.OpenEmbedded(b.Context(), broker.EmbeddedOptions{Dir: b.TempDir(), Topics: map[string]int{topic: 0}})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	if err := load(b.Context(), broker.NewProducer(e.Cluster, broker.ProducerOptions{}), million); err != nil {
		b.Fatal(err)
	}
	round := 0
	for b.Loop() {
		round++
		q, err := broker.NewConsumer(e.Cluster, broker.ConsumerOptions{
			Topic: topic, Group: "g" + strconv.Itoa(round), Drain: true,
		})
		if err != nil {
			b.Fatal(err)
		}
		if err := q.Run(b.Context(), acker{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(million)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

type acker struct{}

func (acker) Take(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
	for i := range batch {
		ack(batch[i])
	}
	return nil
}
func (acker) Release(context.Context, int) {}

// BenchmarkShortDrain is a nightly run with a few rows: joining a new group, five rows, leaving.
func BenchmarkShortDrain(b *testing.B) {
	e, err := broker.OpenEmbedded(b.Context(), broker.EmbeddedOptions{Dir: b.TempDir(), Topics: map[string]int{topic: 0}})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	publish(b, e.Cluster, rows(0, 5))
	round := 0
	for b.Loop() {
		round++
		q, err := broker.NewConsumer(e.Cluster, broker.ConsumerOptions{
			Topic: topic, Group: "g" + strconv.Itoa(round), Drain: true,
		})
		if err != nil {
			b.Fatal(err)
		}
		if err := q.Run(b.Context(), acker{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMemory imports 1M rows in a process of its own and reports its greatest resident size, embedded broker
// included. It fails above 300 MiB.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		_, lines := spawn(b, "million", b.TempDir(), "BROKER_TEST_ROWS="+strconv.Itoa(million))
		var took, rss int64
		if _, err := fmt.Sscan(expectLine(b, lines, "done"), &took, &rss); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(rss)/(1<<20), "MiB-peak")
		b.ReportMetric(float64(million)/(float64(took)/1000), "rows/s")
		if rss > 300<<20 {
			b.Fatalf("got a resident size of %d MiB, want at most 300", rss>>20)
		}
	}
}
