// Package tracing creates traces with OpenTelemetry, for importer and consumer: it exports spans, and gives each
// published message a context, so that a row has one trace from the importer to its end. Package rowtrace has the
// consumer's spans.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/purser-onboard/purser/pipeline"
)

// Bounds of exporting.
const (
	// queueSize is how many spans wait for the exporter, unless $OTEL_BSP_MAX_QUEUE_SIZE says otherwise; what does not fit
	// is dropped. It is a few seconds of a consumer at a thousand requests a second.
	queueSize = 16_384
	// closePatience is how long the last spans may take.
	closePatience = 5 * time.Second
	// stoppedPatience is the same after a hard stop.
	stoppedPatience = time.Second
)

// Options configure a Provider.
type Options struct {
	Exporter     string    // "otlp", as the variables of OpenTelemetry say, or "console"
	Service      string    // name of the service, unless a variable names another
	Version      string    // of the service
	Instance     string    // id of the run or the import
	CustomerData bool      // accounts, externalIds and the like become attributes
	Console      io.Writer // of "console"
	Logger       *slog.Logger

	To sdktrace.SpanExporter // where Exporter is empty
}

// Provider creates spans. The methods of a nil Provider may be called; it creates none.
type Provider struct {
	Options
	sdk  *sdktrace.TracerProvider
	sent *counted
}

// Open returns a Provider that must be closed. It sends nothing yet.
func Open(ctx context.Context, o Options) (*Provider, error) {
	exporter := o.To
	var err error
	switch o.Exporter {
	case "otlp":
		adoptLogs(o.Logger)
		exporter, err = otlptracehttp.New(ctx)
	case "console":
		adoptLogs(o.Logger)
		exporter, err = stdouttrace.New(stdouttrace.WithWriter(o.Console))
	}
	if err != nil {
		return nil, fmt.Errorf("traces: %w", reason(err))
	}
	described, err := resource.New(ctx,
		resource.WithSchemaURL(semconv.SchemaURL), resource.WithHost(), resource.WithTelemetrySDK(),
		resource.WithAttributes(semconv.ServiceName(o.Service), semconv.ServiceVersion(o.Version),
			semconv.ServiceInstanceID(o.Instance)),
		resource.WithFromEnv(),
	)
	if err != nil && described == nil {
		return nil, fmt.Errorf("traces: describe the service: %w", err)
	}
	p := &Provider{Options: o, sent: &counted{SpanExporter: exporter, log: o.Logger}}
	var batching []sdktrace.BatchSpanProcessorOption
	if os.Getenv("OTEL_BSP_MAX_QUEUE_SIZE") == "" {
		batching = append(batching, sdktrace.WithMaxQueueSize(queueSize))
	}
	p.sdk = sdktrace.NewTracerProvider(sdktrace.WithResource(described),
		sdktrace.WithSpanProcessor(ended{p.sent}), sdktrace.WithBatcher(p.sent, batching...))
	return p, nil
}

// Close exports the remaining spans, for at most five seconds, or one when ctx has ended. Lost spans are a warning.
func (p *Provider) Close(ctx context.Context) {
	if p == nil {
		return
	}
	patience := closePatience
	if ctx.Err() != nil {
		patience = stoppedPatience
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	err := p.sdk.Shutdown(ctx)
	if lost := p.sent.ended.Load() - p.sent.exported.Load(); lost > 0 {
		p.Logger.Warn("spans of traces were not exported", "spans", lost, "of", p.sent.ended.Load(),
			"error", cmpErr(p.sent.failure(), err))
	}
}

// cmpErr returns the first error, or why there is none.
func cmpErr(first, second error) error {
	switch {
	case first != nil:
		return first
	case second != nil:
		return reason(second)
	}
	return errors.New("they were created faster than they could be exported: sample them with $OTEL_TRACES_SAMPLER, or " +
		"raise $OTEL_BSP_MAX_QUEUE_SIZE")
}

// Tracer returns the tracer for the spans of Purser's own code.
func (p *Provider) Tracer() trace.Tracer {
	return p.sdk.Tracer("github.com/purser-onboard/purser", trace.WithInstrumentationVersion(p.Version),
		trace.WithSchemaURL(semconv.SchemaURL))
}

// SDK returns the provider for the instrumentation of libraries.
func (p *Provider) SDK() trace.TracerProvider { return p.sdk }

// Row returns the attributes that identify a row: import, file and line, and with CustomerData its customer.
func (p *Provider) Row(r pipeline.Row) []attribute.KeyValue {
	list := []attribute.KeyValue{
		attribute.String("purser.import.id", r.ImportID), attribute.String("purser.row.file", r.File),
		attribute.Int("purser.row.line", r.Line),
	}
	if p.CustomerData {
		list = append(list, attribute.String("purser.row.account", r.Account.String()),
			attribute.String("purser.row.external_id", r.ExternalID))
	}
	return list
}

// counted is an exporter that counts, and whose failures are warnings.
type counted struct {
	sdktrace.SpanExporter
	log             *slog.Logger
	ended, exported atomic.Int64

	mu   sync.Mutex
	last error
}

// ExportSpans implements sdktrace.SpanExporter. It returns no error, which the SDK would write to standard error.
func (c *counted) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := c.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		c.exported.Add(int64(len(spans)))
		return nil
	}
	err = reason(err)
	c.mu.Lock()
	first := c.last == nil
	c.last = err
	c.mu.Unlock()
	if first {
		c.log.Warn("cannot export traces; the run continues without them", "error", err)
	}
	return nil
}

func (c *counted) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// ended counts the spans that the exporter should get.
type ended struct{ *counted }

func (e ended) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (e ended) ForceFlush(context.Context) error                { return nil }
func (e ended) Shutdown(context.Context) error                  { return nil }

func (e ended) OnEnd(s sdktrace.ReadOnlySpan) {
	if s.SpanContext().IsSampled() {
		e.counted.ended.Add(1)
	}
}

// status is what an exporter's error says of an answer.
var status = regexp.MustCompile(`\b[1-5][0-9]{2} [A-Z][A-Za-z' -]+`)

// reason is an exporter's error without the endpoint, the headers and what a server has sent, which may be secrets.
func reason(err error) error {
	var dial *net.OpError
	switch {
	case errors.As(err, &dial):
		return dial
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("there was no answer in time")
	case errors.Is(err, context.Canceled):
		return errors.New("the run has ended")
	}
	if answer := status.FindString(err.Error()); answer != "" {
		return errors.New("the answer is " + answer)
	}
	return errors.New("the export failed: see the variables $OTEL_EXPORTER_OTLP_…")
}

// adoptLogs has the libraries of OpenTelemetry log through the command's log. Both settings are the libraries' own
// globals. What they quote, headers among it, is left out.
func adoptLogs(log *slog.Logger) {
	otel.SetLogger(logr.FromSlogHandler(adopted{log}))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.Warn("OpenTelemetry reported an error", "error", reason(err))
	}))
}

type adopted struct{ log *slog.Logger }

func (a adopted) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }
func (a adopted) WithAttrs([]slog.Attr) slog.Handler           { return a }
func (a adopted) WithGroup(string) slog.Handler                { return a }

func (a adopted) Handle(_ context.Context, r slog.Record) error {
	a.log.Warn("OpenTelemetry cannot use an $OTEL_… variable", "problem", r.Message)
	return nil
}
