package broker_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/purser-onboard/purser/broker"
)

// journal keeps the logged warnings, and sends each to a channel.
type journal struct {
	warnings chan string

	mu    sync.Mutex
	lines []string
}

func newJournal() *journal { return &journal{warnings: make(chan string, 1000)} }

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	j.lines = append(j.lines, string(line))
	j.mu.Unlock()
	j.warnings <- string(line)
	return len(line), nil
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.lines...)
}

func fakeBroker(t *testing.T, o ...kfake.Opt) string {
	t.Helper()
	fake, err := kfake.NewCluster(append(o, kfake.NumBrokers(1), kfake.SeedTopics(2, topic))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return fake.ListenAddrs()[0]
}

// listener accepts connections until the test ends, and serves each.
func listener(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

// asKafka forwards connections to a broker and closes them on a TLS handshake: read as the length of a request, its first
// bytes exceed Apache Kafka's socket.request.max.bytes.
func asKafka(t *testing.T, to string) string {
	return listener(t, func(conn net.Conn) {
		first := make([]byte, 1)
		if _, err := io.ReadFull(conn, first); err != nil || first[0] == 0x16 {
			return
		}
		back, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer back.Close()
		if _, err := back.Write(first); err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, back) // ends with either connection
		}()
		_, _ = io.Copy(back, conn)
	})
}

// A wrong set-up is detected at the first attempt, however long Options.Wait is, and the error names the cause without a
// secret.
func TestRefusals(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	certificates := web.TLS.Certificates
	plainText := fakeBroker(t)
	secure := fakeBroker(t, kfake.TLS(&tls.Config{Certificates: certificates}))
	mutual := fakeBroker(t, kfake.TLS(&tls.Config{Certificates: certificates, ClientAuth: tls.RequireAnyClientCert}))
	withLogin := fakeBroker(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "purser", "right"))
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	trusting := &tls.Config{RootCAs: roots}
	login := func(mechanism, password string) broker.Mechanism {
		t.Helper()
		m, err := broker.Login{Mechanism: mechanism, Username: "purser", Password: password}.SASL()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	controllers := kversion.Stable()
	controllers.SetMaxKeyVersion(kmsg.Produce.Int16(), -1)
	for _, tt := range []struct {
		name  string
		o     broker.Options
		cause broker.Cause
		says  string
	}{
		{"plain text to TLS", broker.Options{Brokers: []string{secure}}, broker.CausePlainText, "speaks TLS"},
		{"TLS to plain text", broker.Options{Brokers: []string{asKafka(t, plainText)}, TLS: trusting},
			broker.CauseTLS, "does not speak TLS"},
		{"unknown authority", broker.Options{Brokers: []string{secure}, TLS: &tls.Config{}}, broker.CauseAuthority,
			"unknown authority"},
		{"other host", broker.Options{Brokers: []string{secure}, TLS: &tls.Config{RootCAs: roots, ServerName: "other"}},
			broker.CauseAuthority, "other"},
		{"no client certificate", broker.Options{Brokers: []string{mutual}, TLS: trusting}, broker.CauseCertificate,
			"certificate required"},
		{"no login", broker.Options{Brokers: []string{withLogin}}, broker.CauseNoLogin, "SCRAM-SHA-512"},
		{"wrong password", broker.Options{Brokers: []string{withLogin}, SASL: login(broker.ScramSHA512, "wr0ng")},
			broker.CauseLogin, "SCRAM-SHA-512"},
		{"wrong password for PLAIN", broker.Options{Brokers: []string{withLogin}, SASL: login(broker.Plain, "wr0ng")},
			broker.CauseLogin, "PLAIN"},
		{"other mechanism", broker.Options{Brokers: []string{withLogin}, SASL: other{}}, broker.CauseMechanism,
			"not OTHER"},
		{"old broker", broker.Options{Brokers: []string{fakeBroker(t, kfake.MaxVersions(kversion.V0_10_0()))}},
			broker.CauseVersion, "too old"},
		{"controller", broker.Options{Brokers: []string{fakeBroker(t, kfake.MaxVersions(controllers))}},
			broker.CauseController, "KRaft controller"},
		{"two clusters", broker.Options{Brokers: []string{plainText, fakeBroker(t, kfake.ClusterID("another"))}},
			broker.CauseClusters, `"another"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Wait = time.Hour
			_, err := broker.Connect(within(t), tt.o)
			var setUp *broker.SetUpError
			if !errors.As(err, &setUp) || setUp.Cause != tt.cause {
				t.Fatalf("got %v, want the cause %q", err, tt.cause)
			}
			if !broker.SetUp(err) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q and SetUp %v, want %q in it, on one line, and true", err, broker.SetUp(err), tt.says)
			}
			if strings.Contains(err.Error(), "wr0ng") {
				t.Errorf("got %q, want no password in it", err)
			}
		})
	}
}

// other is a mechanism that no broker offers.
type other struct{ broker.Mechanism }

func (other) Name() string { return "OTHER" }

// A listener that closes each connection may be a proxy in front of a broker that is down, so Connect retries. Afterwards
// the error is a wrong set-up.
func TestHangUp(t *testing.T) {
	addr := listener(t, func(net.Conn) {})
	logged := newJournal()
	_, err := broker.Connect(within(t), broker.Options{
		Brokers: []string{addr}, Wait: 300 * time.Millisecond, Logger: logged.logger(),
	})
	var setUp *broker.SetUpError
	if !errors.As(err, &setUp) || setUp.Cause != broker.CauseClosed || !broker.SetUp(err) {
		t.Errorf("got %v, want the cause %q", err, broker.CauseClosed)
	}
	if lines := logged.all(); len(lines) != 1 {
		t.Errorf("got %d warnings, want 1: %q", len(lines), lines)
	}
}

// Connect waits for a broker that is down, as later requests do.
func TestAwayAtTheStart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	t.Run("for good", func(t *testing.T) {
		logged := newJournal()
		_, err := broker.Connect(within(t), broker.Options{
			Brokers: []string{addr, addr}, Wait: 300 * time.Millisecond, Logger: logged.logger(),
		})
		if !errors.As(err, new(*broker.UnreachableError)) || broker.SetUp(err) ||
			!strings.Contains(err.Error(), "no Kafka broker answered within 300ms: broker "+addr+": ") ||
			strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want an UnreachableError, no broker answered within 300ms, on one line", err)
		}
		if lines := logged.all(); len(lines) != 1 || !strings.Contains(lines[0], addr) {
			t.Errorf("got %q, want one warning that names the broker", lines)
		}
	})
	t.Run("for a while", func(t *testing.T) {
		logged := newJournal()
		connected := make(chan error, 1)
		ctx := within(t)
		go func() {
			c, err := broker.Connect(ctx, broker.Options{Brokers: []string{addr}, Wait: time.Hour, Logger: logged.logger()})
			if err == nil {
				err = c.Close()
			}
			connected <- err
		}()
		recv(t, "the warning", logged.warnings)
		_, port, _ := net.SplitHostPort(addr)
		number, err := net.LookupPort("tcp", port)
		if err != nil {
			t.Fatal(err)
		}
		fakeBroker(t, kfake.Ports(number))
		if err := recv(t, "the connection", connected); err != nil {
			t.Fatal(err)
		}
		lines := logged.all()
		if len(lines) != 2 || !strings.Contains(lines[1], "answers again") {
			t.Errorf("got %q, want a warning at the beginning and a warning at the end of the outage", lines)
		}
	})
	t.Run("not at all", func(t *testing.T) {
		logged := newJournal()
		_, err := broker.Connect(within(t), broker.Options{Brokers: []string{addr}, Logger: logged.logger()})
		if !errors.As(err, new(*broker.UnreachableError)) || len(logged.all()) != 0 {
			t.Errorf("got %v and the warnings %q, want an UnreachableError and none", err, logged.all())
		}
	})
	t.Run("until it is stopped", func(t *testing.T) {
		logged := newJournal()
		ctx, stop := context.WithCancel(within(t))
		ended := make(chan error, 1)
		go func() {
			_, err := broker.Connect(ctx, broker.Options{Brokers: []string{addr}, Wait: time.Hour, Logger: logged.logger()})
			ended <- err
		}()
		recv(t, "the warning", logged.warnings)
		stop()
		if err := recv(t, "the end", ended); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
}

// advertising is a listener with another address, which the broker advertises.
type advertising struct {
	net.Listener
	as net.Addr
}

func (a advertising) Addr() net.Addr { return a.as }

// When the brokers answer but advertise an address that cannot be reached, the only warning and the run's error contain
// that address and the broker's setting.
func TestAdvertisedAddress(t *testing.T) {
	nowhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nowhere.Close()
	advertised := nowhere.Addr().String()
	var bootstrap string
	fakeBroker(t, kfake.ListenFn(func(string, string) (net.Listener, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			bootstrap = l.Addr().String()
			l = advertising{l, nowhere.Addr()}
		}
		return l, err
	}))
	for name, work := range map[string]func(c *broker.Cluster, log *slog.Logger) error{
		"publish": func(c *broker.Cluster, log *slog.Logger) error {
			p := broker.NewProducer(c, broker.ProducerOptions{Timeout: 400 * time.Millisecond, Logger: log})
			return p.Publish(within(t), topic, rows(0, 20)) // to both partitions
		},
		"consume": func(c *broker.Cluster, log *slog.Logger) error {
			return run(t, consumer(t, c, func(o *broker.ConsumerOptions) {
				o.Drain, o.LostAfter, o.Logger = true, 400*time.Millisecond, log
			}), new(sink))
		},
	} {
		t.Run(name, func(t *testing.T) {
			logged := newJournal()
			c, err := broker.Connect(within(t), broker.Options{Brokers: []string{bootstrap}, Logger: logged.logger()})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			err = work(c, logged.logger())
			for _, part := range []string{bootstrap, "cannot reach " + advertised, "advertised.listeners"} {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("got %v, want an error with %q", err, part)
				}
			}
			if !errors.Is(err, broker.ErrBrokerLost) || broker.SetUp(err) {
				t.Errorf("got %v and SetUp %v, want ErrBrokerLost and false", err, broker.SetUp(err))
			}
			if lines := logged.all(); len(lines) != 1 || !strings.Contains(lines[0], advertised) {
				t.Errorf("got %d warnings, want 1 that names %s: %q", len(lines), advertised, lines)
			}
		})
	}
}

// A short failure in the middle of a run is not logged. A long failure is: one warning when it begins, one when it is over.
func TestTroublesInTheMiddle(t *testing.T) {
	fake, _ := cluster(t, 1, 2)
	logged := newJournal()
	c, err := broker.Connect(within(t), broker.Options{Brokers: fake.ListenAddrs(), Logger: logged.logger()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	publish(t, c, rows(0, 1)) // so that leaders are known
	fault := func(times int) {
		fake.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.NotLeaderForPartition, Count: times,
		})
	}
	fault(2)
	publish(t, c, rows(1, 20))
	if lines := logged.all(); len(lines) != 0 {
		t.Errorf("moved leader: got the warnings %q, want none", lines)
	}
	fault(12)
	publish(t, c, rows(21, 20))
	lines := logged.all()
	if len(lines) != 2 || !strings.Contains(lines[0], "Not Leader") || !strings.Contains(lines[1], "answers again") {
		t.Errorf("missing leader: got %q, want a warning when it begins and a warning when it is over", lines)
	}
	if seen := counts(drained(t, c)); len(seen) != 41 {
		t.Errorf("got %d rows, want 41", len(seen))
	}
}

// TestAnotherProtocol: a listener of another protocol fails Connect at once, and none of its text is decoded.
func TestAnotherProtocol(t *testing.T) {
	for name, text := range map[string]string{
		"HTTP": "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<html>400 Bad Request</html>",
		"SSH":  "SSH-2.0-OpenSSH_9.7\r\n",
		"SMTP": "220 mail.example ESMTP\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			addr := listener(t, func(conn net.Conn) { _, _ = io.WriteString(conn, text) })
			_, err := broker.Connect(within(t), broker.Options{Brokers: []string{addr}, Logger: newJournal().logger()})
			var setUp *broker.SetUpError
			if !errors.As(err, &setUp) || setUp.Cause != broker.CauseNoBroker {
				t.Errorf("got %v, want the cause %q", err, broker.CauseNoBroker)
			}
		})
	}
}
