package config

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// Version is the program's version.
const Version = "0.2.0"

// release is the version of the package that the program is in; packaging/snapshot sets it with -ldflags -X.
var release string //nolint:gochecknoglobals // the linker sets nothing else

// Program returns the name and version of this program for its records: in a package, the package's version; otherwise
// Version with the revision of the source, if it is known. Two builds of the same Version may know different schemas of
// the ledger, and the older one's error for a migrated ledger names the other one.
func Program() string {
	build, _ := debug.ReadBuildInfo()
	return programText(release, build)
}

func programText(release string, info *debug.BuildInfo) string {
	if release != "" {
		return "purser " + release
	}
	text, _, _ := strings.Cut(versionText(Version, info), "\n")
	return text
}

// VersionText returns the output of --version.
func VersionText() string {
	build, _ := debug.ReadBuildInfo() // nil if the binary has none
	return versionText(cmp.Or(release, Version), build)
}

// versionText is what --version prints: the version, the revision of the source it was built from and whether that was
// modified, as far as the build knows them, the version of Go, and those of the libraries that talk to Kafka and keep
// the ledger, as far as the command links them.
func versionText(version string, info *debug.BuildInfo) string {
	text := "purser " + version
	if info == nil {
		return text + "\n" + runtime.Version()
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if revision := settings["vcs.revision"]; revision != "" {
		text += fmt.Sprintf(" (revision %.12s", revision)
		if settings["vcs.modified"] == "true" {
			text += ", modified"
		}
		text += ")"
	}
	lines := []string{text, info.GoVersion + " " + runtime.GOOS + "/" + runtime.GOARCH}
	for _, m := range info.Deps {
		switch m.Path {
		case "github.com/segmentio/kafka-go", "github.com/twmb/franz-go/pkg/kfake", "github.com/mattn/go-sqlite3":
			if m.Replace != nil {
				m = m.Replace
			}
			lines = append(lines, m.Path+" "+m.Version)
		}
	}
	return strings.Join(lines, "\n")
}
