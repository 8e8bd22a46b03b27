package metrics_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// read returns a file of the repository.
func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile("../" + path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// checkExpression: an expression asks for metrics that there are, and for stages that there are.
func checkExpression(t *testing.T, where, expression string) {
	t.Helper()
	n := newNight()
	m := busy(n)
	m.End(0, false)
	families := scrape(t, text(t, m))
	for _, name := range regexp.MustCompile(`purser_[a-z_]+`).FindAllString(expression, -1) {
		family := families[name]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && families[base] != nil {
				family = families[base]
			}
		}
		if family == nil {
			t.Errorf("%s: got %s, want a metric that there is", where, name)
		}
	}
	for _, found := range regexp.MustCompile(`stage=~?"([a-z|]+)"`).FindAllStringSubmatch(expression, -1) {
		for stage := range strings.SplitSeq(found[1], "|") {
			value(t, families, "purser_rows_total", "stage", stage)
		}
	}
}

// TestAlerts: each alert asks for metrics that there are, has a test, and a section that its runbook leads to.
func TestAlerts(t *testing.T) {
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr         string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "monitoring/alerts.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	document, tests := read(t, "docs/monitoring.md"), read(t, "monitoring/alerts_test.yaml")
	var names []string
	for _, r := range rules.Groups[0].Rules {
		names = append(names, r.Alert)
		checkExpression(t, r.Alert, r.Expr)
		if want := "docs/monitoring.md#" + strings.ToLower(r.Alert); r.Annotations["runbook"] != want {
			t.Errorf("%s: got runbook %s, want %s", r.Alert, r.Annotations["runbook"], want)
		}
		if !slices.Contains([]string{"critical", "warning"}, r.Labels["severity"]) || r.Annotations["summary"] == "" {
			t.Errorf("%s: got labels %v and annotations %v, want severity and summary", r.Alert, r.Labels, r.Annotations)
		}
		fires := regexp.MustCompile(`alertname: ` + r.Alert + `\n +eval_time: \S+\n +exp_alerts:`)
		if !fires.MatchString(tests) {
			t.Errorf("%s: got no test in which it fires, want one", r.Alert)
		}
	}
	var sections []string
	for _, found := range regexp.MustCompile(`(?m)^### (Purser\w+)$`).FindAllStringSubmatch(document, -1) {
		sections = append(sections, found[1])
	}
	if !slices.Equal(sections, names) {
		t.Errorf("docs/monitoring.md: got sections %v, want one for each alert, %v", sections, names)
	}
}

// TestDashboard: each expression asks for metrics that there are, each metric is shown, and no two panels are in one
// place. Whether the expressions have data is what `make test-observability` finds out.
func TestDashboard(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	raw := read(t, "monitoring/dashboard.json")
	if err := json.Unmarshal([]byte(raw), &dashboard); err != nil {
		t.Fatal(err)
	}
	ids, places := make(map[int]string), make(map[[2]int]string)
	for _, p := range dashboard.Panels {
		if ids[p.ID] != "" {
			t.Errorf("%s: got id %d, which %s has, want another", p.Title, p.ID, ids[p.ID])
		}
		ids[p.ID] = p.Title
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if places[[2]int{x, y}] != "" || x >= 24 {
					t.Fatalf("%s: got it at column %d, row %d, where %q is, want a free place", p.Title, x, y, places[[2]int{x, y}])
				}
				places[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			checkExpression(t, p.Title, target.Expr)
		}
	}
	n := newNight()
	m := busy(n)
	m.End(0, false)
	for name := range scrape(t, text(t, m)) {
		if !strings.Contains(raw, name) {
			t.Errorf("got no panel with %s, want one", name)
		}
	}
}
