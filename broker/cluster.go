package broker

import (
	"cmp"
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
	// metadataTTL is how long a new leader may stay unknown. With the library's default it takes seconds.
	metadataTTL = 500 * time.Millisecond
)

// Options configures the connection to a Kafka cluster.
type Options struct {
	Brokers  []string       // host:port of one or more brokers, at least one; they name the others
	TLS      *tls.Config    // nil: plain text
	SASL     sasl.Mechanism // nil: no authentication
	Topics   []string       // those that are used; nil: all topics of the cluster, whose metadata is read all the time
	ClientID string         // for the brokers' logs and quotas; default "purser"
	Wait     time.Duration  // how long Connect, Check and CreateTopics retry while no broker answers; 0: no retry
	Logger   *slog.Logger   // nil: silent
}

// Cluster is a client of a Kafka cluster, shared by producers and consumers. It is safe for concurrent use.
type Cluster struct {
	client    *kafka.Client
	transport *kafka.Transport
	dialer    *kafka.Dialer
	brokers   []string
	log       *slog.Logger
	// explain returns the cause of an error code of the embedded broker, if it is known.
	explain   func(error) error
	wait      time.Duration
	handshake time.Duration // the longest TLS handshake of the preflight
	outages   *outageLog
	exhausted atomic.Pointer[error] // the last dial failed for lack of a file descriptor; nil: it did not
	cancel    context.CancelFunc
	once      sync.Once
	readers   readers
}

// Connect returns a Cluster after at least one of the brokers has answered, with TLS and authentication as configured.
// It blocks for up to Options.Wait while none answers; errors that retrying does not change (SetUp, no file descriptor
// left) are returned at once. Its error names each broker that was tried and why it failed. Brokers of different
// clusters are a *SetUpError. The Cluster outlives ctx; the caller must Close it.
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
	if err := c.checkBrokers(ctx); err != nil {
		c.disconnect()
		return nil, err
	}
	return c, nil
}

// newCluster makes the library's clients; dial nil: the network.
func newCluster(ctx context.Context, o Options, dial dialFunc) *Cluster {
	o.ClientID = cmp.Or(o.ClientID, "purser")
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &Cluster{
		brokers: o.Brokers, log: o.Logger, wait: o.Wait, handshake: dialTimeout, cancel: cancel,
		explain: func(err error) error { return err },
		outages: &outageLog{log: o.Logger, wait: o.Wait},
	}
	dial = c.wrapDial(dial)
	c.transport = &kafka.Transport{
		Dial:           dial,
		DialTimeout:    dialTimeout,
		MetadataTTL:    metadataTTL,
		MetadataTopics: o.Topics,
		ClientID:       o.ClientID,
		TLS:            o.TLS,
		SASL:           o.SASL,
		Context:        background,
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

// Brokers returns the configured brokers for messages, "a:9092,b:9092".
func (c *Cluster) Brokers() string { return strings.Join(c.brokers, ",") }

// Close closes the connections. Producers and consumers must have ended. It may be called more than once; its error is
// always nil.
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
