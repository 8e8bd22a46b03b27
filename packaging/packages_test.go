//go:build packages

package packaging_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// artefact is the file of a build with that ending.
func artefact(t testing.TB, variable, ending string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(os.Getenv(variable), "purser-*"+ending))
	if err != nil || len(found) != 1 {
		t.Fatalf("got %q, %v; want one file *%s in $%s (see .ci/packages)", found, err, ending, variable)
	}
	return found[0]
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: got %v, want exit code 0\n%s", name, args, err, out)
	}
	return string(out)
}

// TestReproducible: two builds of a commit in two directories give the same files.
func TestReproducible(t *testing.T) {
	for _, ending := range []string{"-amd64.deb", "-amd64.rpm", "-amd64.tar.gz", "-amd64.cdx.json", "-amd64.oci.tar",
		"-amd64.softhsm.oci.tar"} {
		first, second := artefact(t, "PURSER_DIST", ending), artefact(t, "PURSER_DIST_AGAIN", ending)
		got, _, _ := strings.Cut(run(t, "sha256sum", second), " ")
		if want, _, _ := strings.Cut(run(t, "sha256sum", first), " "); got != want {
			t.Errorf("%s: got digest %s, want %s, that of the first build", ending, got, want)
		}
	}
}

// TestLicences: each module that is linked has a licence of the list, for all modules or for this one.
func TestLicences(t *testing.T) {
	list, err := os.ReadFile("licences.txt")
	if err != nil {
		t.Fatal(err)
	}
	var allowed []string
	for line := range strings.Lines(string(list)) {
		line, _, _ = strings.Cut(line, "#")
		allowed = append(allowed, strings.TrimSpace(line))
	}
	for _, arch := range []string{"amd64", "arm64"} {
		content, err := os.ReadFile(artefact(t, "PURSER_DIST", "-"+arch+".cdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		var bom struct {
			Components []struct {
				Name     string
				Evidence struct {
					Licenses []struct{ License struct{ ID string } }
				}
			}
		}
		if err := json.Unmarshal(content, &bom); err != nil {
			t.Fatal(err)
		}
		if len(bom.Components) < 50 {
			t.Errorf("%s: got %d modules in the SBOM, want at least 50", arch, len(bom.Components))
		}
		for _, c := range bom.Components {
			if c.Name == "std" { // Go's own, BSD-3-Clause
				continue
			}
			if len(c.Evidence.Licenses) == 0 {
				t.Errorf("%s: got no licence of %s, want one of licences.txt", arch, c.Name)
			}
			for _, l := range c.Evidence.Licenses {
				if id := l.License.ID; !slices.Contains(allowed, id) && !slices.Contains(allowed, id+" "+c.Name) {
					t.Errorf("%s: got licence %q of %s, want one of licences.txt", arch, id, c.Name)
				}
			}
		}
	}
}

func TestLintian(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		run(t, "lintian", "--allow-root", "--fail-on", "error,warning", artefact(t, "PURSER_DIST", "-"+arch+".deb"))
	}
}

func TestRPM(t *testing.T) {
	rpm := artefact(t, "PURSER_DIST", "-arm64.rpm")
	got := run(t, "rpm", "--query", "--package", "--queryformat", "%{ARCH} %{LICENSE}", rpm)
	if got != "aarch64 Apache-2.0" {
		t.Errorf("got %q, want aarch64 Apache-2.0", got)
	}
	files := strings.Fields(run(t, "rpm", "--query", "--package", "--list", rpm))
	for _, want := range []string{
		"/etc/purser/purser.yaml", "/usr/bin/purser", "/usr/lib/systemd/system/purser-night.service",
		"/usr/lib/systemd/system/purser-night.timer", "/usr/share/doc/purser/THIRD_PARTY.gz",
	} {
		if !slices.Contains(files, want) {
			t.Errorf("got no %s in %q", want, files)
		}
	}
	got = run(t, "rpm", "--query", "--package", "--configfiles", rpm)
	if strings.TrimSpace(got) != "/etc/purser/purser.yaml" {
		t.Errorf("got configuration files %q, want /etc/purser/purser.yaml", got)
	}
}

var (
	exposure = regexp.MustCompile(`Overall exposure level for (\S+): ([0-9.]+)`)
	// installed is what runs in a clean root with the deb: dependencies come from Debian, and the main job runs as the
	// user that the package has made.
	installed = `set -eu
apt-get install -y -qq --no-install-recommends /purser.deb >/dev/null
stat -c '%a %U:%G %n' /etc/purser /etc/purser/purser /etc/purser/purser.yaml
stat -c '%a %U:%G %n' /var/lib/purser /var/lib/purser/purser/exports
cd /lib/systemd/system
systemd-analyze verify --man=no purser-*.service purser-*.timer
for unit in night night@bank import@srv-today.csv failure@purser-night.service; do
	systemd-analyze security --no-pager --offline=true "purser-$unit.service" | tail -n 1
done
cd /
runuser -u purser -- purser --version
runuser -u purser -- purser sandbox run /usr/share/doc/purser/examples/customers.csv 2>&1
apt-get purge -y -qq purser >/dev/null
test ! -e /usr/bin/purser && test -d /var/lib/purser/purser && echo purged`
)

func TestInstall(t *testing.T) {
	dir := t.TempDir()
	deb := filepath.Join(dir, "purser.deb")
	run(t, "cp", artefact(t, "PURSER_DIST", "-amd64.deb"), deb)
	script := filepath.Join(dir, "installed")
	if err := os.WriteFile(script, []byte(installed), 0o600); err != nil {
		t.Fatal(err)
	}
	got := run(t, "mmdebstrap", "--quiet", "--variant=apt", "--format=null",
		"--customize-hook=copy-in "+deb+" "+script+" /", "--customize-hook=chroot \"$1\" sh /installed",
		"bookworm", "/dev/null")
	t.Log(got)
	for _, want := range []string{
		"750 root:purser /etc/purser\n", "700 root:root /etc/purser/purser\n", "640 root:purser /etc/purser/purser.yaml\n",
		"750 purser:purser /var/lib/purser\n", "2770 purser:purser /var/lib/purser/purser/exports\n",
		"30 onboarded", "purged\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got no %q in the output above", want)
		}
	}
	levels := exposure.FindAllStringSubmatch(got, -1)
	if len(levels) != 4 {
		t.Errorf("got %d exposure levels, want 4", len(levels))
	}
	for _, l := range levels {
		if level, err := strconv.ParseFloat(l[2], 64); err != nil || level > 2.5 {
			t.Errorf("%s: got exposure %s, want at most 2.5", l[1], l[2])
		}
	}
}
