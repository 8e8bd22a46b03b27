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

// TestProgram: what is recorded names the version of the package, or else the revision of the source.
func TestProgram(t *testing.T) {
	clone := &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}}}
	for _, tt := range []struct {
		release string
		info    *debug.BuildInfo
		want    string
	}{
		{"0.3.0+git1", clone, "purser 0.3.0+git1"},
		{"", clone, "purser " + Version + " (revision 0123456789ab)"},
		{"", nil, "purser " + Version},
	} {
		if got := programText(tt.release, tt.info); got != tt.want {
			t.Errorf("release %q: got %q, want %q", tt.release, got, tt.want)
		}
	}
}
