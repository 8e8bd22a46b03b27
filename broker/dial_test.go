package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/purser-onboard/purser/pipeline"
)

// A process without a free file descriptor ends at once, at the start and later: waiting frees none.
func TestOutOfFiles(t *testing.T) {
	const topic = "rows"
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	var left atomic.Int64 // connections for which there is a descriptor
	group := ""
	cluster := func(n int64) *Cluster {
		left.Store(n)
		group = fmt.Sprint("group-", n) // a member that cannot leave would hold up the next one
		return newCluster(t.Context(), Options{Brokers: fake.ListenAddrs(), Wait: time.Hour},
			func(ctx context.Context, network, address string) (net.Conn, error) {
				if left.Add(-1) < 0 {
					return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("socket", syscall.EMFILE)}
				}
				return new(net.Dialer).DialContext(ctx, network, address)
			})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for name, work := range map[string]func(*Cluster) error{
		"check": func(c *Cluster) error {
			_, err := c.Check(ctx, topic)
			return err
		},
		"publish": func(c *Cluster) error {
			return NewProducer(c, ProducerOptions{Timeout: time.Hour}).Publish(ctx, topic, []pipeline.Message{{}})
		},
		"consume": func(c *Cluster) error {
			q, err := NewConsumer(c, ConsumerOptions{Topic: topic, Group: group, Drain: true, LostAfter: time.Hour})
			if err == nil {
				err = q.Run(ctx, acker{})
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			for n := range int64(8) { // so that each of the connections is the one that fails
				c := cluster(n)
				err := work(c)
				c.disconnect()
				if ctx.Err() != nil {
					t.Fatalf("with %d descriptors: got %v after 30s, want an end before", n, err)
				}
				// The last connections may serve optional requests, such as leaving the group.
				if (err != nil || n == 0) && (!errors.Is(err, syscall.EMFILE) || SetUp(err)) {
					t.Errorf("with %d descriptors: got %v, want %v", n, err, syscall.EMFILE)
				}
			}
		})
	}
}

// acker is a handler that acknowledges at once.
type acker struct{}

func (acker) Take(_ context.Context, batch []pipeline.Message, ack func(pipeline.Message)) error {
	for _, m := range batch {
		ack(m)
	}
	return nil
}

func (acker) Release(context.Context, int) {}

func TestUnknownHost(t *testing.T) {
	nowhere := &DialError{Addr: "a:1", Err: &net.DNSError{Err: "no such host", Name: "a", IsNotFound: true}}
	later := &DialError{Addr: "b:1", Err: &net.DNSError{Err: "server misbehaving", Name: "b", IsTemporary: true}}
	c := &Cluster{brokers: []string{"a:1", "b:1"}}
	for _, tt := range []struct {
		failures []error
		want     bool
	}{
		{[]error{nowhere, nowhere}, true},
		{[]error{nowhere, later}, false}, // either may exist later
		{[]error{nowhere, syscall.ECONNREFUSED}, false},
	} {
		err := c.unreachable(tt.failures)
		if got := SetUp(err); got != tt.want {
			t.Errorf("SetUp(%v): got %v, want %v", err, got, tt.want)
		}
		if got := retriable(err); got == tt.want {
			t.Errorf("retriable(%v): got %v, want %v", err, got, !tt.want)
		}
	}
}
