package broker_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/lockfile"
)

// TestEmbeddedLockWhateverThePath: a symbolic link to the directory leads to the same lock. A symbolic link in the place
// of the lock file is an error, and its target is not changed.
func TestEmbeddedLockWhateverThePath(t *testing.T) {
	dir, link := filepath.Join(t.TempDir(), "broker"), filepath.Join(t.TempDir(), "link")
	e := open(t, dir)
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	_, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: link})
	var locked *broker.LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Fatalf("through a link: got %v, want a LockedError of process %d", err, os.Getpid())
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	lock, victim := filepath.Join(dir, "lock"), filepath.Join(t.TempDir(), "victim")
	if err := errors.Join(os.Remove(lock), os.WriteFile(victim, []byte("precious"), 0o600),
		os.Symlink(victim, lock)); err != nil {
		t.Fatal(err)
	}
	_, err = broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: dir})
	if !errors.As(err, new(*broker.DirError)) || !broker.SetUp(err) ||
		!strings.Contains(err.Error(), "is a symbolic link") {
		t.Errorf("a link for a lock: got %v, want a DirError", err)
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
		t.Errorf("the link's target: got %q, %v; want it unchanged", text, err)
	}
}

// TestEmbeddedDirectoryThatIsGone: messages that were acknowledged since are lost, so Close returns an error.
func TestEmbeddedDirectoryThatIsGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "broker")
	e, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	const want = "lock was removed during the run"
	if err := e.Close(); err == nil || !strings.Contains(err.Error(), want) && !errors.As(err, new(*broker.StorageError)) {
		t.Errorf("Close: got %v, want an error with %q", err, want)
	}
	if again, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: dir + ".away"}); err != nil {
		t.Errorf("open after Close: got %v, want nil: the lock is released", err)
	} else if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// TestEmbeddedDirectoryReplaced: Close writes nothing to a directory that took the place of the broker's. The committed
// offsets would skip the messages in it.
func TestEmbeddedDirectoryReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "broker")
	e, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: dir, Topics: map[string]int{topic: 1}})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, e.Cluster, rows(0, 20))
	drained(t, e.Cluster)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	other, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: dir, Topics: map[string]int{topic: 1}})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, other.Cluster, rows(100, 20))
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); !errors.As(err, new(*lockfile.GoneError)) {
		t.Errorf("Close: got %v, want a *lockfile.GoneError", err)
	}
	if seen := counts(drained(t, open(t, dir).Cluster)); len(seen) != 20 || seen[100] != 1 {
		t.Errorf("the new directory: got %v, want messages 100 to 119", seen)
	}
	if seen := drained(t, open(t, dir+".away").Cluster); len(seen) != 0 {
		t.Errorf("the old directory: got %d messages, want 0", len(seen))
	}
}

// TestNewerFormat: the directory of a broker whose format a newer program has changed is an error that says so, and the
// directory is usable again for that program.
func TestNewerFormat(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "broker")
	if err := open(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	meta := filepath.Join(dir, "data", "meta.json")
	text, err := os.ReadFile(meta)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(text), `"version":1`, `"version":99`, 1)
	if err := os.WriteFile(meta, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: dir})
	if !errors.As(err, new(*broker.DirError)) || !broker.SetUp(err) ||
		!strings.Contains(err.Error(), "a newer program wrote it") || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want a DirError with the directory and that a newer program wrote it", err)
	}
	if err := os.WriteFile(meta, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(t, dir).Close(); err != nil {
		t.Errorf("with the format of this program: got %v, want no error", err)
	}
}
