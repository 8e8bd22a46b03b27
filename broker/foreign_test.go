package broker_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/purser-onboard/purser/broker"
)

// transact writes rows into partition 0, the only one, in one transaction of another producer and ends it. A broker
// says that it has ended before the marker is there.
func transact(t *testing.T, c *broker.Cluster, n int, commit bool) {
	t.Helper()
	end := func() int64 {
		lags, err := c.Lag(within(t), topic, group)
		if err != nil {
			t.Fatal(err)
		}
		return lags[0].End
	}
	marked := end() + int64(n) + 1
	theirs := stranger(t, c, kgo.DefaultProduceTopic(topic), kgo.TransactionalID("other"))
	if err := theirs.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for _, m := range rows(0, n) {
		if err := theirs.ProduceSync(within(t), &kgo.Record{Key: m.Key, Value: m.Value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := theirs.EndTransaction(within(t), kgo.TransactionEndTry(commit)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the marker", func() bool { return end() == marked })
}

// Transactions of other producers leave markers, which take offsets and are no messages.
func TestMarkersAreNotMessages(t *testing.T) {
	c := quiet(t, 1)
	for range 5 {
		transact(t, c, 3, true)
	}
	s := new(sink)
	q := consumer(t, c, func(o *broker.ConsumerOptions) { o.Drain, o.MaxBytes = true, 1 })
	if err := run(t, q, s); err != nil {
		t.Fatal(err)
	}
	if n := len(s.all()); n != 15 {
		t.Errorf("%d messages came, want 15", n)
	}
	if at := committed(t, c); at[0] != 20 {
		t.Errorf("committed %d, want 20: fifteen messages and five markers", at[0])
	}
}

// A compacted topic has gaps, and its last offsets may hold nothing.
func TestCompactedTopic(t *testing.T) {
	fake, c := cluster(t, 1, 1)
	const compacted = "compacted"
	err := fake.CreateTopic(compacted, 1, map[string]string{"cleanup.policy": "compact", "segment.bytes": "100"})
	if err != nil {
		t.Fatal(err)
	}
	p := broker.NewProducer(c, broker.ProducerOptions{BatchMessages: 10})
	for i := range 10 {
		batch := rows(10*i, 10)
		for j := range batch {
			batch[j].Key = fmt.Appendf(nil, "key-%d", j%(i+1))
		}
		if err := p.Publish(within(t), compacted, batch); err != nil {
			t.Fatal(err)
		}
	}
	fake.Compact()
	s := new(sink)
	q := consumer(t, c, func(o *broker.ConsumerOptions) { o.Topic, o.Drain, o.MaxBytes = compacted, true, 1 })
	if err := run(t, q, s); err != nil {
		t.Fatal(err)
	}
	latest := map[string]int{}
	for _, m := range s.all() {
		latest[string(m.Key)] = number(m)
	}
	if len(latest) != 10 || len(s.all()) == 100 {
		t.Errorf("%d messages with %d keys came, want the latest of 10 keys", len(s.all()), len(latest))
	}
	lags, err := c.Lag(within(t), compacted, group)
	if err != nil || lags[0].Lag() != 0 {
		t.Errorf("%+v, %v: want no lag", lags, err)
	}
}

func TestConnect(t *testing.T) {
	t.Run("no brokers", func(t *testing.T) {
		for _, brokers := range [][]string{nil, {"nowhere"}} {
			if _, err := broker.Connect(t.Context(), broker.Options{Brokers: brokers}); err == nil {
				t.Errorf("connected to %v", brokers)
			}
		}
	})
	t.Run("one of two is down", func(t *testing.T) {
		fake, _ := cluster(t, 1, 1)
		down, _ := cluster(t, 1, 1)
		addr := down.ListenAddrs()[0]
		down.Close()
		c, err := broker.Connect(t.Context(), broker.Options{Brokers: []string{addr, fake.ListenAddrs()[0]}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		publish(t, c, rows(0, 1))
	})
	t.Run("all are down", func(t *testing.T) {
		down, _ := cluster(t, 1, 1)
		addr := down.ListenAddrs()[0]
		down.Close()
		_, err := broker.Connect(t.Context(), broker.Options{Brokers: []string{addr}})
		var failed *broker.UnreachableError
		if !errors.As(err, &failed) || failed.Broker != addr || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("missing topic", func(t *testing.T) {
		_, c := cluster(t, 1, 3)
		if found, err := c.Check(within(t), topic); err != nil || found[topic] != 3 {
			t.Errorf("%v, %v: want 3 partitions", found, err)
		}
		_, err := c.Check(within(t), topic, "nowhere")
		var missing *broker.MissingTopicError
		if !errors.As(err, &missing) || missing.Topic != "nowhere" || missing.Broker != c.Brokers() {
			t.Errorf("got %v", err)
		}
	})
}

func TestAuthentication(t *testing.T) {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, topic), kfake.EnableSASL(),
		kfake.GroupMinSessionTimeout(time.Second),
		kfake.Superuser("SCRAM-SHA-512", "purser", "right"), kfake.Superuser("PLAIN", "purser", "right"))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	login := func(password string) broker.Options {
		m, err := scram.Mechanism(scram.SHA512, "purser", password)
		if err != nil {
			t.Fatal(err)
		}
		return broker.Options{Brokers: fake.ListenAddrs(), SASL: m}
	}
	c, err := broker.Connect(t.Context(), login("right"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	publish(t, c, rows(0, 10))
	if n := len(drained(t, c)); n != 10 {
		t.Errorf("%d rows came, want 10", n)
	}
	wrong := broker.Options{Brokers: fake.ListenAddrs(), SASL: plain.Mechanism{Username: "purser", Password: "wr0ng"}}
	for _, o := range []broker.Options{login("wr0ng"), wrong} {
		_, err := broker.Connect(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), "SASL") || !strings.Contains(err.Error(), fake.ListenAddrs()[0]) {
			t.Errorf("got %v, want an error that names authentication and the broker", err)
		}
		if err != nil && strings.Contains(err.Error(), "wr0ng") {
			t.Errorf("%v shows the password", err)
		}
	}
}

func TestTLS(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	secure, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic),
		kfake.GroupMinSessionTimeout(time.Second), kfake.TLS(&tls.Config{Certificates: web.TLS.Certificates}))
	if err != nil {
		t.Fatal(err)
	}
	defer secure.Close()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	c, err := broker.Connect(t.Context(), broker.Options{Brokers: secure.ListenAddrs(), TLS: &tls.Config{RootCAs: roots}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	publish(t, c, rows(0, 10))
	if n := len(drained(t, c)); n != 10 {
		t.Errorf("%d rows came, want 10", n)
	}
	_, err = broker.Connect(t.Context(), broker.Options{Brokers: secure.ListenAddrs(), TLS: &tls.Config{}})
	var unverified *tls.CertificateVerificationError
	if !errors.As(err, &unverified) {
		t.Errorf("an unknown authority: %v", err)
	}
}
