package tracing

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/purser-onboard/purser/pipeline"
)

// mostLinks bounds the links of one span; it is the SDK's own limit, by default.
const mostLinks = 128

// carrier is a message whose headers carry a context (W3C Trace Context, header traceparent).
type carrier struct{ *pipeline.Message }

func (c carrier) Get(key string) string { return c.Header(key) }

func (c carrier) Set(key, value string) {
	c.Headers = append(slices.DeleteFunc(slices.Clone(c.Headers), func(h pipeline.Header) bool { return h.Key == key }),
		pipeline.Header{Key: key, Value: []byte(value)})
}

func (c carrier) Keys() []string {
	keys := make([]string, len(c.Headers))
	for i, h := range c.Headers {
		keys[i] = h.Key
	}
	return keys
}

// CreationContext returns ctx with the context that a message carries, if it carries a valid one.
func CreationContext(ctx context.Context, m pipeline.Message) context.Context {
	return propagation.TraceContext{}.Extract(ctx, carrier{&m})
}

// Publisher returns a publisher that begins a trace for each message, and writes its context into the message's
// headers. A nil Provider returns next.
func (p *Provider) Publisher(next pipeline.Publisher) pipeline.Publisher {
	if p == nil {
		return next
	}
	return publisher{next, p, p.Tracer()}
}

type publisher struct {
	pipeline.Publisher
	*Provider
	tracer trace.Tracer
}

// Publish implements pipeline.Publisher. A span "create" for each message is the root of its row's trace; a span "send"
// for the batch links to them, as far as a span can have links.
func (p publisher) Publish(ctx context.Context, topic string, messages []pipeline.Message) error {
	var links []trace.Link
	for i := range messages {
		of := p.create(ctx, topic, &messages[i])
		if len(links) < mostLinks && of.IsSampled() {
			links = append(links, trace.Link{SpanContext: of})
		}
	}
	ctx, span := p.tracer.Start(ctx, "send "+topic, trace.WithSpanKind(trace.SpanKindClient), trace.WithLinks(links...),
		trace.WithAttributes(append(Messaging("send", topic), semconv.MessagingOperationTypeSend,
			semconv.MessagingBatchMessageCount(len(messages)))...))
	defer span.End()
	err := p.Publisher.Publish(ctx, topic, messages)
	if err != nil {
		span.SetAttributes(semconv.ErrorTypeOther)
		span.SetStatus(codes.Error, "")
	}
	return err
}

func (p publisher) create(ctx context.Context, topic string, m *pipeline.Message) trace.SpanContext {
	ctx, span := p.tracer.Start(ctx, "create "+topic, trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(append(Messaging("create", topic), semconv.MessagingOperationTypeCreate)...))
	defer span.End()
	if span.IsRecording() {
		span.SetAttributes(semconv.MessagingMessageBodySize(len(m.Value)))
		if row, err := pipeline.ParseMessage(m.Value); err == nil {
			span.SetAttributes(p.Row(row)...)
		}
		if p.CustomerData {
			span.SetAttributes(semconv.MessagingKafkaMessageKey(string(m.Key)))
		}
	}
	propagation.TraceContext{}.Inject(ctx, carrier{m})
	return span.SpanContext()
}

// Messaging returns the attributes that all spans about messages have.
func Messaging(operation, topic string) []attribute.KeyValue {
	return []attribute.KeyValue{
		semconv.MessagingSystemKafka, semconv.MessagingOperationName(operation), semconv.MessagingDestinationName(topic),
	}
}
