//go:build packages

package packaging_test

import (
	"archive/tar"
	"bufio"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"
)

// user is the uid and gid of the images; documents and manifests repeat it.
const user = 65532

// podman is Podman with a storage of its own.
type podman struct {
	t      testing.TB
	global []string
}

func newPodman(t *testing.T) podman {
	t.Helper()
	dir, err := os.MkdirTemp("", "purser-image-") //nolint:usetesting // podman limits the length of the path
	if err != nil {
		t.Fatal(err)
	}
	// runc and cgroupfs, because they work with control groups of any version.
	p := podman{t, []string{"--root", dir + "/storage", "--runroot", dir + "/run", "--storage-driver", "vfs",
		"--runtime", "runc", "--cgroup-manager", "cgroupfs"}}
	t.Cleanup(func() {
		out, err := exec.Command("podman", append(p.global, "rm", "--all", "--force", "--time", "0")...).CombinedOutput()
		if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
			t.Errorf("got %v, want all containers removed\n%s", err, out)
		}
	})
	return p
}

func (p podman) do(args ...string) string {
	p.t.Helper()
	return run(p.t, "podman", append(p.global, args...)...)
}

// load returns the name of the image in an archive of the first build.
func (p podman) load(ending string) string {
	p.t.Helper()
	out := p.do("load", "--quiet", "--input", artefact(p.t, "PURSER_DIST", ending))
	_, name, ok := strings.Cut(strings.TrimSpace(out), "Loaded image: ")
	if !ok {
		p.t.Fatalf("got %q, want the name of the image that was loaded", out)
	}
	return name
}

// hardened are the flags of a container that may do as little as docs/install.md says it needs.
func hardened(network string, more ...string) []string {
	return append([]string{"run", "--rm", "--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges",
		"--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096", "--network", network}, more...)
}

// start starts a container and returns when a line of its output has the text, with a function that waits for its end
// and returns its exit code and the rest of its output.
func (p podman) start(text string, args ...string) (wait func() (int, string)) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), "podman", append(p.global, args...)...)
	out, in, err := os.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = out.Close() })
	cmd.Stdout, cmd.Stderr = in, in
	if err := errors.Join(cmd.Start(), in.Close()); err != nil {
		p.t.Fatal(err)
	}
	lines, seen := bufio.NewReader(out), ""
	for !strings.Contains(seen, text) {
		line, err := lines.ReadString('\n')
		if seen += line; err != nil {
			p.t.Fatalf("%q: got %q and %v, want a line with %q", args, seen, err, text)
		}
	}
	return func() (int, string) {
		rest, err := io.ReadAll(lines)
		if exit := (*exec.ExitError)(nil); cmd.Wait() != nil && !errors.As(err, &exit) && err != nil {
			p.t.Errorf("%q: got %v, want all output", args, err)
		}
		return cmd.ProcessState.ExitCode(), string(rest)
	}
}

// TestImages: what the images promise in their configurations, and what is in them.
func TestImages(t *testing.T) {
	p := newPodman(t)
	for _, test := range []struct {
		ending      string
		programs    []string
		volumes     []string
		env         []string
		size, files int64 // limits in bytes: of the archive, of the files in it
	}{
		// Measured on 2026-11-27: 20.0 and 52 MB, 23.7 and 62 MB; arm64 is smaller.
		{"-amd64.oci.tar", nil, []string{"/data"}, nil, 24e6, 60e6},
		{"-arm64.oci.tar", nil, []string{"/data"}, nil, 24e6, 60e6},
		{"-amd64.softhsm.oci.tar", []string{"usr/bin/softhsm2-util"}, []string{"/data", "/tokens"},
			[]string{"SOFTHSM2_CONF=/etc/softhsm/softhsm2.conf"}, 28e6, 70e6},
		{"-arm64.softhsm.oci.tar", []string{"usr/bin/softhsm2-util"}, []string{"/data", "/tokens"},
			[]string{"SOFTHSM2_CONF=/etc/softhsm/softhsm2.conf"}, 28e6, 70e6},
	} {
		t.Run(test.ending, func(t *testing.T) {
			p := podman{t, p.global}
			image := p.load(test.ending)
			var inspected []struct {
				Architecture string
				Config       struct {
					User, WorkingDir, StopSignal string
					Entrypoint, Cmd, Env         []string
					Volumes                      map[string]any
					Labels                       map[string]string
				}
			}
			if err := json.Unmarshal([]byte(p.do("image", "inspect", image)), &inspected); err != nil {
				t.Fatal(err)
			}
			config := inspected[0].Config
			got := fmt.Sprintln(inspected[0].Architecture, config.User, config.WorkingDir, config.StopSignal,
				config.Entrypoint, config.Cmd, config.Env[1:], slices.Sorted(maps.Keys(config.Volumes)))
			want := fmt.Sprintln(test.ending[1:6], "65532:65532 /data SIGTERM [/usr/bin/purser] []",
				append([]string{"PURSER_DATA_DIR=/data"}, test.env...), test.volumes)
			if got != want {
				t.Errorf("got configuration\n%swant\n%s", got, want)
			}
			for _, label := range []string{"title", "description", "source", "version", "revision", "created", "licenses"} {
				if config.Labels["org.opencontainers.image."+label] == "" {
					t.Errorf("got no label %s in %q", label, config.Labels)
				}
			}

			info, err := os.Stat(artefact(t, "PURSER_DIST", test.ending))
			if err != nil {
				t.Fatal(err)
			}
			if info.Size() > test.size {
				t.Errorf("got an archive of %d bytes, want at most %d", info.Size(), test.size)
			}
			files := contents(t, p, image)
			var sum int64
			var programs []string
			for name, h := range files {
				sum += h.Size
				mode := h.FileInfo().Mode()
				if mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
					t.Errorf("%s: got mode %v, want neither setuid nor setgid", name, mode)
				}
				if mode.Perm()&0o002 != 0 && mode&fs.ModeSymlink == 0 && name != "tmp" {
					t.Errorf("%s: got mode %v, want it not writable by all", name, mode)
				}
				if mode.IsRegular() && mode.Perm()&0o111 != 0 && !strings.HasPrefix(name, "usr/lib/") {
					programs = append(programs, name)
				}
				if owned := h.Uid == user && h.Gid == user; owned != slices.Contains(test.volumes, "/"+name) ||
					!owned && (h.Uid != 0 || h.Gid != 0) {
					t.Errorf("%s: got owner %d:%d, want root, or %d for a volume", name, h.Uid, h.Gid, user)
				}
				if record, ok := strings.CutPrefix(name, "var/lib/dpkg/status.d/"); ok && mode.IsRegular() {
					doc := "usr/share/doc/" + record
					if files[doc] != nil && files[doc].Linkname != "" {
						doc = path.Join(path.Dir(doc), files[doc].Linkname)
					}
					if files[doc+"/copyright"] == nil {
						t.Errorf("got no copyright file of the package %s, want %s/copyright", record, doc)
					}
				}
			}
			slices.Sort(programs)
			if want := append([]string{"usr/bin/purser"}, test.programs...); !slices.Equal(programs, want) {
				t.Errorf("got programs %q, want %q", programs, want)
			}
			if sum > test.files {
				t.Errorf("got files of %d bytes, want at most %d", sum, test.files)
			}
			for _, want := range []string{
				"etc/ssl/certs/ca-certificates.crt", "usr/share/zoneinfo/Europe/Zurich", "usr/share/doc/purser/NOTICE",
				"usr/share/doc/purser/THIRD_PARTY.gz", "usr/share/common-licenses/LGPL-2.1",
			} {
				if files[want] == nil {
					t.Errorf("got no %s", want)
				}
			}
		})
	}
}

// contents are the files of an image by their names, without a slash at either end.
func contents(t *testing.T, p podman, image string) map[string]*tar.Header {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "files.tar")
	p.do("create", "--replace", "--name", "contents", "--ulimit", "nofile=4096:4096", image) // runs nothing
	p.do("export", "--output", archive, "contents")
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := make(map[string]*tar.Header)
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(h.Name, "/")] = h
	}
}

// TestContainer: the main job in a container without privileges.
func TestContainer(t *testing.T) {
	p := newPodman(t)
	image := p.load("-amd64.oci.tar")
	exports, err := filepath.Abs("../testdata")
	if err != nil {
		t.Fatal(err)
	}
	container := hardened("none", "--volume", exports+":/exports:ro", image)
	if got := p.do(append(container, "--version")...); !strings.HasPrefix(got, "purser ") {
		t.Errorf("got version %q, want purser and its version", got)
	}
	got := p.do(append(container, "sandbox", "run", "/exports/customers.csv")...)
	if !strings.Contains(got, "30 onboarded") {
		t.Errorf("got no %q in\n%s", "30 onboarded", got)
	}
}

var setting = regexp.MustCompile(`(?m)^export (\w+='.*')$`)

// TestContainerSoftHSM makes a token, onboards a customer whose key is in it, and stops a consumer, each in a container.
// The stand-in for the partner is in another, whose network they share.
func TestContainerSoftHSM(t *testing.T) {
	p := newPodman(t)
	image := p.load("-amd64.softhsm.oci.tar")
	exports := t.TempDir()
	address := writeKey(t, filepath.Join(exports, "key.pem"))
	export := "address,externalId\n" + address + ",customer-1\n"
	if err := os.WriteFile(filepath.Join(exports, "customers.csv"), []byte(export), 0o644); err != nil {
		t.Fatal(err)
	}
	pin := filepath.Join(exports, "pin")
	if err := os.WriteFile(pin, []byte("4711-4711\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.do("secret", "create", "pin", pin)
	volumes := []string{"--volume", "data:/data", "--volume", "tokens:/tokens", "--volume", exports + ":/exports:ro"}

	partner := hardened("none", append(volumes, "--name", "partner", image, "sandbox", "serve")...)
	ended := p.start("sandbox.env", partner...)
	data := strings.TrimSpace(p.do("volume", "inspect", "--format", "{{.Mountpoint}}", "data"))
	env, err := os.ReadFile(filepath.Join(data, "sandbox-data/sandbox.env"))
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range setting.FindAllStringSubmatch(string(env), -1) {
		volumes = append(volumes, "--env", strings.ReplaceAll(found[1], "'", ""))
	}
	const signer = "pkcs11:token=purser?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/secrets/pin"
	flags := append(hardened("container:partner", volumes...), "--env", "PURSER_SIGNER="+signer,
		"--env", "PURSER_INSECURE_PERMISSIONS=false",
		"--secret", fmt.Sprintf("pin,target=/secrets/pin,uid=%d,mode=0400", user))

	tool := append(slices.Clone(flags), "--entrypoint", "/usr/bin/softhsm2-util", image)
	p.do(append(tool, "--init-token", "--free", "--label", "purser", "--so-pin", "12345678", "--pin", "4711-4711")...)
	p.do(append(tool, "--import", "/exports/key.pem", "--token", "purser", "--pin", "4711-4711",
		"--id", address[2:], "--label", address[2:])...)
	flags = append(flags, "--name", "consumer", image)
	for _, step := range []struct {
		args string
		want string
	}{
		{"import /exports/customers.csv", "1 published"},
		{"check", "key for 1 of the queue's first 1 row"},
		{"run --drain", "1 onboarded"},
	} {
		if got := p.do(append(flags, strings.Fields(step.args)...)...); !strings.Contains(got, step.want) {
			t.Errorf("purser %s: got no %q in\n%s", step.args, step.want, got)
		}
	}

	wait := p.start("partitions assigned", append(flags, "run")...)
	p.do("stop", "--time", "60", "consumer") // sends the image's signal
	const want = "interrupted by terminated: all started rows are settled"
	if code, got := wait(); code != 1 || !strings.Contains(got, want) {
		t.Errorf("stopped: got exit code %d and\n%s\nwant 1 and %q", code, got, want)
	}
	p.do("stop", "--time", "60", "partner")
	if code, got := ended(); code != 0 {
		t.Errorf("sandbox serve: got exit code %d and\n%s\nwant 0 after a stop", code, got)
	}
}

// writeKey writes a new secp256k1 key as PKCS #8, which softhsm2-util imports, and returns its address.
func writeKey(t *testing.T, name string) string {
	t.Helper()
	key, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	type algorithm struct{ Algorithm, Curve asn1.ObjectIdentifier }
	private, err := asn1.Marshal(struct {
		Version int
		Key     []byte
	}{1, crypto.FromECDSA(key)})
	if err != nil {
		t.Fatal(err)
	}
	content, err := asn1.Marshal(struct {
		Version   int
		Algorithm algorithm
		Private   []byte
	}{0, algorithm{asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, asn1.ObjectIdentifier{1, 3, 132, 0, 10}}, private})
	if err != nil {
		t.Fatal(err)
	}
	content = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: content})
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return crypto.PubkeyToAddress(key.PublicKey).Hex()
}
