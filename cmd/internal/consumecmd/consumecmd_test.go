package consumecmd

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/purser-onboard/purser/cmd/internal/console"
)

// TestInterrupted: what a signal alone has ended is said to be interrupted; another error that came with it is kept.
func TestInterrupted(t *testing.T) {
	signal := errors.New("interrupted by terminated")
	soft, cancel := context.WithCancelCause(t.Context())
	cancel(signal)
	full := errors.New("the disk is full")
	for name, tt := range map[string]struct{ err, want error }{
		"the interruption":   {fmt.Errorf("backup b.db: %w", context.Canceled), signal},
		"and nothing joined": {fmt.Errorf("backup b.db: %w", errors.Join(context.Canceled, nil)), signal},
		"and another error":  {errors.Join(context.Canceled, full), full},
		"inside a list":      {errors.Join(errors.Join(context.Canceled, full), nil), full},
		"another error":      {full, full},
		"none":               {nil, nil},
	} {
		got := interrupted(soft, tt.err)
		if !errors.Is(got, tt.want) || errors.Is(tt.want, signal) != errors.Is(got, signal) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
		if errors.Is(tt.want, signal) && console.Code(got) != console.ExitUnfinished {
			t.Errorf("%s: got exit code %d, want %d", name, console.Code(got), console.ExitUnfinished)
		}
	}
	if err := interrupted(t.Context(), context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("without a signal: got %v, want the error", err)
	}
}
