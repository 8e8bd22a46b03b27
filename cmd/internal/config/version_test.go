package config

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersionText(t *testing.T) {
	platform := " " + runtime.GOOS + "/" + runtime.GOARCH
	for name, tt := range map[string]struct {
		info *debug.BuildInfo
		want []string
	}{
		"without build information": {nil, []string{"purser " + Version, runtime.Version()}},
		"a release":                 {&debug.BuildInfo{GoVersion: "go1.26.8"}, []string{"purser " + Version, "go1.26.8" + platform}},
		"a modified clone": {&debug.BuildInfo{
			GoVersion: "go1.26.8",
			Settings:  []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}},
			Deps: []*debug.Module{
				{Path: "github.com/alecthomas/kong", Version: "v1"}, {Path: "github.com/mattn/go-sqlite3", Version: "v1.14.53"},
				{Path: "github.com/segmentio/kafka-go", Version: "v0.4.51"},
			},
		}, []string{
			"purser " + Version + " (revision 0123456789ab, modified)", "go1.26.8" + platform,
			"github.com/mattn/go-sqlite3 v1.14.53", "github.com/segmentio/kafka-go v0.4.51",
		}},
	} {
		if got, want := versionText(Version, tt.info), strings.Join(tt.want, "\n"); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

// TestProgram: what is recorded of a package names its version.
func TestProgram(t *testing.T) {
	defer func(before string) { release = before }(release)
	for given, want := range map[string]string{"": "purser " + Version, "0.3.0+git1": "purser 0.3.0+git1"} {
		release = given
		if got := Program(); got != want {
			t.Errorf("release %q: got %q, want %q", given, got, want)
		}
	}
}
