package consumecmd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/pipeline/results"
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

// TestMaskReason: the ids of runs are shown, others are masked.
func TestMaskReason(t *testing.T) {
	const one, other, id = "01a21ee3-e731-74fe-9739-6a6556b2b150", "01a21ee3-ea01-78f7-acbc-0e52fd7d8367",
		"11111111-2222-3333-4444-555555555555"
	reason := "run " + one + " of 2026-11-27 21:23Z left 1 failed row, and run " + other + " of 2026-11-27 20:00Z left 1; " + id
	got := maskReason(results.Report{Repeats: one, Reason: reason})
	if !strings.Contains(got, one) || !strings.Contains(got, other) || strings.Contains(got, id) {
		t.Errorf("got %s, want the ids of both runs, and no other", got)
	}
	if got := maskReason(results.Report{Reason: reason}); strings.Contains(got, one) {
		t.Errorf("of a run that repeats none: got %s, want all ids masked", got)
	}
}
