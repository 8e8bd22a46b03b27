package onboard

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/pipeline"
)

var update = flag.Bool("update", false, "write docs/state-machine.md from the decision table")

// TestStateMachineDocument compares docs/state-machine.md with the decision table. Run with -update after a change of
// the table.
func TestStateMachineDocument(t *testing.T) {
	const path = "../../docs/state-machine.md"
	want := stateMachineDocument()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s: got %d bytes that differ from the decision table, want its %d; "+
			"run go test ./pipeline/onboard -run StateMachine -update", path, len(got), len(want))
	}
}

func stateMachineDocument() string {
	var b strings.Builder
	b.WriteString(`# The state machine of a row

Generated from the decision table (pipeline/onboard/table.go) by a test; do not edit.

Each action for a row (a request, a signature, a look-up) has an outcome. The row's stage and the outcome select the
branches below. The first branch whose condition holds decides the row's next stage, its next action, and what is known
of the idempotency key. The decision is durable before the next action begins. "wait" is a wait for the backoff or the
partner's Retry-After, whichever is longer. "next" is the action that the stage requires:

| stage | next action |
|---|---|
| planned | create; after an earlier import: read the customer it created, or look up, re-key or create under its key |
| creating | create under the same key while the key is fresh, neither foreign nor answered; otherwise look up |
| challenged | check the challenge while it is fresh; otherwise fetch |
| signing | sign |
| submitting | submit the same signature under the same key while the key is fresh, open and not foreign; otherwise read |

`)
	b.WriteString("```mermaid\nstateDiagram-v2\n    [*] --> planned: a new row\n")
	for _, s := range pipeline.Stages() {
		arrows := map[pipeline.Stage][]string{}
		for _, o := range outcomes() {
			for _, branch := range cell(s, o) {
				next := branch.Then.Stage
				if next == "" || next == s {
					continue
				}
				label := string(o)
				if n := len(arrows[next]); n == 0 || arrows[next][n-1] != label {
					arrows[next] = append(arrows[next], label)
				}
			}
		}
		if s == pipeline.Planned {
			arrows[pipeline.Creating] = append([]string{"key recorded"}, arrows[pipeline.Creating]...)
		}
		for _, next := range pipeline.Stages() {
			if labels := arrows[next]; len(labels) > 0 {
				fmt.Fprintf(&b, "    %s --> %s: %s\n", s, next, strings.Join(labels, ", "))
			}
		}
		if s.Retryable() {
			fmt.Fprintf(&b, "    %s --> planned: a new import\n", s)
		}
		if s == pipeline.Onboarded || s == pipeline.Rejected {
			fmt.Fprintf(&b, "    %s --> [*]\n", s)
		}
	}
	b.WriteString("```\n")
	for _, s := range pipeline.Stages() {
		if s.Terminal() {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n| outcome | if | stage | next | key |\n|---|---|---|---|---|\n", s)
		for _, o := range outcomes() {
			for i, branch := range cell(s, o) {
				name := ""
				if i == 0 {
					name = string(o)
				}
				d := branch.Then
				next := d.Stage
				if next == "" {
					next = s
				}
				stage := string(next)
				if d.Class != "" {
					stage += " (" + string(d.Class) + ")"
				}
				action := string(d.Do)
				if d.Wait {
					action = "wait, " + action
				}
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, branch.When, stage, action, d.Key)
			}
		}
	}
	return b.String()
}
