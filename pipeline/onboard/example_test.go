package onboard_test

import (
	"fmt"
	"time"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
)

// A 409 is a question: the customer is looked up. What the look-up finds decides.
func ExampleDecide() {
	now := time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)
	for _, outcome := range []onboard.Outcome{onboard.Conflicting, onboard.Initiating, onboard.Past, onboard.Other} {
		d := onboard.Decide(onboard.Situation{
			Stage: pipeline.Creating, Outcome: outcome, Now: now,
			KeyFirst: now.Add(-time.Minute), KeyOutcome: pipeline.KeyOpen, Attempts: 1,
		}, onboard.DefaultLimits())
		fmt.Printf("%s: %s, then %s\n", outcome, d.Stage, d.Do)
	}
	// Output:
	// 409: creating, then look up
	// initiating: challenged, then fetch
	// past: onboarded, then settle
	// other: conflict, then settle
}
