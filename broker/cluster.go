package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
)

const (
	// requestTimeout bounds every request to a broker; a long poll adds its wait.
	requestTimeout = 10 * time.Second
	dialTimeout    = 5 * time.Second
	// metadataTTL is how long a moved leader can stay unknown. With the library's default a move costs seconds.
	metadataTTL = 500 * time.Millisecond
)

// Options says how to reach a Kafka cluster.
type Options struct {
	Brokers  []string       // host:port of one or more brokers, at least one; the others are found through them
	TLS      *tls.Config    // nil: plain text
	SASL     sasl.Mechanism // nil: no authentication
	ClientID string         // shows up in the broker's logs and quotas; default "purser"
	Wait     time.Duration  // how long Connect, Check and CreateTopics try again while no broker answers; 0: not at all
	Logger   *slog.Logger   // nil: silent
}

// Cluster is the way to a Kafka cluster, shared by producers and consumers. It is safe for concurrent use.
type Cluster struct {
	client    *kafka.Client
	transport *kafka.Transport
	dialer    *kafka.Dialer
	brokers   []string
	log       *slog.Logger
	// explain turns a bare code of the embedded broker into what is behind it.
	explain   func(error) error
	wait      time.Duration
	handshake time.Duration // the longest TLS handshake of the preflight
	troubles  *troubles
	exhausted atomic.Pointer[error] // a connection for which there was no file descriptor; nil: none
	cancel    context.CancelFunc
	once      sync.Once
}

// Connect prepares the way to the cluster and makes sure that it can be gone: at least one of the brokers answers, with
// TLS and authentication as configured. While none answers it tries again for Options.Wait; what trying again does not
// change (SetUp, no file descriptor left) is returned at once. Its error names each broker that was tried and why it
// failed. Brokers of different clusters are a *RefusedError. The Cluster outlives ctx; Close it.
func Connect(ctx context.Context, o Options) (*Cluster, error) {
	if len(o.Brokers) == 0 {
		return nil, errors.New("no Kafka brokers given")
	}
	for _, b := range o.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			return nil, &UnreachableError{Broker: b, Err: errors.New("want host:port")}
		}
	}
	c := newCluster(ctx, o, nil)
	if err := c.meet(ctx); err != nil {
		c.disconnect()
		return nil, err
	}
	return c, nil
}

// newCluster builds the clients; dial nil means the network.
func newCluster(ctx context.Context, o Options, dial func(context.Context, string, string) (net.Conn, error)) *Cluster {
	if o.ClientID == "" {
		o.ClientID = "purser"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &Cluster{
		brokers: o.Brokers, log: o.Logger, wait: o.Wait, handshake: dialTimeout, cancel: cancel,
		explain:  func(err error) error { return err },
		troubles: &troubles{log: o.Logger, wait: o.Wait},
	}
	dial = c.dials(dial)
	c.transport = &kafka.Transport{
		Dial:        dial,
		DialTimeout: dialTimeout,
		MetadataTTL: metadataTTL,
		ClientID:    o.ClientID,
		TLS:         o.TLS,
		SASL:        o.SASL,
		Context:     background,
	}
	c.client = &kafka.Client{
		Addr:      kafka.TCP(o.Brokers...),
		Timeout:   requestTimeout,
		Transport: c.transport,
	}
	c.dialer = &kafka.Dialer{
		ClientID:      o.ClientID,
		DialFunc:      dial,
		Timeout:       dialTimeout,
		TLS:           o.TLS,
		SASLMechanism: o.SASL,
	}
	return c
}

// Brokers names the brokers for messages, "a:9092,b:9092".
func (c *Cluster) Brokers() string { return strings.Join(c.brokers, ",") }

// Close drops the connections. Stop what uses the Cluster first. It may be called more than once; there is no error to
// come.
func (c *Cluster) Close() error {
	c.disconnect()
	return nil
}

func (c *Cluster) disconnect() {
	c.once.Do(func() {
		c.transport.CloseIdleConnections()
		c.cancel()
	})
}
