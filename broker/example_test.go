package broker_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
)

// printer settles each message as soon as it has printed it.
type printer struct{}

func (printer) Take(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
	for _, m := range batch {
		fmt.Printf("%s = %s\n", m.Key, m.Value)
		ack(m)
	}
	return nil
}

func (printer) Release(context.Context, int) {}

// An embedded broker, a producer, and a consumer that ends when the queue as it stood is settled.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "broker")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()

	b, err := broker.OpenEmbedded(ctx, broker.EmbeddedOptions{
		Dir:    dir,
		Topics: map[string]int{"onboarding.customers": 1},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()

	producer := broker.NewProducer(b.Cluster, broker.ProducerOptions{})
	err = producer.Publish(ctx, "onboarding.customers", []pipeline.Message{
		{Key: []byte("eip155:300:0x43…"), Value: []byte("alice")},
		{Key: []byte("eip155:300:0x8f…"), Value: []byte("bob")},
	})
	if err != nil {
		log.Fatal(err)
	}

	queue, err := broker.NewConsumer(b.Cluster, broker.ConsumerOptions{
		Topic: "onboarding.customers",
		Group: "purser",
		Drain: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := queue.Run(ctx, printer{}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// eip155:300:0x43… = alice
	// eip155:300:0x8f… = bob
}
