package tracing

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/purser-onboard/purser/pipeline"
)

// logged is a log that a test can read.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func open(t *testing.T, o Options) (*Provider, *logged) {
	t.Helper()
	var log logged
	o.Service, o.Version, o.Logger = "purser-test", "1", slog.New(slog.NewTextHandler(&log, nil))
	p, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return p, &log
}

func (p *Provider) spanForTest(t *testing.T) {
	t.Helper()
	_, span := p.Tracer().Start(t.Context(), "test")
	span.End()
}

// TestExportFails: a collector that is dead, that does not want the spans, or that hangs, is a warning, and costs the
// end of a run a bounded time. No warning shows the endpoint's path, a header, or what the collector says.
func TestExportFails(t *testing.T) {
	hung := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if strings.HasPrefix(r.URL.Path, "/hangs") {
			select {
			case <-r.Context().Done():
			case <-hung:
			}
			return
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(r.Header.Get("api-key")))
	}))
	defer server.Close()
	defer close(hung)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for _, test := range []struct{ endpoint, want string }{
		{"http://127.0.0.1:1/5ec2e7", "connection refused"}, {server.URL + "/5ec2e7", "the answer is 403 Forbidden"},
		{server.URL + "/hangs/5ec2e7", "spans=1"},
	} {
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", test.endpoint)
		t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=5ec2e7-key")
		p, log := open(t, Options{Exporter: "otlp"})
		p.spanForTest(t)
		begun := time.Now()
		p.Close(stopped) // as after a hard stop
		if took := time.Since(begun); took > 4*stoppedPatience {
			t.Errorf("%s: got %v until it was closed, want about %v", test.endpoint, took, stoppedPatience)
		}
		text := log.String()
		if !strings.Contains(text, test.want) || !strings.Contains(text, "level=WARN") || strings.Contains(text, "5ec2e7") {
			t.Errorf("%s: got %q, want a warning with %q and without the endpoint's path and the header", test.endpoint, text,
				test.want)
		}
	}
}

// TestBadVariables: what the libraries cannot use is a warning without the value.
func TestBadVariables(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "5ec2e7")
	_, log := open(t, Options{Exporter: "otlp"})
	if text := log.String(); !strings.Contains(text, "parse headers") || strings.Contains(text, "5ec2e7") {
		t.Errorf("got %q, want a warning about the headers without them", text)
	}
}

// TestConsole: each span is a line of JSON.
func TestConsole(t *testing.T) {
	var out logged
	p, log := open(t, Options{Exporter: "console", Console: &out})
	p.spanForTest(t)
	p.Close(t.Context())
	if lines := strings.Count(out.String(), "\n"); lines != 1 || !strings.Contains(out.String(), `"Name":"test"`) ||
		log.String() != "" {
		t.Errorf("got %q and log %q, want one line, and no warning", out.String(), log.String())
	}
}

// TestServiceIsDescribed: the variables go before what the command says of itself.
func TestServiceIsDescribed(t *testing.T) {
	t.Setenv("OTEL_SERVICE_NAME", "night-shift")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=production")
	to := tracetest.NewInMemoryExporter()
	p, _ := open(t, Options{To: to, Instance: "run-1"})
	p.spanForTest(t)
	if err := p.sdk.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := to.GetSpans()[0].Resource.String()
	for _, want := range []string{
		"service.name=night-shift", "service.instance.id=run-1", "deployment.environment.name=production", "service.version=1",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got resource %s, want %s in it", got, want)
		}
	}
	p.Close(t.Context())
}

// TestCarrier: a context replaces an earlier one, and leaves the other headers.
func TestCarrier(t *testing.T) {
	shared := []pipeline.Header{{Key: "a", Value: []byte("1")}, {Key: "traceparent", Value: []byte("old")}}
	m := pipeline.Message{Headers: shared}
	carrier{&m}.Set("traceparent", "new")
	if len(m.Headers) != 2 || m.Header("traceparent") != "new" || m.Header("a") != "1" || string(shared[1].Value) != "old" {
		t.Errorf("got %q from %q, want the new context, in a list of its own", m.Headers, shared)
	}
	if keys := (carrier{&m}).Keys(); len(keys) != 2 {
		t.Errorf("got keys %q, want two", keys)
	}
}

type refuses struct{}

func (refuses) Publish(context.Context, string, []pipeline.Message) error {
	return errors.New("0xsecret")
}

// TestPublishFails: the error is returned, and its text is not in the span.
func TestPublishFails(t *testing.T) {
	to := tracetest.NewInMemoryExporter()
	p, _ := open(t, Options{To: to})
	err := p.Publisher(refuses{}).Publish(t.Context(), "work", make([]pipeline.Message, 2*mostLinks))
	if err == nil || err.Error() != "0xsecret" {
		t.Errorf("got %v, want the publisher's error", err)
	}
	if err := p.sdk.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
	spans := to.GetSpans()
	send := spans[len(spans)-1]
	if len(spans) != 2*mostLinks+1 || send.Name != "send work" || send.Status.Description != "" || len(send.Links) != mostLinks {
		t.Errorf("got %d spans, the last %q with %d links and status %v; want %d, send work, %d, no text",
			len(spans), send.Name, len(send.Links), send.Status, 2*mostLinks+1, mostLinks)
	}
	p.Close(t.Context())
}
