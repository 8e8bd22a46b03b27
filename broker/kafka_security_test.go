//go:build kafka

package broker_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/internal/kafkatest"
)

// trust returns a TLS configuration that accepts the brokers' certificates, with a client's certificate if it is named.
func trust(t *testing.T, k *kafkatest.Cluster, client string) *tls.Config {
	t.Helper()
	raw, err := os.ReadFile(k.Authority.CA)
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{RootCAs: x509.NewCertPool()}
	c.RootCAs.AppendCertsFromPEM(raw)
	if client != "" {
		pair, err := tls.LoadX509KeyPair(k.Authority.Client(t, client))
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}

func login(t *testing.T, l broker.Login) broker.Mechanism {
	t.Helper()
	m, err := l.SASL()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// grantAll gives a user what importer and consumer need, and no more.
func grantAll(t *testing.T, k *kafkatest.Cluster, user string) {
	k.Grant(t, user, kafka.ResourceTypeTopic, topic, kafka.ACLOperationTypeRead, kafka.ACLOperationTypeWrite)
	k.Grant(t, user, kafka.ResourceTypeGroup, group, kafka.ACLOperationTypeRead)
}

// works publishes some rows and drains them.
func works(t *testing.T, k *kafkatest.Cluster, o broker.Options) {
	t.Helper()
	fresh(t, k, 2)
	c := connect(t, o)
	publish(t, c, rows(0, 50))
	if n := len(drained(t, c)); n != 50 {
		t.Errorf("got %d rows, want 50", n)
	}
}

// fails checks that Connect fails with an error that has all the parts and no secret.
func fails(t *testing.T, o broker.Options, parts ...string) {
	t.Helper()
	_, err := broker.Connect(t.Context(), o)
	if err == nil {
		t.Fatal("Connect: got nil, want an error")
	}
	for _, part := range append(parts, o.Brokers[0]) {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %q in it", err, part)
		}
	}
	if strings.Contains(err.Error(), kafkatest.Password) || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("got %v, want no secret in it", err)
	}
	t.Log(err)
}

func testLogins(t *testing.T, k *kafkatest.Cluster) {
	token := filepath.Join(t.TempDir(), "token")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(token, []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(k.Tokens.Token(t, kafkatest.User, time.Hour))
	fresh(t, k, 2)
	grantAll(t, k, kafkatest.User)
	for _, mechanism := range []string{broker.Plain, broker.ScramSHA256, broker.ScramSHA512, broker.OAuthBearer} {
		t.Run(mechanism, func(t *testing.T) {
			good := broker.Login{Mechanism: mechanism, Username: kafkatest.User, Password: kafkatest.Password, TokenFile: token}
			works(t, k, broker.Options{Brokers: k.SASL(), SASL: login(t, good)})
			works(t, k, broker.Options{Brokers: k.SASLOverTLS(), SASL: login(t, good), TLS: trust(t, k, "")})
			if mechanism == broker.OAuthBearer {
				return
			}
			bad := good
			bad.Password = "wr0ng"
			o := broker.Options{Brokers: k.SASL(), SASL: login(t, bad)}
			fails(t, o, "SASL")
			if _, err := broker.Connect(t.Context(), o); !broker.SetUp(err) {
				t.Errorf("wrong password: got %v, want an error of the set-up", err)
			}
		})
	}
	t.Run("expired token", func(t *testing.T) {
		write(k.Tokens.Token(t, kafkatest.User, -time.Minute))
		o := broker.Options{Brokers: k.SASL(), SASL: login(t, broker.Login{Mechanism: broker.OAuthBearer, TokenFile: token})}
		fails(t, o, "SASL")
		write(k.Tokens.Token(t, kafkatest.User, time.Hour)) // a renewed token
		works(t, k, o)
	})
	t.Run("sessions that end", func(t *testing.T) {
		fresh(t, k, 2)
		c := connect(t, broker.Options{Brokers: k.SASLOverTLS(), TLS: trust(t, k, ""), SASL: login(t, broker.Login{
			Mechanism: broker.ScramSHA512, Username: kafkatest.User, Password: kafkatest.Password,
		})})
		ctx, stop := context.WithCancel(within(t))
		s := new(sink)
		done := make(chan error, 1)
		go func() { done <- consumer(t, c, nil).Run(ctx, s) }()
		sent := 0
		for began := time.Now(); time.Since(began) < 3*time.Second; sent++ {
			publish(t, c, rows(sent, 1))
		}
		eventually(t, "all rows", func() bool { return len(counts(s.all())) == sent })
		stop()
		if err := recv(t, "the end", done); err != nil {
			t.Error(err)
		}
		t.Logf("%d rows written and read by sessions of half a second, %d deliveries were repeated", sent, len(s.all())-sent)
	})
	t.Run("no login", func(t *testing.T) {
		fails(t, broker.Options{Brokers: k.SASL()}, "requires a SASL login", "SCRAM-SHA-512")
	})
	t.Run("login where none is wanted", func(t *testing.T) {
		fails(t, broker.Options{Brokers: k.Addrs(), SASL: login(t, broker.Login{
			Mechanism: broker.ScramSHA512, Username: kafkatest.User, Password: kafkatest.Password,
		})}, "SASL")
	})
}

func testTLS(t *testing.T, k *kafkatest.Cluster) {
	t.Run("TLS", func(t *testing.T) { works(t, k, broker.Options{Brokers: k.TLS(), TLS: trust(t, k, "")}) })
	t.Run("mTLS", func(t *testing.T) {
		fresh(t, k, 2)
		grantAll(t, k, "CN=purser")
		works(t, k, broker.Options{Brokers: k.MutualTLS(), TLS: trust(t, k, "purser")})
	})
	t.Run("unknown authority", func(t *testing.T) {
		o := broker.Options{Brokers: k.TLS(), TLS: &tls.Config{}}
		fails(t, o, "unknown authority")
		if _, err := broker.Connect(t.Context(), o); !broker.SetUp(err) {
			t.Errorf("unknown authority: got %v, want an error of the set-up", err)
		}
	})
	t.Run("no client certificate", func(t *testing.T) {
		o := broker.Options{Brokers: k.MutualTLS(), TLS: trust(t, k, "")}
		fails(t, o, "certificate")
		if _, err := broker.Connect(t.Context(), o); !broker.SetUp(err) {
			t.Errorf("missing certificate: got %v, want an error of the set-up", err)
		}
	})
	t.Run("plain text to TLS", func(t *testing.T) { fails(t, broker.Options{Brokers: k.TLS()}, "TLS") })
	t.Run("TLS to plain text", func(t *testing.T) {
		fails(t, broker.Options{Brokers: k.Addrs(), TLS: trust(t, k, "")}, "TLS")
	})
}

// testPermissions grants permissions step by step, and checks that each error names the missing permission.
func testPermissions(t *testing.T, k *kafkatest.Cluster) {
	fresh(t, k, 1)
	c := connect(t, broker.Options{Brokers: k.SASL(), SASL: login(t, broker.Login{
		Mechanism: broker.ScramSHA512, Username: kafkatest.Stranger, Password: kafkatest.Password,
	})})
	read := func() error { return run(t, consumer(t, c, drain), new(sink)) }
	wrote := func() error {
		return broker.NewProducer(c, broker.ProducerOptions{}).Publish(within(t), topic, rows(0, 5))
	}
	needs := func(err error, permission string) {
		t.Helper()
		var denied *broker.DeniedError
		if !errors.As(err, &denied) || !strings.Contains(denied.Needs, permission) {
			t.Errorf("got %v, want a DeniedError that needs %q", err, permission)
		}
		t.Log(err)
	}
	err := read()
	if !errors.As(err, new(*broker.MissingTopicError)) || !strings.Contains(err.Error(), "may not describe") {
		t.Errorf("without any permission: got %v, want a MissingTopicError with may not describe", err)
	}
	_, err = c.CreateTopics(within(t), broker.Topic{Name: "forbidden", Partitions: 1})
	needs(err, `Create on topic "forbidden"`)

	k.Grant(t, kafkatest.Stranger, kafka.ResourceTypeTopic, topic, kafka.ACLOperationTypeDescribe)
	needs(wrote(), `Write on topic "`+topic+`"`)
	needs(read(), `Read on group "`+group+`"`)
	_, err = c.Lag(within(t), topic, group)
	needs(err, `group "`+group+`"`)
	k.Grant(t, kafkatest.Stranger, kafka.ResourceTypeTopic, topic, kafka.ACLOperationTypeWrite)
	if err := wrote(); err != nil {
		t.Errorf("with Write: got %v, want nil", err)
	}
	k.Grant(t, kafkatest.Stranger, kafka.ResourceTypeGroup, group, kafka.ACLOperationTypeRead)
	needs(read(), `topic "`+topic+`"`)
	k.Grant(t, kafkatest.Stranger, kafka.ResourceTypeTopic, topic, kafka.ACLOperationTypeRead)
	if err := read(); err != nil {
		t.Errorf("with all permissions: got %v, want nil", err)
	}
}
