package importcmd

import (
	"maps"
	"testing"
)

func TestNamesOf(t *testing.T) {
	for name, want := range map[string]map[string]string{
		"apart":    {"/srv/a.csv": "a.csv", "b.csv": "b.csv", "-": "-"},
		"alike":    {"/srv/in/x.csv": "in/x.csv", "/srv/old/x.csv": "old/x.csv", "y.csv": "y.csv"},
		"longer":   {"/a/in/x.csv": "a/in/x.csv", "/b/in/x.csv": "b/in/x.csv", "/c/x.csv": "c/x.csv"},
		"within":   {"x.csv": "x.csv", "in/x.csv": "in/x.csv"},
		"the same": {"x.csv": "x.csv", "./x.csv": "x.csv"},
		"control":  {"a\nb.csv": `a\nb.csv`},
	} {
		var files []string
		for file := range want {
			files = append(files, file, file) // named twice
		}
		if got := namesOf(files); !maps.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
