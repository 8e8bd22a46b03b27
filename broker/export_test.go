package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kfake"
)

// DiscardRead is what an embedded broker does every minute.
func (e *Embedded) DiscardRead(ctx context.Context, topic string) error {
	return e.discardRead(ctx, topic)
}

// Fault makes an embedded broker answer with errors.
func (e *Embedded) Fault(f kfake.Fault) *kfake.FaultHandle { return e.broker.Fault(f) }
