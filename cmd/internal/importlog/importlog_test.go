package importlog

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/pipeline"
)

// TestLog: imports come back the latest first, the oldest beyond the bound are forgotten, and a file that cannot be read
// does not hide the others.
func TestLog(t *testing.T) {
	dir := t.TempDir()
	log := In(dir)
	if all, err := log.All("rows"); err != nil || len(all) != 0 {
		t.Errorf("no directory: got %v, %v; want none", all, err)
	}
	ids := make([]string, kept+3)
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7()).String()
	}
	put := func(id string) {
		t.Helper()
		if err := log.Put(pipeline.Import{ID: id, Host: "night\x1b-1", StartedAt: time.Unix(1, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	put(ids[0])
	first, err := os.ReadFile(filepath.Join(dir, "imports", ids[0]+".json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids[1 : kept+2] { // without the fsync of each
		content := strings.ReplaceAll(string(first), ids[0], id)
		if err := os.WriteFile(filepath.Join(dir, "imports", id+".json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(ids[kept+2])
	all, err := log.All("rows")
	if err != nil || len(all) != kept {
		t.Fatalf("got %d imports, %v; want the latest %d", len(all), err, kept)
	}
	if first, last := all[0].ID, all[kept-1].ID; first != ids[kept+2] || last != ids[3] {
		t.Errorf("got imports %s to %s, want %s to %s", first, last, ids[kept+2], ids[3])
	}
	if got := all[0].Host; got != `night\x1b-1` {
		t.Errorf("got host %q, want it printable", got)
	}
	if err := log.Put(pipeline.Import{ID: "../../outside"}); err == nil {
		t.Error("an id that is no UUID: got no error, want one")
	}
	another, err := os.ReadFile(filepath.Join(dir, "imports", ids[10]+".json"))
	if err != nil {
		t.Fatal(err)
	}
	for id, content := range map[string][]byte{ids[8]: []byte("{"), ids[9]: another} {
		if err := os.WriteFile(filepath.Join(dir, "imports", id+".json"), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err = log.All("rows")
	if len(all) != kept-2 || err == nil || !strings.Contains(err.Error(), ids[8]) || !strings.Contains(err.Error(), ids[9]) {
		t.Errorf("got %d imports, %v; want all but two, which the error names", len(all), err)
	}
}

// TestTopics: imports to other topics are left out, those of a version that did not record the topic are not.
func TestTopics(t *testing.T) {
	log := In(t.TempDir())
	var want []string
	for _, topic := range []string{"rows", "other", ""} {
		i := pipeline.Import{ID: uuid.Must(uuid.NewV7()).String(), Topic: topic}
		if err := log.Put(i); err != nil {
			t.Fatal(err)
		}
		if topic != "other" {
			want = append([]string{i.ID}, want...)
		}
	}
	all, err := log.All("rows")
	var got []string
	for _, i := range all {
		got = append(got, i.ID)
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

// TestStanding: a reader on the same host knows whether the process of an import that has not ended is there.
func TestStanding(t *testing.T) {
	log := In(t.TempDir())
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	begun := pipeline.Import{ID: uuid.Must(uuid.NewV7()).String(), Host: host, StartedAt: time.Unix(1, 0), Exit: 1}
	put := func(i pipeline.Import) {
		t.Helper()
		if err := log.Put(i); err != nil {
			t.Fatal(err)
		}
	}
	want := func(when, standing string) {
		t.Helper()
		all, err := log.All("rows")
		if err != nil || len(all) != 1 || all[0].Standing() != standing {
			t.Errorf("%s: got %+v, %v; want it that the import %s", when, all, err, standing)
		}
	}
	put(begun)
	want("not marked", "has no end: it is in progress, or its process was killed")
	running, err := log.Begin(begun.ID)
	if err != nil {
		t.Fatal(err)
	}
	want("begun", "is in progress")
	if err := running.lock.Close(); err != nil { // as the system does for a process that is killed
		t.Fatal(err)
	}
	want("killed", "has no end: its process was killed, or could not record it")
	elsewhere := begun
	elsewhere.Host += "-2"
	put(elsewhere)
	want("on another host", "has no end: it is in progress, or its process was killed")
	begun.EndedAt = time.Unix(2, 0)
	put(begun)
	running.End()
	if all, err := log.All("rows"); err != nil || all[0].Alive != nil {
		t.Errorf("ended: got %+v, %v; want no word about its process", all, err)
	}
	if _, err := os.Stat(running.path); !os.IsNotExist(err) {
		t.Errorf("got %v, want the lock file removed", err)
	}
}
