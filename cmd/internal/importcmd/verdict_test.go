package importcmd

import (
	"context"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/pipeline/csvimport"
)

// TestVerdictOfAStop: the broker may have rows that it has not acknowledged when a signal comes.
func TestVerdictOfAStop(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(console.ErrInterrupted)
	err := verdict(ctx, new(config.Importer), csvimport.ImportStats{Published: 3}, noticed{}, ctx.Err())
	if console.Code(err) != console.ExitUnfinished || !strings.Contains(err.Error(), "at least 3 rows are in the queue") {
		t.Errorf("got %v, want that at least 3 rows are in the queue, and exit code 1", err)
	}
}
