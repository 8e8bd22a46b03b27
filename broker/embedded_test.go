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
			t.Fatalf("round %d: %d rows came, want the 100 new ones", round, len(got))
		}
		topics, err := e.Check(within(t), topic, "onboarding.deadletter")
		if err != nil || topics[topic] != broker.DefaultPartitions || topics["onboarding.deadletter"] != 1 {
			t.Fatalf("round %d: topics %v, %v", round, topics, err)
		}
		for range 2 {
			if err := e.Close(); err != nil {
				t.Fatalf("round %d: %v", round, err)
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
			t.Errorf("mode of %q is %o, want %o", path, got, want)
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
		t.Error("published to a closed broker")
	}
	if err := run(t, consumer(t, e.Cluster, nil), new(sink)); err == nil {
		t.Error("consumed from a closed broker")
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
			t.Errorf("%q: got %v, want a DirError that names it", dir, err)
		}
	}
	// What cannot be read is not overwritten, and the lock is given back.
	dir := t.TempDir()
	open(t, dir).Close()
	meta := filepath.Join(dir, "data", "topics.json")
	if err := os.WriteFile(meta, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), "topics.json") || errors.As(err, new(*broker.LockedError)) {
			t.Errorf("a broken directory: %v", err)
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
	// The other one listens nowhere: it has no socket at all.
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", other.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); strings.HasPrefix(to, "socket:") {
			t.Errorf("the process has a socket: %s", to)
		}
	}
	other.Process.Kill()
	other.Wait()
	e := open(t, dir) // the lock dies with its process
	if _, err := broker.OpenEmbedded(t.Context(), broker.EmbeddedOptions{Dir: dir}); !errors.As(err, &locked) {
		t.Errorf("opened twice in one process: %v", err)
	}
	publish(t, e.Cluster, rows(0, 1))
}

// kill -9 in the middle of producing: all that was acknowledged is there.
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
		for lines.Scan() { // what it still said
			acked = scanned(t, lines.Text(), acked)
		}
		other.Wait()
		seen := counts(drained(t, open(t, filepath.Join(dir, fmt.Sprint(round))).Cluster))
		for row := range acked {
			if seen[row] != 1 {
				t.Fatalf("row %d of %d acknowledged came %d times", row, acked, seen[row])
			}
		}
	}
}

// kill -9 in the middle of consuming: what was committed stays committed, what was not comes again.
func TestEmbeddedCommitsSurviveKill(t *testing.T) {
	dir := t.TempDir()
	e := open(t, dir)
	publish(t, e.Cluster, rows(0, 60_000))
	e.Close()
	other, lines := spawn(t, "consume", dir)
	var told [broker.DefaultPartitions]int64
	parse := func() {
		if _, err := fmt.Sscanf(lines.Text(), "committed %d %d %d %d", &told[0], &told[1], &told[2], &told[3]); err != nil {
			t.Logf("the last line is cut: %q", lines.Text())
		}
	}
	for told[0]+told[1]+told[2]+told[3] < 1000 {
		if !lines.Scan() {
			t.Fatal("the child ended")
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
		if at[p] < told[p] {
			t.Errorf("partition %d is committed to %d, it was told %d", p, at[p], told[p])
		}
		sum += max(at[p], 0) // -1: nothing committed yet
	}
	if rest := drained(t, e.Cluster); int64(len(rest)) != 60_000-sum {
		t.Errorf("%d rows came again, want %d", len(rest), 60_000-sum)
	}
}

// A torn tail of the commit log hides what is appended behind it, unless the log is rewritten first.
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
		t.Errorf("%d rows came, want the 10 new ones", n)
	}
	log, err := os.ReadFile(filepath.Join(dir, "data", "groups.log"))
	if err != nil || strings.Contains(string(log), "torn") {
		t.Errorf("the torn tail is still there: %v", err)
	}
}

// scanned reads a line of the child; one that was cut by its death says nothing new.
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

// With few file descriptors a run on the embedded broker ends and says why, whatever could not be opened.
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

// A disk that takes no more is named, and what was acknowledged before is there.
func TestEmbeddedDiskFull(t *testing.T) {
	dir := t.TempDir()
	other, lines := spawn(t, "full", dir)
	acked := 0
	for lines.Scan() && strings.HasPrefix(lines.Text(), "acked ") {
		acked = scanned(t, lines.Text(), acked)
	}
	told := lines.Text()
	for _, part := range []string{"failed", "cannot write to " + dir, "file too large", "free space"} {
		if !strings.Contains(told, part) {
			t.Errorf("the child said %q, without %q", told, part)
		}
	}
	other.Wait()
	seen := counts(drained(t, open(t, dir).Cluster))
	for row := range acked {
		if seen[row] != 1 {
			t.Fatalf("row %d of %d acknowledged came %d times", row, acked, seen[row])
		}
	}
	if acked == 0 {
		t.Error("nothing was acknowledged")
	}
}
