package chart_test

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// node stands for the kubelet and the runtime of containers: it mounts the volumes of a pod with the owners and modes
// that they have on a node, makes the root read-only, and runs the container's arguments as its user.
type node struct {
	t       *testing.T
	pod     corev1.PodSpec
	volumes map[string]string // where the content of a volume is
}

// secret and config volumes are symbolic links to files in a directory that is replaced as a whole.
func (n node) project(volume string, mode os.FileMode, files map[string]string) {
	n.t.Helper()
	dir := n.t.TempDir()
	n.volumes[volume] = dir
	inner := filepath.Join(dir, "..2026_11_27_02_15_00.1")
	err := errors.Join(os.Mkdir(inner, 0o755), os.Symlink(filepath.Base(inner), filepath.Join(dir, "..data")))
	for name, content := range files {
		path := filepath.Join(inner, name)
		err = errors.Join(err, os.WriteFile(path, []byte(content), 0o600), os.Chmod(path, mode),
			os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
	}
	err = errors.Join(err, n.own(dir), os.Chmod(dir, os.ModeSticky|os.ModeSetgid|0o777))
	if err != nil {
		n.t.Fatal(err)
	}
}

// own gives a volume to root and to the group of the pod, as fsGroup does.
func (n node) own(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, 0, int(*n.pod.SecurityContext.FSGroup)))
	})
}

// directory is a volume of a file system: a claim, or with mode 0777 an emptyDir.
func (n node) directory(volume string, mode os.FileMode) string {
	n.t.Helper()
	dir := n.t.TempDir()
	n.volumes[volume] = dir
	if err := errors.Join(n.own(dir), os.Chmod(dir, os.ModeSetgid|mode)); err != nil {
		n.t.Fatal(err)
	}
	return dir
}

// run returns the exit code of the container and what it has printed.
func (n node) run() (code int, out string) {
	n.t.Helper()
	var script strings.Builder
	do := func(format string, args ...any) { fmt.Fprintf(&script, format+"\n", args...) }
	container, user := n.pod.Containers[0], n.pod.SecurityContext
	top := n.t.TempDir()
	do("set -eu; mount -t tmpfs root %s; cd %s; mkdir usr dev proc opt", top, top)
	do("for dir in lib lib64; do if [ -L /$dir ]; then cp -a /$dir .; else mkdir $dir; mount --bind /$dir $dir; fi; done")
	do("mount --bind -o ro /usr usr; mount --rbind /dev dev; mount --rbind /proc proc")
	do("touch opt/purser; mount --bind %s opt/purser", purser(n.t))
	for _, mount := range container.VolumeMounts {
		at := strings.TrimPrefix(mount.MountPath, "/")
		do("mkdir -p %s; mount --bind %s %s", at, n.volumes[mount.Name], at)
		if mount.ReadOnly {
			do("mount -o remount,bind,ro %s", at)
		}
	}
	do("mount -o remount,ro %s", top)
	do("exec chroot %s /usr/bin/setpriv --reuid=%d --regid=%d --groups=%d --no-new-privs --bounding-set=-all "+
		"--inh-caps=-all env -i PATH=/usr/bin /opt/purser \"$@\"", top, *user.RunAsUser, *user.RunAsGroup, *user.FSGroup)
	args := append([]string{"--mount", "--propagation=private", "sh", "-c", script.String(), "sh"}, container.Args...)
	text, err := exec.CommandContext(n.t.Context(), "unshare", args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), string(text)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return 0, string(text)
}

// partner starts the sandbox, and returns what its sandbox.env sets.
func partner(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	sandbox := exec.CommandContext(t.Context(), purser(t), "sandbox", "serve", "--dir", dir,
		"--listen", "127.0.0.1:0", "--control", "127.0.0.1:0")
	sandbox.Stderr = os.Stderr
	out, err := sandbox.StdoutPipe()
	if err == nil {
		err = sandbox.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sandbox.Process.Kill(); _ = sandbox.Wait() })
	for lines := bufio.NewScanner(out); lines.Scan() && !strings.HasPrefix(lines.Text(), "settings"); {
	}
	content, err := os.ReadFile(filepath.Join(dir, "sandbox.env"))
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]string{}
	for _, match := range regexp.MustCompile(`(?m)^export (\w+)='(.*)'$`).FindAllStringSubmatch(string(content), -1) {
		set[match[1]] = match[2]
	}
	return set
}

// TestNode runs the night as the chart has it: with secrets, claims, user and read-only root as on a node, against the
// sandbox. Each exit code is what podFailurePolicy takes it for.
func TestNode(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("got a user other than root, want root: the test mounts volumes in a namespace of its own")
	}
	env := partner(t)
	set := values(t, "night")
	maps.Copy(set["config"].(map[string]any), map[string]any{
		"api-url": env["OFFBLOCKS_API_URL"], "api-key": env["OFFBLOCKS_API_KEY"],
		"signing-key-id": env["OFFBLOCKS_SIGNING_KEY_ID"], "rate": 500,
	})
	r := decoded(t, "night", set)
	n := node{t: t, pod: pods(r)[0], volumes: map[string]string{}}

	n.project("config", 0o644, only[*corev1.ConfigMap](t, r).Data)
	load := func(path string) string {
		t.Helper()
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	secrets := map[string]string{
		"api-secret": load(env["OFFBLOCKS_API_SECRET_FILE"]), "signing-key.pem": load(env["OFFBLOCKS_SIGNING_KEY"]),
		"keys-password": read(t, "testdata/keystore-password"),
	}
	files, err := filepath.Glob(filepath.Join(root, "testdata/keystore/*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d key files, %v; want those of the sample", len(files), err)
	}
	keys := map[string]string{}
	for _, path := range files {
		keys[filepath.Base(path)] = load(path)
	}
	mode := os.FileMode(*n.pod.Volumes[slices.IndexFunc(n.pod.Volumes, func(v corev1.Volume) bool {
		return v.Name == "secret-0"
	})].Secret.DefaultMode)
	n.project("secret-0", mode, secrets)
	n.project("secret-1", mode, keys)
	n.directory("tmp", 0o777)
	data := n.directory("data", 0o775)
	exports := n.directory("exports", 0o755)
	export := read(t, "testdata/customers.csv")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(exports, "today.csv"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, want int, text string) {
		t.Helper()
		if code, out := n.run(); code != want || !strings.Contains(out, text) {
			t.Errorf("%s: got exit code %d, want %d and %q:\n%s", what, code, want, text, out)
		}
	}

	write(export)
	expect("the night", 0, "30 onboarded")
	expect("again", 0, "night     30 rows: 30 onboarded")
	for _, name := range []string{"purser/ledger.db", "purser/report.json"} {
		info, err := os.Stat(filepath.Join(data, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got %v, %v; want mode 0600", name, info, err)
		}
	}
	write(export + "0x00000000000000000000000000000000000000aa,keyless,eip155:300\n")
	expect("a row without a key", 3, "night     31 rows: 30 onboarded, 1 failed")
	write(export)

	// Why the pod has OnRootMismatch, and no ledger in an emptyDir: 2 would fail every night.
	err = filepath.WalkDir(data, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			return os.Chmod(path, os.ModeSetgid|0o770)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	expect("fsGroupChangePolicy Always", 2, "may be written to by other users")
	n.directory("data", 0o777)
	expect("an emptyDir", 2, "may be written to by all users")
	n.directory("data", 0o775)
	delete(secrets, "api-secret")
	n.project("secret-0", mode, secrets)
	expect("a secret without a key", 2, "api-secret")
}
