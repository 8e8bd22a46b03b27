package broker_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/pipeline"
)

const (
	topic = "onboarding.customers"
	group = "purser"
	// patience bounds every wait. A passing test needs far less.
	patience = 15 * time.Second
)

// TestMain runs the test binary as one of the child processes that tests start and kill.
func TestMain(m *testing.M) {
	if role := os.Getenv("BROKER_TEST_ROLE"); role != "" {
		if err := child(role, os.Getenv("BROKER_TEST_DIR")); err != nil {
			fmt.Println("error:", err)
			os.Exit(3)
		}
		return
	}
	os.Exit(m.Run())
}

// spawn starts this test binary in a role and returns the lines it prints. The process is killed at the test's end.
func spawn(t testing.TB, role, dir string, env ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "BROKER_TEST_ROLE="+role, "BROKER_TEST_DIR="+dir)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, bufio.NewScanner(out)
}

func expectLine(t testing.TB, lines *bufio.Scanner, prefix string) string {
	t.Helper()
	if !lines.Scan() {
		t.Fatalf("the child ended, want a line that begins with %q", prefix)
	}
	if !strings.HasPrefix(lines.Text(), prefix) {
		t.Fatalf("the child printed %q, want a line that begins with %q", lines.Text(), prefix)
	}
	return strings.TrimSpace(strings.TrimPrefix(lines.Text(), prefix))
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func open(t testing.TB, dir string) *broker.Embedded {
	t.Helper()
	return openWith(t, broker.EmbeddedOptions{Dir: dir})
}

// openWith opens the embedded broker with the options, by default with the topics of tests.
func openWith(t testing.TB, o broker.EmbeddedOptions) *broker.Embedded {
	t.Helper()
	if o.Topics == nil {
		o.Topics = map[string]int{topic: 0, "onboarding.deadletter": 1}
	}
	e, err := broker.OpenEmbedded(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("closing the embedded broker: got %v, want nil", err)
		}
	})
	return e
}

// cluster starts kfake on loopback, where faults can be injected, with one topic.
func cluster(t testing.TB, brokers, partitions int) (*kfake.Cluster, *broker.Cluster) {
	t.Helper()
	fake, err := kfake.NewCluster(
		kfake.NumBrokers(brokers),
		kfake.SeedTopics(int32(partitions), topic),
		kfake.GroupMinSessionTimeout(100*time.Millisecond),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	c, err := broker.Connect(t.Context(), broker.Options{Brokers: fake.ListenAddrs()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return fake, c
}

// elsewhere, if it is set, makes the topic on another broker for tests that inject no faults: on Apache Kafka, with the tag
// kafka.
var elsewhere func(t testing.TB, partitions int) *broker.Cluster

// quiet starts a cluster for a test that injects no faults.
func quiet(t testing.TB, partitions int) *broker.Cluster {
	t.Helper()
	if elsewhere != nil {
		return elsewhere(t, partitions)
	}
	_, c := cluster(t, 1, partitions)
	return c
}

// durable starts the embedded broker, with four partitions, for a test that injects no faults.
func durable(t testing.TB) *broker.Cluster {
	t.Helper()
	if elsewhere != nil {
		return elsewhere(t, 4)
	}
	return open(t, t.TempDir()).Cluster
}

// stranger returns another client at the same brokers, by another library.
func stranger(t testing.TB, c *broker.Cluster, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(strings.Split(c.Brokers(), ",")...))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// rows makes messages with distinct keys; the value is the number of the row.
func rows(from, n int) []pipeline.Message {
	all := make([]pipeline.Message, n)
	for i := range all {
		all[i] = pipeline.Message{
			Key:   fmt.Appendf(nil, "eip155:300:0x%040x", from+i),
			Value: binary.BigEndian.AppendUint64(nil, uint64(from+i)),
		}
	}
	return all
}

func number(m pipeline.Message) int { return int(binary.BigEndian.Uint64(m.Value)) }

func publish(t testing.TB, c *broker.Cluster, messages []pipeline.Message) {
	t.Helper()
	if err := broker.NewProducer(c, broker.ProducerOptions{}).Publish(within(t), topic, messages); err != nil {
		t.Fatal(err)
	}
}

func consumer(t testing.TB, c *broker.Cluster, change func(*broker.ConsumerOptions)) *broker.Consumer {
	t.Helper()
	o := broker.ConsumerOptions{
		Topic:             topic,
		Group:             group,
		SessionTimeout:    3 * time.Second,
		HeartbeatInterval: 20 * time.Millisecond,
		RebalanceTimeout:  5 * time.Second,
		CommitInterval:    10 * time.Millisecond,
		MaxWait:           50 * time.Millisecond,
	}
	if change != nil {
		change(&o)
	}
	q, err := broker.NewConsumer(c, o)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// run runs a consumer that ends by itself, and fails the test when it does not: Run returns nil when its ctx ends.
func run(t testing.TB, q *broker.Consumer, s *sink) error {
	t.Helper()
	ctx := within(t)
	err := q.Run(ctx, s)
	if ctx.Err() != nil {
		t.Fatalf("Run: got %v and %d messages after %v, want an end before", err, len(s.all()), patience)
	}
	return err
}

func drain(o *broker.ConsumerOptions) { o.Drain = true }

// drained runs a drain that acknowledges each message at once, and returns the messages.
func drained(t testing.TB, c *broker.Cluster) []pipeline.Message {
	t.Helper()
	s := new(sink)
	if err := run(t, consumer(t, c, drain), s); err != nil {
		t.Fatal(err)
	}
	return s.all()
}

// sink is a handler that keeps the messages. Without take it acknowledges at once.
type sink struct {
	take    func(ctx context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error
	release func(ctx context.Context, partition int)

	mu    sync.Mutex
	taken []pipeline.Message
}

func (s *sink) Take(ctx context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
	s.mu.Lock()
	s.taken = append(s.taken, batch...)
	s.mu.Unlock()
	if s.take != nil {
		return s.take(ctx, batch, ack)
	}
	for _, m := range batch {
		ack(m)
	}
	return nil
}

func (s *sink) Release(ctx context.Context, partition int) {
	if s.release != nil {
		s.release(ctx, partition)
	}
}

func (s *sink) all() []pipeline.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]pipeline.Message(nil), s.taken...)
}

// counts returns how often each row was delivered.
func counts(messages []pipeline.Message) map[int]int {
	seen := make(map[int]int)
	for _, m := range messages {
		seen[number(m)]++
	}
	return seen
}

// committed returns the group's offsets, -1 where there is none.
func committed(t testing.TB, c *broker.Cluster) []int64 {
	t.Helper()
	lags, err := c.Lag(within(t), topic, group)
	if err != nil {
		t.Fatal(err)
	}
	at := make([]int64, len(lags))
	for i, l := range lags {
		at[i] = l.Committed
	}
	return at
}

// eventually polls the broker for a condition that has no signal.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx := within(t)
	for !ok() {
		if ctx.Err() != nil {
			t.Fatalf("after %v: still waiting for %s", patience, what)
		}
	}
}

func recv[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-within(t).Done():
		t.Fatalf("after %v: still waiting for %s", patience, what)
		panic("unreachable")
	}
}

// watching is a Membership of functions; those that are nil do nothing.
type watching struct {
	assigned func(partitions []int, of int)
	lease    func(until time.Time)
	stalled  func(broker.Stall)
}

func (w watching) Assigned(partitions []int, of int) {
	if w.assigned != nil {
		w.assigned(partitions, of)
	}
}

func (w watching) Restore(context.Context, []int) error { return nil }

func (w watching) Lease(until time.Time) {
	if w.lease != nil {
		w.lease(until)
	}
}

func (w watching) Stalled(s broker.Stall) {
	if w.stalled != nil {
		w.stalled(s)
	}
}
