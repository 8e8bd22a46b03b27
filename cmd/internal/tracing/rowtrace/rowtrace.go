// Package rowtrace creates the consumer's spans: one for each row from when it is taken, in its message's trace, and
// below it one for each action, request, signature and change of the ledger.
package rowtrace

import (
	"context"
	"errors"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/purser-onboard/purser/cmd/internal/tracing"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/dispatch"
	"github.com/purser-onboard/purser/pipeline/onboard"
)

// Tracer implements dispatch.Tracer. A nil Tracer creates no spans; its other methods then return their argument.
type Tracer struct {
	*tracing.Provider
	tracer trace.Tracer
	group  string
}

// New returns the tracer of a consumer of a group; nil with a nil provider.
func New(p *tracing.Provider, group string) *Tracer {
	if p == nil {
		return nil
	}
	return &Tracer{Provider: p, tracer: p.Tracer(), group: group}
}

// Rows returns the tracer of rows, or nil.
func (t *Tracer) Rows() dispatch.Tracer {
	if t == nil {
		return nil // a nil interface, which the dispatcher takes for none
	}
	return t
}

// Begin implements dispatch.Tracer. As in the messaging conventions for a single message, the span's parent is the
// message's creation context, to which it links, too. Without such a context the row has a trace of its own.
func (t *Tracer) Begin(m pipeline.Message, r pipeline.Record) dispatch.RowTrace {
	row := &rowTrace{Tracer: t}
	row.ctx, row.span = t.process(m)
	if row.span.IsRecording() {
		row.span.SetAttributes(attribute.Int64("purser.row.id", r.ID))
		row.span.SetAttributes(t.Row(r.Row)...)
		row.describe(row.span, r)
	}
	return row
}

// DeadLetter implements dispatch.Tracer.
func (t *Tracer) DeadLetter(m pipeline.Message, cause error) {
	_, span := t.process(m)
	defer span.End()
	class := semconv.ErrorTypeOther
	var failure *pipeline.MessageError
	if errors.As(cause, &failure) {
		class = semconv.ErrorTypeKey.String(failure.Class)
	}
	span.SetAttributes(class, attribute.Bool("purser.dead_letter", true))
	span.SetStatus(codes.Error, "")
}

func (t *Tracer) process(m pipeline.Message) (context.Context, trace.Span) {
	ctx := tracing.CreationContext(context.Background(), m)
	options := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(append(tracing.Messaging("process", m.Topic), semconv.MessagingOperationTypeProcess)...),
	}
	if created := trace.SpanContextFromContext(ctx); created.IsValid() {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: created}))
	}
	ctx, span := t.tracer.Start(ctx, "process "+m.Topic, options...)
	if span.IsRecording() {
		span.SetAttributes(place(m)...)
		span.SetAttributes(semconv.MessagingConsumerGroupName(t.group), semconv.MessagingMessageBodySize(len(m.Value)))
		if t.CustomerData {
			span.SetAttributes(semconv.MessagingKafkaMessageKey(string(m.Key)))
		}
	}
	return ctx, span
}

// rowTrace implements dispatch.RowTrace.
type rowTrace struct {
	*Tracer
	ctx  context.Context
	span trace.Span
}

// Join implements dispatch.RowTrace: a further message has a trace of its own, to which the row's span links.
func (r *rowTrace) Join(m pipeline.Message) {
	created := trace.SpanContextFromContext(tracing.CreationContext(context.Background(), m))
	if created.IsValid() {
		r.span.AddLink(trace.Link{SpanContext: created, Attributes: place(m)})
	}
}

// Action implements dispatch.RowTrace.
func (r *rowTrace) Action(ctx context.Context, t *onboard.Task) (context.Context, func(onboard.Disposition, error)) {
	action := string(t.Action)
	ctx, span := r.tracer.Start(trace.ContextWithSpan(ctx, r.span), action,
		trace.WithAttributes(attribute.String("purser.action", action)))
	return ctx, func(d onboard.Disposition, err error) {
		defer span.End()
		if !span.IsRecording() {
			return
		}
		r.describe(span, t.Record)
		if d.After > 0 {
			span.SetAttributes(attribute.Float64("purser.retry.after", d.After.Seconds()))
		}
		switch {
		case errors.Is(err, pipeline.ErrFenced), errors.Is(err, pipeline.ErrStale), errors.Is(err, context.Canceled):
			span.SetAttributes(attribute.Bool("purser.interrupted", true))
		case err != nil:
			fail(span, semconv.ErrorTypeOther)
		case t.Stage.Terminal() && t.Class != "":
			fail(span, semconv.ErrorTypeKey.String(t.Class))
		}
	}
}

// End implements dispatch.RowTrace.
func (r *rowTrace) End(rec pipeline.Record) {
	defer r.span.End()
	if !r.span.IsRecording() {
		return
	}
	r.describe(r.span, rec)
	r.span.SetAttributes(attribute.Bool("purser.row.settled", rec.Stage.Terminal()))
	if rec.Stage.Terminal() && rec.Stage != pipeline.Onboarded {
		class := rec.Class
		if class == "" {
			class = string(rec.Stage)
		}
		fail(r.span, semconv.ErrorTypeKey.String(class))
	}
}

// describe sets what is known of a row: its stage, the class of what it struggles with, its attempts. The reason may
// quote the partner, and is customer data.
func (t *Tracer) describe(span trace.Span, r pipeline.Record) {
	span.SetAttributes(attribute.String("purser.row.stage", string(r.Stage)))
	if r.Class != "" {
		span.SetAttributes(attribute.String("purser.row.class", r.Class))
	}
	if r.Attempts > 0 {
		span.SetAttributes(attribute.Int("purser.row.attempts", r.Attempts))
	}
	if !t.CustomerData {
		return
	}
	if r.CustomerID != "" {
		span.SetAttributes(attribute.String("purser.customer.id", r.CustomerID))
	}
	if r.Reason != "" {
		span.SetAttributes(attribute.String("purser.row.reason", r.Reason))
	}
}

// fail marks a span. A description would be the text of an error, which may quote anything.
func fail(span trace.Span, class attribute.KeyValue) {
	span.SetAttributes(class)
	span.SetStatus(codes.Error, "")
}

// errorType is the attribute error.type of a span that failed with an error.
type errorType struct {
	err  error
	name string
}

// failAs marks a span as failed unless err is nil. Its error.type is the first of those whose error err wraps.
func failAs(span trace.Span, err error, types ...errorType) {
	if err == nil {
		return
	}
	class := semconv.ErrorTypeOther
	if i := slices.IndexFunc(types, func(t errorType) bool { return errors.Is(err, t.err) }); i >= 0 {
		class = semconv.ErrorTypeKey.String(types[i].name)
	}
	fail(span, class)
}

// place says where a message lies.
func place(m pipeline.Message) []attribute.KeyValue {
	return []attribute.KeyValue{
		semconv.MessagingDestinationPartitionID(partition(m)), semconv.MessagingKafkaOffset(int(m.Offset)),
	}
}
