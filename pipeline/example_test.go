package pipeline_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// A 409 is a question: the customer is looked up. What the look-up finds decides.
func ExampleDecide() {
	now := time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)
	for _, outcome := range []pipeline.Outcome{pipeline.Conflicting, pipeline.Initiating, pipeline.Past, pipeline.Other} {
		d := pipeline.Decide(pipeline.Situation{
			Stage: pipeline.Creating, Outcome: outcome, Now: now,
			KeyFirst: now.Add(-time.Minute), KeyOutcome: pipeline.KeyOpen, Attempts: 1,
		}, pipeline.DefaultLimits())
		fmt.Printf("%s: %s, then %s\n", outcome, d.Stage, d.Do)
	}
	// Output:
	// 409: creating, then look up
	// initiating: challenged, then fetch
	// past: onboarded, then settle
	// other: conflict, then settle
}

// An export is read record by record; each is a row or a reject that says why.
func ExampleExport() {
	export, err := pipeline.NewExport(strings.NewReader(`address,externalId
0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed,c-1
0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe,c-2
`), "export.csv", 300, ',', "import-1")
	if err != nil {
		fmt.Println(err)
		return
	}
	for {
		row, reject, err := export.Next()
		switch {
		case err != nil:
			fmt.Println(err)
			return
		case reject != nil:
			fmt.Printf("line %d, %s: %s\n", reject.Line, reject.Field, reject.Reason)
		default:
			fmt.Printf("line %d: %s is %s\n", row.Line, row.Account, row.ExternalID)
		}
	}
	// Output:
	// line 2: eip155:300:0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed is c-1
	// line 3, address: address has 39 hex digits, want 40
	// EOF
}
