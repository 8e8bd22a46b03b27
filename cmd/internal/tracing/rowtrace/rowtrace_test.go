package rowtrace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/cmd/internal/tracing"
	"github.com/purser-onboard/purser/httpsig"
	purserledger "github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/dispatch"
	"github.com/purser-onboard/purser/pipeline/onboard"
	"github.com/purser-onboard/purser/sandbox"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
	"github.com/purser-onboard/purser/siwe"
)

// memory is an exporter that keeps the spans of the runs before, too.
type memory struct{ *tracetest.InMemoryExporter }

func (memory) Shutdown(context.Context) error { return nil }

// kept takes what is published.
type kept struct{ messages []pipeline.Message }

func (k *kept) Publish(_ context.Context, topic string, messages []pipeline.Message) error {
	for i, m := range messages {
		m.Topic, m.Offset = topic, int64(i)
		k.messages = append(k.messages, m)
	}
	return nil
}

// world is a partner, and what a consumer needs besides.
type world struct {
	t        *testing.T
	url      string
	creds    sandbox.Credentials
	path     string // of the ledger
	spans    memory
	customer bool // data becomes attributes
}

func newWorld(t *testing.T, front func(http.Handler) http.Handler) *world {
	t.Helper()
	creds, err := sandbox.NewCredentials(nil)
	if err != nil {
		t.Fatal(err)
	}
	server, err := sandbox.New(sandbox.Config{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.RegisterCredentials(creds); err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(front(server.API()))
	t.Cleanup(api.Close)
	return &world{
		t: t, url: api.URL, creds: creds, path: filepath.Join(t.TempDir(), "ledger.db"),
		spans: memory{tracetest.NewInMemoryExporter()},
	}
}

func (w *world) provider(service string) *tracing.Provider {
	w.t.Helper()
	p, err := tracing.Open(w.t.Context(), tracing.Options{
		To: w.spans, Service: service, Instance: "run", Version: "1", Logger: slog.New(slog.DiscardHandler),
		CustomerData: w.customer,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func row() pipeline.Row {
	return pipeline.Row{
		Account:    pipeline.Account{Chain: 300, Address: signertest.Address(signertest.Key(1))},
		ExternalID: "customer-seventeen", ImportID: "import-1", File: "export.csv", Line: 17,
	}
}

// imported publishes the row as an importer does whose traces are on.
func (w *world) imported() pipeline.Message {
	w.t.Helper()
	p := w.provider("importer")
	var out kept
	m := pipeline.Message{Key: []byte(row().Account.String()), Value: pipeline.AppendMessage(nil, row())}
	if err := p.Publisher(&out).Publish(w.t.Context(), "work", []pipeline.Message{m}); err != nil {
		w.t.Fatal(err)
	}
	p.Close(w.t.Context())
	return out.messages[0]
}

// consumed has a consumer take the messages, and ends it when the first is settled, or when hook returns true at a
// point: the run is cut short there, as by a crash.
func (w *world) consumed(hook func(point string) (crash bool), messages ...pipeline.Message) {
	w.t.Helper()
	p := w.provider("consumer")
	follow := New(p, "group")
	must := func(err error) {
		if err != nil {
			w.t.Helper()
			w.t.Fatal(err)
		}
	}
	ctx, crash := context.WithCancel(w.t.Context())
	defer crash()
	book, err := purserledger.Open(ctx, purserledger.Options{
		Path: w.path, Environment: purserledger.Environment{APIHost: "partner", APIKeyID: w.creds.APIKey}, Now: time.Now,
	})
	must(err)
	key, err := httpsig.ParsePrivateKey(w.creds.PrivateKeyPEM)
	must(err)
	clock := client.NewClock(time.Now, 2*time.Second)
	sign, err := httpsig.NewSigner(key, httpsig.Options{KeyID: w.creds.KeyID, Now: clock.Created, Components: []string{
		"@method", "@authority", "@path", "authorization", "content-type", "content-digest", "idempotency-key"}})
	must(err)
	api, err := client.New(client.Config{
		BaseURL: w.url + "/v1", APIKey: w.creds.APIKey, APISecret: w.creds.APISecret, Sign: sign, Clock: clock,
		RateLimiter: client.NewRateLimiter(1000), Around: follow.Around,
	})
	must(err)
	host := strings.TrimPrefix(w.url, "http://")
	keys := signer.Verified(signertest.NewMemory(signertest.Key(1)))
	limits := onboard.DefaultLimits()
	limits.RetryMin, limits.RetryMax = time.Millisecond, time.Millisecond
	worker, err := onboard.New(onboard.Options{
		API: api, Signer: follow.Signer(keys, "memory"), Ledger: follow.Ledger(book),
		Keyring: pipeline.Keyring{APIHost: "partner", APIKeyID: w.creds.APIKey}, Limits: limits,
		Encoding: client.EncodingHex, Now: time.Now,
		Policy: func(a pipeline.Account) siwe.Policy {
			return siwe.Policy{Domain: host, ChainID: a.Chain, Address: a.Address, MaxAge: time.Hour, Skew: time.Minute,
				AnyStatement: true, AllowHTTP: true, Now: time.Now}
		},
		Hook: func(point string) {
			if hook != nil && hook(point) {
				crash()
			}
		},
	})
	must(err)
	halted, acked := make(chan error, 1), make(chan struct{}, len(messages))
	d, err := dispatch.New(dispatch.Options{
		Worker: worker, DeadLetters: &kept{}, DeadLetterTopic: "dead", Concurrency: 1, SignerConcurrency: 1,
		Logger: slog.New(slog.DiscardHandler), OnHalt: func(err error) { halted <- err }, Trace: follow.Rows(),
	})
	must(err)
	d.Start(ctx)
	must(d.Take(ctx, messages, func(pipeline.Message) { acked <- struct{}{} }))
	select {
	case <-acked:
	case <-ctx.Done():
	case err := <-halted:
		w.t.Fatalf("got halt %v, want the row settled", err)
	}
	d.Close()
	d.Release(context.WithoutCancel(ctx), 0)
	api.Close()
	must(book.Close())
	p.Close(w.t.Context())
}

// spans are those of a test.
type spans []tracetest.SpanStub

func (s spans) named(name string) spans {
	return slices.DeleteFunc(slices.Clone(s), func(span tracetest.SpanStub) bool { return span.Name != name })
}

// tree is the names of the spans below a parent, in the order in which they began, indented.
func (s spans) tree(parent trace.SpanID, indent string, out *strings.Builder) {
	var below spans
	for _, span := range s {
		if span.Parent.SpanID() == parent {
			below = append(below, span)
		}
	}
	slices.SortFunc(below, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	for _, span := range below {
		out.WriteString(indent + span.Name)
		if span.Status.Code == codes.Error {
			for _, a := range span.Attributes {
				if a.Key == "error.type" {
					out.WriteString(" ! " + a.Value.AsString())
				}
			}
		}
		out.WriteByte('\n')
		s.tree(span.SpanContext.SpanID(), indent+"  ", out)
	}
}

func (s spans) String() string {
	var out strings.Builder
	s.tree(trace.SpanID{}, "", &out)
	return out.String()
}

// of returns the spans of a trace.
func (s spans) of(id trace.TraceID) spans {
	return slices.DeleteFunc(slices.Clone(s), func(span tracetest.SpanStub) bool {
		return span.SpanContext.TraceID() != id
	})
}

func wantTree(t *testing.T, got spans, want string) {
	t.Helper()
	if want = strings.TrimPrefix(want, "\n"); got.String() != want {
		t.Errorf("got the spans\n%swant\n%s", got, want)
	}
}

func attributes(span tracetest.SpanStub) map[attribute.Key]string {
	all := map[attribute.Key]string{}
	for _, a := range span.Attributes {
		all[a.Key] = a.Value.String()
	}
	return all
}

// failFirst answers the first submissions itself, with 500.
func failFirst(n int64) func(http.Handler) http.Handler {
	var asked atomic.Int64
	return func(partner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Traceparent") != "" || r.Header.Get("Baggage") != "" {
				w.WriteHeader(http.StatusTeapot) // the partner does not learn of our traces
				return
			}
			if strings.HasSuffix(r.URL.Path, "/challenge/sign") && asked.Add(1) <= n {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			partner.ServeHTTP(w, r)
		})
	}
}

// TestTraceOfARow: one trace from the importer's message through every action, request, signature and change of the
// ledger, also when a request is sent again.
func TestTraceOfARow(t *testing.T) {
	w := newWorld(t, failFirst(1))
	m := w.imported()
	w.consumed(nil, m)
	all := spans(w.spans.GetSpans())
	root := all.named("create work")[0]
	wantTree(t, all.of(root.SpanContext.TraceID()), `
create work
  process work
    create
      signer has key
      UPDATE rows
      POST /v1/auth/token
      POST /v1/customers
      UPDATE rows
    check
      UPDATE rows
    sign
      signer sign
      UPDATE rows
    submit
      POST /v1/customers/{id}/challenge/sign ! 500
      UPDATE rows
    read
      GET /v1/customers/{id}
      UPDATE rows
    re-key
      UPDATE rows
      POST /v1/customers/{id}/challenge/sign
      UPDATE rows
`)
	if got := m.Header("traceparent"); got != fmt.Sprintf("00-%s-%s-01", root.SpanContext.TraceID(), root.SpanContext.SpanID()) {
		t.Errorf("got header traceparent %q, want the context of %q", got, root.Name)
	}
	process := all.named("process work")[0]
	for _, want := range []struct {
		span tracetest.SpanStub
		kind trace.SpanKind
		all  string
	}{
		{root, trace.SpanKindProducer, "messaging.system=kafka messaging.operation.name=create " +
			"messaging.operation.type=create messaging.destination.name=work purser.import.id=import-1 " +
			"purser.row.file=export.csv purser.row.line=17"},
		{all.named("send work")[0], trace.SpanKindClient, "messaging.operation.type=send messaging.batch.message_count=1"},
		{process, trace.SpanKindConsumer, "messaging.operation.type=process messaging.consumer.group.name=group " +
			"messaging.destination.partition.id=0 messaging.kafka.offset=0 purser.row.line=17 purser.row.stage=onboarded " +
			"purser.row.settled=true"},
		{all.named("POST /v1/customers/{id}/challenge/sign")[1], trace.SpanKindClient, "http.request.method=POST " +
			"http.response.status_code=204 url.template=/v1/customers/{id}/challenge/sign server.address=127.0.0.1"},
		{all.named("UPDATE rows")[0], trace.SpanKindInternal, "db.system.name=sqlite db.operation.name=UPDATE"},
		{all.named("signer sign")[0], trace.SpanKindClient, "purser.signer=memory"},
	} {
		got := attributes(want.span)
		if want.span.SpanKind != want.kind {
			t.Errorf("%s: got kind %v, want %v", want.span.Name, want.span.SpanKind, want.kind)
		}
		for pair := range strings.FieldsSeq(want.all) {
			if name, value, _ := strings.Cut(pair, "="); got[attribute.Key(name)] != value {
				t.Errorf("%s: got %s=%q, want %q", want.span.Name, name, got[attribute.Key(name)], value)
			}
		}
	}
	// The conventions: who sends a batch links to the messages' contexts, and so does who processes one.
	for _, span := range append(all.named("send work"), process) {
		if len(span.Links) != 1 || span.Links[0].SpanContext.SpanID() != root.SpanContext.SpanID() {
			t.Errorf("%s: got links %v, want one to %v", span.Name, span.Links, root.SpanContext.SpanID())
		}
	}
	if send := all.named("send work")[0]; send.SpanContext.TraceID() == root.SpanContext.TraceID() || send.Parent.IsValid() {
		t.Errorf("send work: got the trace %v, want another than the row's", send.SpanContext.TraceID())
	}
}

// TestTraceOverACrash: a run that ends with a request unanswered, and the run that is given the message again, are in
// one trace.
func TestTraceOverACrash(t *testing.T) {
	w := newWorld(t, failFirst(0))
	m := w.imported()
	crashed := false
	w.consumed(func(point string) bool {
		crashed = crashed || point == "submit.before-send"
		return crashed
	}, m)
	w.consumed(nil, m)
	all := spans(w.spans.GetSpans())
	if roots := all.named("create work"); len(roots) != 1 {
		t.Fatalf("got %d traces of the row, want one", len(roots))
	}
	root := all.named("create work")[0].SpanContext
	runs := all.named("process work")
	if len(runs) != 2 || runs[0].Parent.SpanID() != root.SpanID() || runs[1].Parent.SpanID() != root.SpanID() {
		t.Fatalf("got %d spans of the row, want two below its message:\n%s", len(runs), all)
	}
	if a, b := attributes(runs[0]), attributes(runs[1]); a["purser.row.settled"] != "false" ||
		a["purser.row.stage"] != "submitting" || b["purser.row.settled"] != "true" || b["purser.row.stage"] != "onboarded" {
		t.Errorf("got %v, then %v; want the row given up in stage submitting, then settled", a, b)
	}
	if got := len(all.of(root.TraceID()).named("POST /v1/customers")); got != 1 {
		t.Errorf("got %d creations, want one", got)
	}
}

// TestFurtherMessages: another message of the row is a link, since a span has one parent; one without a context begins
// a trace; and one that is a dead letter is in the trace of its message.
func TestFurtherMessages(t *testing.T) {
	w := newWorld(t, failFirst(0))
	first, second := w.imported(), w.imported()
	second.Offset = 1
	bad := w.imported()
	bad.Offset, bad.Value = 2, []byte("{")
	w.consumed(nil, first, second, bad)
	all := spans(w.spans.GetSpans())
	runs, roots := all.named("process work"), all.named("create work")
	if len(runs) != 2 || len(roots) != 3 {
		t.Fatalf("got %d spans of rows and %d of messages, want 2 and 3", len(runs), len(roots))
	}
	dead, process := runs[0], runs[1]
	if len(process.Links) != 2 || process.Links[1].SpanContext.SpanID() != roots[1].SpanContext.SpanID() ||
		process.Parent.SpanID() != roots[0].SpanContext.SpanID() {
		t.Errorf("got parent %v and links %v, want the first message's, and the second's as a link",
			process.Parent.SpanID(), process.Links)
	}
	if got := attributes(dead); got["error.type"] != "syntax" || dead.Status.Code != codes.Error ||
		dead.Parent.SpanID() != roots[2].SpanContext.SpanID() {
		t.Errorf("got %v below %v, want a dead letter of class syntax in its message's trace", got, dead.Parent.SpanID())
	}
	before := len(all)
	w.path = filepath.Join(t.TempDir(), "another.db")
	first.Headers = nil
	w.consumed(nil, first)
	if root := spans(w.spans.GetSpans()[before:]).named("process work")[0]; root.Parent.IsValid() || len(root.Links) > 0 {
		t.Errorf("without a context: got parent %v and links %v, want a root", root.Parent, root.Links)
	}
}

// TestNoCustomerDataInTraces: without the setting, no span holds whose row it is; with it they do. No span holds a
// secret.
func TestNoCustomerDataInTraces(t *testing.T) {
	for _, customer := range []bool{false, true} {
		w := newWorld(t, failFirst(1))
		w.customer = customer
		w.consumed(nil, w.imported())
		var dump bytes.Buffer
		for _, span := range w.spans.GetSpans() {
			fmt.Fprintf(&dump, "%s %v %v %v %v %v\n", span.Name, span.Attributes, span.Events, span.Links, span.Status,
				span.Resource)
		}
		text := strings.ToLower(dump.String())
		for _, data := range []string{row().ExternalID, row().Account.String(), "0x"} {
			if got := strings.Contains(text, strings.ToLower(data)); got != customer {
				t.Errorf("customer data %v: got %q in the spans: %v, want %v", customer, data, got, customer)
			}
		}
		for _, secret := range []string{w.creds.APISecret, "bearer", "signature=", "nonce", "eyj"} {
			if strings.Contains(text, strings.ToLower(secret)) {
				t.Errorf("got %q in the spans, want no secret", secret)
			}
		}
	}
}

// TestErrorsStayWhatTheyAre: an error of the network gets through with its text and type, and the span has neither.
func TestErrorsStayWhatTheyAre(t *testing.T) {
	w := newWorld(t, failFirst(0))
	p := w.provider("consumer")
	cause := fmt.Errorf("malformed response %q", "eyJ-a-token")
	around := New(p, "group").Around(failing{err: cause})
	r := httptest.NewRequest(http.MethodGet, "https://partner.test/v1/customers/0199a0b0-0000-7000-8000-000000000000?cursor=x", nil)
	_, err := around.RoundTrip(r) //nolint:bodyclose // there is no response
	if !errors.Is(err, cause) || err.Error() != cause.Error() {
		t.Errorf("got %v, want the cause itself", err)
	}
	around = New(p, "group").Around(failing{body: cause})
	response, err := around.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(response.Body); !errors.Is(err, cause) || err.Error() != cause.Error() {
		t.Errorf("body: got %v, want the cause itself", err)
	}
	response.Body.Close()
	p.Close(t.Context())
	for _, span := range w.spans.GetSpans() {
		got := attributes(span)
		if span.Status.Code != codes.Error || span.Status.Description != "" || got["error.type"] != "_OTHER" ||
			got["url.full"] != "https://partner.test/v1/customers/{id}" {
			t.Errorf("got %v and %v, want an error without a text, and a URL without id and query", span.Status, got)
		}
	}
}

type failing struct{ err, body error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) {
	if f.err != nil {
		return nil, f.err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(failingReader(f))}, nil
}

type failingReader failing

func (f failingReader) Read([]byte) (int, error) { return 0, f.body }

// TestOff: without traces nothing is wrapped.
func TestOff(t *testing.T) {
	var p *tracing.Provider
	off := New(p, "group")
	keys := signertest.NewMemory()
	if off != nil || off.Rows() != nil || off.Signer(keys, "memory") != signer.Backend(keys) || off.Ledger(nil) != nil {
		t.Errorf("got %v, want what was given", off)
	}
	out := &kept{}
	if got := p.Publisher(out); got != pipeline.Publisher(out) {
		t.Errorf("got %v, want the publisher itself", got)
	}
	p.Close(t.Context())
}
