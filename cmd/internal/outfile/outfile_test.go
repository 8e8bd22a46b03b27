//go:build unix

package outfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/purser-onboard/purser/lockfile"
)

// TestLinks: links of ours and root's are followed, in any part of a path, and stay.
func TestLinks(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Mkdir(in("real"), 0o700), os.Symlink("real", in("way")), os.Symlink("../link", in("real/on")),
		os.Symlink(in("way/report"), in("link")), os.Symlink("round", in("round"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "way/report", "way/on", "real/new/report"} {
		if err := Write(in(name), []byte(name)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := os.ReadFile(in(name))
		if err != nil || string(got) != name {
			t.Errorf("%s: got %q, %v; want its name", name, got, err)
		}
		info, err := os.Lstat(in("link"))
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("%s: got the link replaced (%v, %v), want it kept", name, info.Mode(), err)
		}
	}
	if err := Write(in("round"), nil); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link to itself: got %v, want %v", err, syscall.ELOOP)
	}
}

// TestLinkToMissingDirectory: its disk may not be mounted. A link to a file that does not exist is followed.
func TestLinkToMissingDirectory(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Symlink("none", in("way")), os.Symlink("none/report", in("link")),
		os.Symlink("new", in("free"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"way/report", "way/deep/report", "link"} {
		if err := Write(in(name), nil); !errors.As(err, new(*lockfile.UnsafeError)) {
			t.Errorf("%s: got %v, want an UnsafeError", name, err)
		}
	}
	if _, err := os.Lstat(in("none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the missing directory: got %v, want %v", err, fs.ErrNotExist)
	}
	if err := Write(in("free"), []byte("x")); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(in("new")); string(got) != "x" {
		t.Errorf("the target of a link: got %q, %v; want what was written", got, err)
	}
}

// TestLinksOfOthers: a link that another user has planted is refused, and its target keeps its content.
func TestLinksOfOthers(t *testing.T) {
	dir := t.TempDir()
	victim, link := filepath.Join(dir, "victim"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), os.Symlink(victim, link)); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 { // only root can give a link away: judge it as another user's process would
		_, err := follow(link, os.Geteuid()+1, 0)
		if err == nil || !strings.Contains(err.Error(), "another user's symbolic link") {
			t.Errorf("got %v, want the link refused", err)
		}
		return
	}
	if err := os.Lchown(link, 1001, 1001); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, filepath.Join(link, "report")} {
		if err := Write(path, nil); err == nil || !strings.Contains(err.Error(), link+" is another user's symbolic link") {
			t.Errorf("%s: got %v, want the link refused", path, err)
		}
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
		t.Errorf("the target holds %q, %v; want it untouched", got, err)
	}
}

type owned struct{ uid uint32 }

func (owned) Name() string       { return "link" }
func (owned) Size() int64        { return 0 }
func (owned) Mode() fs.FileMode  { return fs.ModeSymlink }
func (owned) ModTime() time.Time { return time.Time{} }
func (owned) IsDir() bool        { return false }
func (o owned) Sys() any         { return &syscall.Stat_t{Uid: o.uid} }

func TestTrusted(t *testing.T) {
	for _, tt := range []struct {
		owner uint32
		us    int
		want  bool
	}{{1000, 1000, true}, {0, 1000, true}, {0, 0, true}, {1001, 1000, false}, {1001, 0, false}} {
		if got := trusted(owned{tt.owner}, tt.us); got != tt.want {
			t.Errorf("a link of %d for %d: got trusted %v, want %v", tt.owner, tt.us, got, tt.want)
		}
	}
}

// TestLeftovers: the temporary file of a process that was killed is removed by the next, and that of a process that
// lives is not.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	leftover, other := filepath.Join(dir, ".rejects.csv.123"), filepath.Join(dir, ".rejects.csv.keep")
	orphan := filepath.Join(dir, ".rejects.csv.122"+journal)
	for _, path := range []string{leftover, leftover + journal, orphan, other} {
		if err := os.WriteFile(path, []byte("customers"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first, err := Create(filepath.Join(dir, "rejects.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Discard()
	if err := os.WriteFile(first.Name()+journal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := Create(filepath.Join(dir, "rejects.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Discard()
	for path, want := range map[string]bool{
		leftover: false, leftover + journal: false, orphan: false, other: true,
		first.Name(): true, first.Name() + journal: true, second.Name(): true,
	} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s: got %v, want it to be there: %v", filepath.Base(path), err, want)
		}
	}
}

// TestHold: room is taken without a file that stays, and an error of the temporary file names the file itself.
func TestHold(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "report.json")
	room, err := Hold(path, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	info, err := room.(*os.File).Stat()
	if err != nil {
		t.Fatal(err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Blocks*512 < 64<<10 {
		t.Errorf("got %+v, want 64 KiB in blocks", stat)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("got %v, %v; want no file", entries, err)
	}
	if err := room.Close(); err != nil {
		t.Error(err)
	}
	full := written(path, errors.Join(&fs.PathError{Op: "write", Path: path + ".1", Err: syscall.ENOSPC}))
	if want := "write " + path + ": no space left on device"; full.Error() != want || !errors.Is(full, syscall.ENOSPC) {
		t.Errorf("got %v, want %s", full, want)
	}
}

// TestCommitNew: of two files with one name the first stays, also on a file system without hard links.
func TestCommitNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backup.db")
	var files [2]*File
	for i := range files {
		f, err := Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Discard()
		if _, err := f.WriteString(strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
		files[i] = f
	}
	if err := files[0].CommitNew(); err != nil {
		t.Fatal(err)
	}
	if err := files[1].CommitNew(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the second: got %v, want %v", err, fs.ErrExist)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("2"), 0o600); err != nil {
		t.Fatal(err)
	}
	noLinks := func(string, string) error { return syscall.EPERM }
	if err := renameNew(other, path, noLinks); !errors.Is(err, fs.ErrExist) {
		t.Errorf("without links: got %v, want %v", err, fs.ErrExist)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if got, e := os.ReadFile(path); string(got) != "0" || len(entries) != 1 || errors.Join(err, e) != nil {
		t.Errorf("got %q among %v, %v; want the first file alone", got, entries, errors.Join(err, e))
	}
	if err := renameNew(other, path+"2", noLinks); err != nil {
		t.Errorf("another name, without links: %v", err)
	}
	if got, err := os.ReadFile(path + "2"); string(got) != "2" {
		t.Errorf("without links: got %q, %v; want the content", got, err)
	}
}

// TestReplaces: only what has other content is refused.
func TestReplaces(t *testing.T) {
	dir := t.TempDir()
	path := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for path, want := range map[string]bool{
		path("export.csv", "address,externalId"): false, path("ledger.db", "SQLite format 3\x00"): false,
		path("report.json", "{"): true, path("empty.json", ""): true, filepath.Join(dir, "none.json"): true, dir: true,
		"/dev/null": true, path("late.json", strings.Repeat(" ", 60<<10)+"{"): true,
	} {
		err := Replaces(path, "a report", func(head []byte) bool { return strings.TrimSpace(string(head)) == "{" })
		if (err == nil) != want {
			t.Errorf("%s: got %v, want it replaced: %t", path, err, want)
		}
	}
}
