package rowtrace

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/google/uuid"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/signer"
)

func partition(m pipeline.Message) string { return strconv.Itoa(m.Partition) }

// Around wraps the transport of requests to the partner, for client.Config. Each attempt has a span, in which the
// customer's id is a placeholder, unless customer data is enabled. No header is added to requests to the partner.
func (t *Tracer) Around(next http.RoundTripper) http.RoundTripper {
	return plainErrors{otelhttp.NewTransport(described{next, t.CustomerData},
		otelhttp.WithTracerProvider(t.SDK()), otelhttp.WithMeterProvider(noop.NewMeterProvider()),
		otelhttp.WithPropagators(propagation.NewCompositeTextMapPropagator()),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method + " " + template(r) }),
	)}
}

// described corrects the attributes of otelhttp's span, below otelhttp. Its errors have no text: otelhttp would put it
// into the span, and net/http quotes what a server has sent.
type described struct {
	http.RoundTripper
	customerData bool
}

func (d described) RoundTrip(r *http.Request) (*http.Response, error) {
	span := trace.SpanFromContext(r.Context())
	span.SetAttributes(semconv.URLTemplate(template(r)))
	if !d.customerData {
		span.SetAttributes(semconv.URLFull(r.URL.Scheme + "://" + r.URL.Host + template(r)))
	}
	response, err := d.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, quietError{err}
	}
	response.Body = body{response.Body, quiet}
	return response, nil
}

// quietError is an error without a text.
type quietError struct{ error }

func (quietError) Error() string { return "" }

// ErrorType is what otelhttp takes for the attribute error.type.
func (e quietError) ErrorType() string {
	var network net.Error
	var operation *net.OpError
	switch {
	case errors.As(e.error, &network) && network.Timeout():
		return "timeout"
	case errors.Is(e.error, context.Canceled):
		return "canceled"
	case errors.As(e.error, &operation):
		return operation.Op
	}
	return semconv.ErrorTypeOther.Value.AsString()
}

func quiet(err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // the end of a body, which otelhttp recognises in the same way
		return err
	}
	return quietError{err}
}

func plain(err error) error {
	if silenced, ok := err.(quietError); ok { //nolint:errorlint // otelhttp returns it as it is
		return silenced.error
	}
	return err
}

// body is a response's body whose errors are turned into others.
type body struct {
	io.ReadCloser
	turn func(error) error
}

func (b body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	return n, b.turn(err)
}

// plainErrors gives the errors their texts back, above otelhttp.
type plainErrors struct{ http.RoundTripper }

func (p plainErrors) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := p.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, plain(err)
	}
	response.Body = body{response.Body, plain}
	return response, nil
}

// template is the path of a request with placeholders for ids.
func template(r *http.Request) string {
	parts := strings.Split(r.URL.Path, "/")
	for i, part := range parts {
		if len(part) == 36 && uuid.Validate(part) == nil {
			parts[i] = "{id}"
		}
	}
	return strings.Join(parts, "/")
}

// Ledger returns a ledger whose changes of rows have spans.
func (t *Tracer) Ledger(next pipeline.Ledger) pipeline.Ledger {
	if t == nil {
		return next
	}
	return ledger{next, t.tracer}
}

type ledger struct {
	pipeline.Ledger
	tracer trace.Tracer
}

// Update implements pipeline.Ledger. The span lasts until the change is durable.
func (l ledger) Update(ctx context.Context, next pipeline.Record) (int64, error) {
	ctx, span := l.tracer.Start(ctx, "UPDATE rows", trace.WithAttributes(
		semconv.DBSystemNameSQLite, semconv.DBOperationName("UPDATE"), semconv.DBCollectionName("rows"),
		attribute.String("purser.row.stage", string(next.Stage))))
	defer span.End()
	version, err := l.Ledger.Update(ctx, next)
	failAs(span, err, errorType{pipeline.ErrStale, "stale"}, errorType{pipeline.ErrFenced, "fenced"},
		errorType{pipeline.ErrNonceUsed, "nonce-used"})
	return version, err
}

// Signer returns a signer whose calls have spans. scheme is its URI's.
func (t *Tracer) Signer(next signer.Backend, scheme string) signer.Backend {
	if t == nil {
		return next
	}
	s := backend{next, t.tracer, scheme}
	if c, ok := next.(signer.Custodian); ok {
		return custodian{s, c}
	}
	return s
}

type backend struct {
	signer.Backend
	tracer trace.Tracer
	scheme string
}

func (s backend) call(ctx context.Context, name string) (context.Context, func(error)) {
	ctx, span := s.tracer.Start(ctx, "signer "+name, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("purser.signer", s.scheme)))
	return ctx, func(err error) {
		defer span.End()
		if errors.Is(err, signer.ErrPending) || errors.Is(err, signer.ErrUnknownRequest) {
			span.SetAttributes(attribute.Bool("purser.signer.pending", true))
			return
		}
		failAs(span, err, errorType{signer.ErrNoKey, "no-key"}, errorType{signer.ErrDeclined, "declined"},
			errorType{signer.ErrMismatch, "signer-mismatch"}, errorType{signer.ErrUnusable, "unusable"})
	}
}

func (s backend) SignMessage(ctx context.Context, a common.Address, message []byte) (signer.Signature, error) {
	ctx, end := s.call(ctx, "sign")
	signature, err := s.Backend.SignMessage(ctx, a, message)
	end(err)
	return signature, err
}

func (s backend) HasKey(ctx context.Context, a common.Address) error {
	ctx, end := s.call(ctx, "has key")
	err := s.Backend.HasKey(ctx, a)
	end(err)
	return err
}

type custodian struct {
	backend
	custodian signer.Custodian
}

func (c custodian) Request(ctx context.Context, id string, a common.Address, message []byte) error {
	ctx, end := c.call(ctx, "request")
	err := c.custodian.Request(ctx, id, a, message)
	end(err)
	return err
}

func (c custodian) Poll(ctx context.Context, id string, a common.Address, message []byte) (signer.Signature, error) {
	ctx, end := c.call(ctx, "poll")
	signature, err := c.custodian.Poll(ctx, id, a, message)
	end(err)
	return signature, err
}

func (c custodian) Cancel(ctx context.Context, id string) error {
	ctx, end := c.call(ctx, "cancel")
	err := c.custodian.Cancel(ctx, id)
	end(err)
	return err
}
