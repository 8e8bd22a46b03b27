package consumecmd

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/pipeline"
)

func TestChoice(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	row := func(stage pipeline.Stage, class, importID string, age time.Duration) pipeline.Record {
		return pipeline.Record{
			Row: pipeline.Row{ImportID: importID}, Stage: stage, Class: class, UpdatedAt: now.Add(-age),
		}
	}
	rows := []pipeline.Record{
		row(pipeline.Failed, "no-key", "a1", time.Hour),
		row(pipeline.Failed, "server-error", "b1", 48*time.Hour),
		row(pipeline.Conflict, "taken", "b2", time.Minute),
		row(pipeline.Rejected, "", "b2", time.Minute),
		row(pipeline.Signing, "", "b2", time.Minute),
	}
	for _, tt := range []struct {
		name string
		f    config.Failures
		want []int
	}{
		{"ended rows by default", config.Failures{}, []int{0, 1, 2, 3}},
		{"all", config.Failures{All: true}, []int{0, 1, 2, 3, 4}},
		{"a stage", config.Failures{Stage: []string{"conflict"}}, []int{2}},
		{"a stage on the way", config.Failures{Stage: []string{"signing", "failed"}}, []int{0, 1, 4}},
		{"a class", config.Failures{Class: []string{"no-key", "rejected"}}, []int{0, 3}},
		{"since", config.Failures{Since: "24h"}, []int{0, 2, 3}},
		{"a day", config.Failures{Since: "2026-11-27", All: true}, []int{0, 2, 3, 4}},
		{"an import", config.Failures{Import: "b1"}, []int{1}},
		{"the beginning of imports", config.Failures{Import: "b"}, []int{1, 2, 3}},
		{"two conditions", config.Failures{Import: "b", Since: "1h"}, []int{2, 3}},
		{"none", config.Failures{Import: "c"}, nil},
	} {
		c, err := choose(&tt.f, now)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var got []int
		for i := range rows {
			if c.has(&rows[i]) {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got rows %v, want %v", tt.name, got, tt.want)
		}
	}
	for want, f := range map[string]config.Failures{
		`--stage "failled": did you mean failed?`: {Stage: []string{"failled"}},
		`--stage "onboarded": want one of`:        {Stage: []string{"onboarded"}},
		`--class "no-keys": did you mean no-key?`: {Class: []string{"no-keys"}},
		`--since "soon": want a duration`:         {Since: "soon"},
	} {
		if _, err := choose(&f, now); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}
