package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/broker"
)

func TestEmbeddedKeepsItsMemory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "broker")
	for round := range 3 {
		e := open(t, dir)
		publish(t, e.Cluster, rows(100*round, 100))
		got := counts(drained(t, e.Cluster))
		if len(got) != 100 || got[100*round] != 1 {
			t.Fatalf("round %d: got %d rows, want the 100 new rows once", round, len(got))
		}
		topics, err := e.Check(within(t), topic, "onboarding.deadletter")
		if err != nil || topics[topic] != broker.DefaultPartitions || topics["onboarding.deadletter"] != 1 {
			t.Fatalf("round %d: got topics %v, %v; want %d partitions and 1", round, topics, err, broker.DefaultPartitions)
		}
		for range 2 {
			if err := e.Close(); err != nil {
				t.Fatalf("round %d: Close: got %v, want nil", round, err)
			}
		}
	}
}

func TestEmbeddedProtectsItsDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	for path, want := range map[string]fs.FileMode{"": 0o700, "lock": 0o600, "running": 0o600} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %q: got %o, want %o", path, got, want)
		}
	}
}

func TestEmbeddedIsClosed(t *testing.T) {
	e := open(t, t.TempDir())
	publish(t, e.Cluster, rows(0, 1))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := broker.NewProducer(e.Cluster, broker.ProducerOptions{}).Publish(within(t), topic, rows(0, 1)); err == nil {
		t.Error("Publish to a closed broker: got nil, want an error")
	}
	if err := run(t, consumer(t, e.Cluster, nil), new(sink)); err == nil {
		t.Error("Run on a closed broker: got nil, want an error")
	}
}

func TestEmbeddedCannotOpen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", file, filepath.Join(file, "below")} {
		_, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: dir})
		var unusable *broker.DirError
		if err == nil || dir != "" && (!errors.As(err, &unusable) || unusable.Dir != dir || !broker.SetUp(err)) {
			t.Errorf("directory %q: got %v, want an error, a DirError of it if it is named", dir, err)
		}
	}
	// A broken file is not overwritten, and the lock is released.
	dir := t.TempDir()
	open(t, dir).Close()
	meta := filepath.Join(dir, "data", "topics.json")
	if err := os.WriteFile(meta, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), "topics.json") || errors.As(err, new(*broker.LockedError)) {
			t.Errorf("broken file: got %v, want an error that names topics.json", err)
		}
	}
}

func TestEmbeddedLocksOutOthers(t *testing.T) {
	dir := t.TempDir()
	other, lines := spawn(t, "hold", dir)
	expectLine(t, lines, "holding")
	_, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: dir})
	var locked *broker.LockedError
	if !errors.As(err, &locked) || locked.PID != other.Process.Pid || locked.Dir != dir {
		t.Fatalf("got %v, want a LockedError naming process %d", err, other.Process.Pid)
	}
	// The other process has no socket at all.
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", other.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); strings.HasPrefix(to, "socket:") {
			t.Errorf("got an open %s, want no socket", to)
		}
	}
	other.Process.Kill()
	other.Wait()
	e := open(t, dir) // the lock dies with its process
	if _, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: dir}); !errors.As(err, &locked) {
		t.Errorf("second open in one process: got %v, want a LockedError", err)
	}
	publish(t, e.Cluster, rows(0, 1))
}

// kill -9 in the middle of producing: no acknowledged message is lost.
func TestEmbeddedSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		other, lines := spawn(t, "produce", filepath.Join(dir, fmt.Sprint(round)))
		acked := 0
		for acked < 1000*(round+1) {
			if _, err := fmt.Sscan(expectLine(t, lines, "acked"), &acked); err != nil {
				t.Fatal(err)
			}
		}
		other.Process.Kill()
		for lines.Scan() { // the rest of its output
			acked = scanned(t, lines.Text(), acked)
		}
		other.Wait()
		seen := counts(drained(t, open(t, filepath.Join(dir, fmt.Sprint(round))).Cluster))
		for row := range acked {
			if seen[row] != 1 {
				t.Fatalf("row %d of %d acknowledged: got it %d times, want once", row, acked, seen[row])
			}
		}
	}
}

// kill -9 in the middle of consuming: committed offsets stay committed, other messages are delivered again.
func TestEmbeddedCommitsSurviveKill(t *testing.T) {
	dir := t.TempDir()
	e := open(t, dir)
	publish(t, e.Cluster, rows(0, 60_000))
	e.Close()
	other, lines := spawn(t, "consume", dir)
	var printed [broker.DefaultPartitions]int64
	parse := func() {
		if _, err := fmt.Sscanf(lines.Text(), "committed %d %d %d %d", &printed[0], &printed[1], &printed[2], &printed[3]); err != nil {
			t.Logf("the last line is cut: %q", lines.Text())
		}
	}
	for printed[0]+printed[1]+printed[2]+printed[3] < 1000 {
		if !lines.Scan() {
			t.Fatalf("the child ended with committed offsets %v, want 1000 in total", printed)
		}
		parse()
	}
	other.Process.Kill()
	for lines.Scan() {
		parse()
	}
	other.Wait()
	e = open(t, dir)
	at := committed(t, e.Cluster)
	var sum int64
	for p := range at {
		if at[p] < printed[p] {
			t.Errorf("partition %d: got committed offset %d, want at least %d", p, at[p], printed[p])
		}
		sum += max(at[p], 0) // -1: nothing committed yet
	}
	if rest := drained(t, e.Cluster); int64(len(rest)) != 60_000-sum {
		t.Errorf("got %d rows again, want %d", len(rest), 60_000-sum)
	}
}

// A torn tail of the commit log hides commits that are appended after it, unless the log is rewritten first.
func TestEmbeddedMendsTornCommits(t *testing.T) {
	dir := t.TempDir()
	e := open(t, dir)
	publish(t, e.Cluster, rows(0, 100))
	drained(t, e.Cluster)
	e.Close()
	tear(t, filepath.Join(dir, "data", "groups.log"))
	if err := os.WriteFile(filepath.Join(dir, "running"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e = open(t, dir)
	publish(t, e.Cluster, rows(100, 10))
	if n := len(drained(t, e.Cluster)); n != 10 {
		t.Errorf("got %d rows, want the 10 new rows", n)
	}
	log, err := os.ReadFile(filepath.Join(dir, "data", "groups.log"))
	if err != nil || strings.Contains(string(log), "torn") {
		t.Errorf("commit log: got the torn tail or %v, want a rewritten log", err)
	}
}

// scanned returns the number in a line of the child, or before if the kill has cut the line.
func scanned(t *testing.T, line string, before int) int {
	var n int
	if _, err := fmt.Sscanf(line, "acked %d", &n); err != nil || n < before {
		t.Logf("the last line is cut: %q", line)
		return before
	}
	return n
}

func tear(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("\x20\x00\x00\x00torn"); err != nil {
		t.Fatal(err)
	}
}

// With few file descriptors a run on the embedded broker ends with an error that says so, whatever could not be opened.
func TestEmbeddedOutOfFiles(t *testing.T) {
	dir := t.TempDir()
	e := open(t, dir)
	publish(t, e.Cluster, rows(0, 100))
	e.Close()
	ctx := within(t)
	other, lines := spawn(t, "files", dir)
	defer context.AfterFunc(ctx, func() { _ = other.Process.Kill() })()
	failed, done := 0, false
	for lines.Scan() {
		switch {
		case strings.Contains(lines.Text(), "too many open files"):
			failed++
		case strings.HasSuffix(lines.Text(), `"<nil>"`):
			done = true
		default:
			t.Errorf("got %s, want that it names too many open files", lines.Text())
		}
	}
	if ctx.Err() != nil || failed == 0 || !done {
		t.Errorf("got %d failures, success %v, %v; want some of both within %v", failed, done, ctx.Err(), patience)
	}
}

// The error of a full disk names its directory, and no acknowledged message is lost.
func TestEmbeddedDiskFull(t *testing.T) {
	dir := t.TempDir()
	other, lines := spawn(t, "full", dir)
	acked := 0
	for lines.Scan() && strings.HasPrefix(lines.Text(), "acked ") {
		acked = scanned(t, lines.Text(), acked)
	}
	last := lines.Text()
	for _, part := range []string{"failed", "cannot write to " + dir, "file too large", "free space"} {
		if !strings.Contains(last, part) {
			t.Errorf("the child printed %q, want %q in it", last, part)
		}
	}
	other.Wait()
	seen := counts(drained(t, open(t, dir).Cluster))
	for row := range acked {
		if seen[row] != 1 {
			t.Fatalf("row %d of %d acknowledged: got it %d times, want once", row, acked, seen[row])
		}
	}
	if acked == 0 {
		t.Error("got no acknowledged rows, want some before the disk is full")
	}
}
