package onboard_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
)

// TestRunbook: every class that is declared has a section in the runbook that begins with its advice and says what it means,
// what to look at, what to do, and what a replay does.
func TestRunbook(t *testing.T) {
	var classes []onboard.Class
	for _, file := range []string{"class.go", "advice.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			literal, ok := spec.Values[0].(*ast.BasicLit)
			if kind, named := spec.Type.(*ast.Ident); !ok || !named || kind.Name != "Class" {
				return true
			}
			value, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			classes = append(classes, onboard.Class(value))
			return true
		})
	}

	if len(classes) < 25 {
		t.Errorf("got the classes %v, want all that are declared", classes)
	}
	text, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, part := range strings.Split(string(text), "\n### ")[1:] {
		title, body, _ := strings.Cut(part, "\n")
		body, _, _ = strings.Cut(body, "\n## ")
		sections[title] = strings.Join(strings.Fields(body), " ")
	}
	quote := regexp.MustCompile(`(?:^| )> `)
	for _, class := range classes {
		section := strings.TrimPrefix(quote.ReplaceAllString(sections[string(class)], " "), " ")
		if class.Advice() == "" || !strings.HasPrefix(section, class.Advice()+" **Means.** ") {
			t.Errorf("runbook, %s: got %.200q, want it to begin with %q", class, section, class.Advice())
		}
		for _, want := range []string{"**Look at.**", "**Do.**", "**A replay**"} {
			if !strings.Contains(section, want) {
				t.Errorf("runbook, %s: got no %s, want it", class, want)
			}
		}
	}
}

func TestRunbookOfRows(t *testing.T) {
	for _, tt := range []struct {
		class string
		stage pipeline.Stage
		want  string
	}{
		{"no-key", pipeline.Failed, "docs/runbook.md#no-key"},
		{"", pipeline.Rejected, "docs/runbook.md#rejected"},
		{"", pipeline.Planned, ""},
		{"of a later version", pipeline.Failed, ""},
	} {
		if got := onboard.ClassOf(tt.class, tt.stage).Runbook(); got != tt.want {
			t.Errorf("class %q of %s: got %q, want %q", tt.class, tt.stage, got, tt.want)
		}
	}
}
