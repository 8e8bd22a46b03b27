package broker

import "context"

// DiscardRead is what an embedded broker does every minute.
func (e *Embedded) DiscardRead(ctx context.Context, topic string) error {
	return e.discardRead(ctx, topic)
}
