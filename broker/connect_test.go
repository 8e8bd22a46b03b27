package broker_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/purser-onboard/purser/broker"
)

// A client asks for the metadata of its own topics only: that of a large cluster takes megabytes and seconds.
func TestMetadataOfOwnTopics(t *testing.T) {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic, "another"),
		kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	var asked atomic.Int64
	fake.ControlKey(kmsg.Metadata.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		asked.Add(1)
		if topics := req.(*kmsg.MetadataRequest).Topics; topics == nil {
			t.Error("got a request for the metadata of all topics, want none")
		}
		return nil, nil, false
	})
	c, err := broker.Connect(within(t), broker.Options{Brokers: fake.ListenAddrs(), Topics: []string{topic, "created"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.CreateTopics(within(t), broker.Topic{Name: "created", Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	if counts, err := c.Check(within(t), topic, "created"); err != nil || counts[topic] != 1 || counts["created"] != 2 {
		t.Errorf("got %v, %v; want 1 and 2 partitions", counts, err)
	}
	var missing *broker.MissingTopicError
	if _, err := c.Check(within(t), "missing"); !errors.As(err, &missing) {
		t.Errorf("got %v, want a MissingTopicError", err)
	}
	publish(t, c, rows(0, 3))
	if n := len(drained(t, c)); n != 3 || asked.Load() == 0 {
		t.Errorf("got %d messages after %d requests for metadata, want 3 after some", n, asked.Load())
	}
}

// Brokers that are far away, or slow, take longer for the metadata than it is otherwise kept.
func TestSlowMetadata(t *testing.T) {
	fake, _ := cluster(t, 1, 1)
	fake.ControlKey(kmsg.Metadata.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		fake.SleepControl(func() { <-time.After(600 * time.Millisecond) })
		return nil, nil, false
	})
	c, err := broker.Connect(t.Context(), broker.Options{Brokers: fake.ListenAddrs()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	publish(t, c, rows(0, 3))
	if n := len(drained(t, c)); n != 3 {
		t.Errorf("got %d messages, want 3", n)
	}
}

func TestConnect(t *testing.T) {
	t.Run("no brokers", func(t *testing.T) {
		for _, brokers := range [][]string{nil, {"nowhere"}} {
			if _, err := broker.Connect(t.Context(), broker.Options{Brokers: brokers}); err == nil {
				t.Errorf("Connect to %v: got nil, want an error", brokers)
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
	t.Run("one of two is no broker", func(t *testing.T) {
		fake, _ := cluster(t, 1, 1)
		var asked atomic.Int64
		web := listener(t, func(conn net.Conn) {
			asked.Add(1)
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
		})
		brokers := []string{web, fake.ListenAddrs()[0]}
		c, err := broker.Connect(t.Context(), broker.Options{Brokers: brokers})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		before := asked.Load()
		publish(t, c, rows(0, 1))
		if n := len(drained(t, c)); n != 1 || asked.Load() != before || c.Brokers() != brokers[1] {
			t.Errorf("got %d messages, %d connections to the web server and brokers %s, want 1, none and %s",
				n, asked.Load()-before, c.Brokers(), brokers[1])
		}
	})
	t.Run("all are down", func(t *testing.T) {
		down, _ := cluster(t, 1, 1)
		addr := down.ListenAddrs()[0]
		down.Close()
		_, err := broker.Connect(t.Context(), broker.Options{Brokers: []string{addr}})
		var failed *broker.UnreachableError
		if !errors.As(err, &failed) || failed.Broker != addr || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v, want an UnreachableError of %s: connection refused", err, addr)
		}
	})
	t.Run("missing topic", func(t *testing.T) {
		_, c := cluster(t, 1, 3)
		if found, err := c.Check(within(t), topic); err != nil || found[topic] != 3 {
			t.Errorf("Check: got %v, %v; want 3 partitions", found, err)
		}
		_, err := c.Check(within(t), topic, "nowhere")
		var missing *broker.MissingTopicError
		if !errors.As(err, &missing) || missing.Topic != "nowhere" || missing.Broker != c.Brokers() {
			t.Errorf("got %v, want a MissingTopicError of topic nowhere and broker %s", err, c.Brokers())
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
		t.Errorf("got %d rows, want 10", n)
	}
	wrong := broker.Options{Brokers: fake.ListenAddrs(), SASL: plain.Mechanism{Username: "purser", Password: "wr0ng"}}
	for _, o := range []broker.Options{login("wr0ng"), wrong} {
		_, err := broker.Connect(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), "SASL") || !strings.Contains(err.Error(), fake.ListenAddrs()[0]) {
			t.Errorf("got %v, want an error that names authentication and the broker", err)
		}
		if err != nil && strings.Contains(err.Error(), "wr0ng") {
			t.Errorf("got %v, want no password in it", err)
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
		t.Errorf("got %d rows, want 10", n)
	}
	_, err = broker.Connect(t.Context(), broker.Options{Brokers: secure.ListenAddrs(), TLS: &tls.Config{}})
	var unverified *tls.CertificateVerificationError
	if !errors.As(err, &unverified) {
		t.Errorf("unknown authority: got %v, want a CertificateVerificationError", err)
	}
}
