package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/pipeline"
)

// goodSnapshot is a valid record of an unfinished row.
func goodSnapshot(n int) *snapshot {
	r := pipeline.Record{
		Row: testRow(n, "i1"), Version: 5, Stage: pipeline.Submitting, CustomerID: uuid.NewString(),
		Challenge: "sign\nthis", ChallengeAt: noClock(), Signature: "0x1234", AcceptedAt: noClock(), UpdatedAt: noClock(),
	}
	r.CreateKey, r.SubmitKey = derived(r, pipeline.OpCreate, 1), derived(r, pipeline.OpSubmit, 0)
	s := snapshotOf(r, true, testEnvironment)
	s.addKey(derived(r, pipeline.OpCreate, 0))
	s.addKey(r.CreateKey)
	s.addKey(r.SubmitKey)
	return s
}

// message is the record as a message of the topic.
func (s *snapshot) message(t testing.TB) pipeline.Message {
	t.Helper()
	value, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return pipeline.Message{Key: s.key(), Value: value}
}

// put writes messages to a partition, without regard to its owner.
func (p *topic) put(partition int, messages ...pipeline.Message) {
	for _, m := range messages {
		m.Partition, m.Offset = partition, p.ends[partition]
		p.ends[partition]++
		p.partitions[partition] = append(p.partitions[partition], m)
	}
}

// altered is a valid record with changed members.
func altered(t testing.TB, n int, change func(map[string]any)) pipeline.Message {
	t.Helper()
	m := goodSnapshot(n).message(t)
	var members map[string]any
	if err := json.Unmarshal(m.Value, &members); err != nil {
		t.Fatal(err)
	}
	change(members)
	value, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return pipeline.Message{Key: m.Key, Value: value}
}

// invalidRecords are records that this program does not write. The first word of a name is the record's kind.
func invalidRecords(t testing.TB) map[string]pipeline.Message {
	t.Helper()
	set := func(member string, value any) pipeline.Message {
		return altered(t, 1, func(m map[string]any) { m[member] = value })
	}
	key := func(member string, value any) pipeline.Message {
		return altered(t, 1, func(m map[string]any) { m["keys"].([]any)[0].(map[string]any)[member] = value })
	}
	raw := func(value string) pipeline.Message { return pipeline.Message{Key: []byte("k"), Value: []byte(value)} }
	good := goodSnapshot(1).message(t)
	return map[string]pipeline.Message{
		"syntax text behind an empty object": raw("{}x"),
		"syntax text behind a record":        {Key: good.Key, Value: append(bytes.Clone(good.Value), " {}"...)},
		"syntax empty object":                raw("{}"),
		"syntax null":                        raw("null"),
		"syntax empty":                       {Key: []byte("k"), Value: []byte{}},
		"syntax tombstone":                   {Key: good.Key},
		"syntax not JSON":                    raw("\x00\xff"),
		"syntax list":                        raw("[1]"),
		"syntax unknown member":              set("colour", "red"),
		"syntax version is text":             set("v", "1"),
		"syntax member of another type":      set("line", "two"),
		"syntax number beyond int64":         raw(`{"v":2,"apiHost":"api.example.com","apiKeyId":"key-1","version":9e99}`),
		"syntax digest":                      key("digest", "00"),
		"syntax id is no UUID":               key("id", "k1"),
		"syntax year 10000":                  set("updatedAt", "10000-01-01T00:00:00Z"),
		"syntax not UTF-8": {
			Key: good.Key, Value: bytes.Replace(good.Value, []byte("cust-"), []byte("cust\xff"), 1),
		},
		"version 1":                         set("v", 1),
		"version 3":                         set("v", 3),
		"version 0":                         set("v", 0),
		"environment host":                  set("apiHost", "other.example.com"),
		"environment path":                  set("apiPath", "/live/v1"),
		"environment key":                   set("apiKeyId", "key-2"),
		"environment and version":           altered(t, 1, func(m map[string]any) { m["v"], m["apiHost"] = 3, "" }),
		"invalid version 2^63-1":            set("version", json.Number("9223372036854775807")),
		"invalid version 2^53+1":            set("version", json.Number("9007199254740993")),
		"invalid version 0":                 set("version", 0),
		"invalid stage":                     set("stage", "lost"),
		"invalid account":                   set("chainId", "eip155:300:0x12"),
		"invalid account in lower case":     set("chainId", strings.ToLower(account(1).String())),
		"invalid externalId":                set("externalId", ""),
		"invalid import":                    set("importId", ""),
		"invalid earlier import":            set("earlierImports", []string{strings.Repeat("i", 65)}),
		"invalid line":                      set("line", -1),
		"invalid attempts":                  set("attempts", json.Number("9223372036854775807")),
		"invalid refusals":                  set("refusals", -1),
		"invalid class":                     set("class", "\x1b[31m"),
		"invalid reason":                    set("reason", strings.Repeat("x", 5000)),
		"invalid customer id":               set("customerId", "c\n1"),
		"invalid challenge of 8 KiB and 1":  set("challenge", strings.Repeat("x", 8<<10+1)),
		"invalid time before 1970":          set("acceptedAt", "1969-12-31T23:59:59Z"),
		"invalid year 1":                    altered(t, 1, func(m map[string]any) { delete(m, "updatedAt") }),
		"invalid time of the challenge":     set("challengeAt", "0000-01-01T00:00:00Z"),
		"invalid operation":                 key("operation", "delete"),
		"invalid generation":                key("generation", -1),
		"invalid generation beyond all":     key("generation", 1<<40),
		"invalid key twice":                 key("generation", 1),
		"invalid key without id":            key("id", uuid.Nil.String()),
		"invalid key of an unknown outcome": key("outcome", "lost"),
		"invalid key never sent":            key("firstSent", nil),
		"invalid present key is not there":  set("submitGeneration", 4),
		"invalid present key is not latest": set("createGeneration", 0),
		"invalid no present key":            altered(t, 1, func(m map[string]any) { delete(m, "createGeneration") }),
		"invalid create key": altered(t, 1, func(m map[string]any) {
			m["keys"].([]any)[1].(map[string]any)["id"] = uuid.NewString()
		}),
		"invalid submit key": altered(t, 1, func(m map[string]any) {
			m["keys"].([]any)[2].(map[string]any)["id"] = uuid.NewString()
		}),
		"invalid submit key of another customer": set("customerId", uuid.NewString()),
		"invalid keyrings":                       set("earlierKeyrings", make([]snapshotKeyring, 101)),
		"invalid key of another row":             {Key: []byte(account(2).String()), Value: good.Value},
	}
}

// TestStrangersRecordsAreIgnored: a record that no program of the fleet can have written is ignored, and the rows
// before and after it are restored.
func TestStrangersRecordsAreIgnored(t *testing.T) {
	for name, m := range invalidRecords(t) {
		t.Run(name, func(t *testing.T) {
			want, _, _ := strings.Cut(name, " ")
			shared := newTopic(1)
			in := intake{log: &follower{topic: shared}, own: testEnvironments()}
			if s, err := in.parse(m); err == nil {
				t.Fatalf("got %+v, want an error of kind %s", s, want)
			} else if string(err.kind) != want {
				t.Errorf("got kind %s (%v), want %s", err.kind, err, want)
			}
			shared.put(0, goodSnapshot(2).message(t), m, goodSnapshot(3).message(t))
			l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
			var log bytes.Buffer
			l.log = slog.New(slog.NewTextHandler(&log, nil))
			got := restore(t, l, f, 0)
			if want := (Restored{To: 3, Records: 3, Newer: 2, Ignored: 1}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if text := log.String(); strings.Count(text, "ignored records") != 1 || !strings.Contains(text, "kind="+want) {
				t.Errorf("got log %q, want one warning of kind %s", text, want)
			}
			get(t, l, testRow(2, ""))
			get(t, l, testRow(3, ""))
			acceptOne(t, l, testRow(1, "i1"), pipeline.Open) // the row itself is unaffected
		})
	}
}

// TestOneWarningForEachKind: many ignored records give one warning for each kind.
func TestOneWarningForEachKind(t *testing.T) {
	shared := newTopic(1)
	counts := map[string]int{}
	for name, m := range invalidRecords(t) {
		shared.put(0, m)
		kind, _, _ := strings.Cut(name, " ")
		counts[kind]++
	}
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	var log bytes.Buffer
	l.log = slog.New(slog.NewTextHandler(&log, nil))
	if got := restore(t, l, f, 0); got.Ignored != len(shared.partitions[0]) {
		t.Errorf("got %d ignored, want %d", got.Ignored, len(shared.partitions[0]))
	}
	for kind, n := range counts {
		if want := fmt.Sprintf("kind=%s records=%d ", kind, n); strings.Count(log.String(), want) != 1 {
			t.Errorf("got log %s, want one %q", log.String(), want)
		}
	}
	if got := strings.Count(log.String(), "\n"); got != len(counts) {
		t.Errorf("got %d lines, want %d", got, len(counts))
	}
}

// TestExtremesAreRestored: values at the bounds can be stored, and the row can be updated afterwards.
func TestExtremesAreRestored(t *testing.T) {
	s := goodSnapshot(1)
	s.Version, s.Line, s.Attempts, s.Refusals = maxVersion, 1<<62, maxCount, maxCount
	s.Challenge, s.File, s.Status = strings.Repeat("\x00", maxChallenge), strings.Repeat("\u202f", 1000), "\x1b"
	s.AcceptedAt = stamp{s.AcceptedAt.AddDate(9999-s.AcceptedAt.Year(), 0, 0)}
	shared := newTopic(1)
	shared.put(0, s.message(t))
	l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	if got := restore(t, l, f, 0); got.Newer != 1 {
		t.Fatalf("got %+v, want the row", got)
	}
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	r = advance(t, l, r, pipeline.Submitting, func(r *pipeline.Record) {
		r.SubmitKey = testKey(pipeline.OpSubmit, 1, noClock())
	})
	advance(t, l, r, pipeline.Onboarded, nil)
}

// TestWrongSetUp: several records that only a wrong set-up explains end the run, and the next run as well. Fewer
// records do not, nor does the same record several times.
func TestWrongSetUp(t *testing.T) {
	newer := func(n int) pipeline.Message {
		return altered(t, n, func(m map[string]any) { m["v"] = 3 })
	}
	for name, tt := range map[string]struct {
		record func(n int) pipeline.Message
		want   string
	}{
		"version":   {newer, "is a newer program part of the fleet?"},
		"partition": {func(n int) pipeline.Message { return goodSnapshot(n).message(t) }, "were partitions added?"},
	} {
		t.Run(name, func(t *testing.T) {
			shared := newTopic(64)
			l, f := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
			var records []pipeline.Message
			for n := 1; len(records) < minSuspects; n++ {
				if f.Partition(account(n).String()) != 0 {
					records = append(records, tt.record(n))
				}
			}
			shared.put(0, records[0], records[0], records[1], records[0])
			if got := restore(t, l, f, 0); got.Ignored != 4 {
				t.Errorf("got %+v, want 4 ignored", got)
			}
			fresh, g := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
			shared.put(0, records[2])
			g.held[0] = true
			for range 2 {
				_, err := fresh.restoreOne(t.Context(), 0)
				var wrong *SnapshotError
				if !errors.As(err, &wrong) || wrong.Offset != 4 || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want a SnapshotError at offset 4 with %q", err, tt.want)
				}
			}
		})
	}
}

// TestTopicOfAnotherEnvironment: a topic of another environment is an error. Foreign records among ours, or a few
// foreign records alone, are not.
func TestTopicOfAnotherEnvironment(t *testing.T) {
	foreign := func(n int) pipeline.Message {
		return altered(t, n, func(m map[string]any) { m["apiHost"] = "other.example.com" })
	}
	junk := pipeline.Message{Key: []byte("junk"), Value: []byte("{}x")}
	shared := newTopic(4)
	l, _ := openFollower(t, filepath.Join(t.TempDir(), "ledger.db"), shared)
	check := func(foreignTopic bool) {
		t.Helper()
		err := l.CheckChangelog(t.Context(), 4)
		var wrong *SnapshotError
		if got := errors.As(err, &wrong); got != foreignTopic || got != (err != nil) {
			t.Errorf("got %v, want a SnapshotError: %t", err, foreignTopic)
		}
		if foreignTopic && !strings.Contains(err.Error(), "use another topic for another environment") {
			t.Errorf("got %v, want an error with what to do", err)
		}
	}
	check(false)
	shared.put(0, junk, foreign(1), foreign(1), foreign(1))
	shared.put(1, junk, foreign(2))
	check(false)
	shared.put(2, foreign(3))
	check(true)
	shared.put(3, goodSnapshot(4).message(t))
	check(false)
}

// FuzzSnapshot: every record gives an error, or a snapshot that the ledger can store and write again.
func FuzzSnapshot(f *testing.F) {
	for _, m := range invalidRecords(f) {
		f.Add(m.Value)
	}
	f.Add(goodSnapshot(1).message(f).Value)
	l, _ := openFollower(f, filepath.Join(f.TempDir(), "ledger.db"), newTopic(1))
	undo := errors.New("undo")
	f.Fuzz(func(t *testing.T, value []byte) {
		wantAsJSON(t, value, false)
		s, err := parseSnapshot(value, testEnvironments())
		if (s == nil) == (err == nil) {
			t.Fatalf("got snapshot %+v and error %v, want one of them", s, err)
		}
		if err != nil {
			if err.Error() == "" || err.kind == "" {
				t.Errorf("got %#v, want an error with a text and a kind", err)
			}
			return
		}
		again, err := parseSnapshot(s.message(t).Value, testEnvironments())
		if err != nil || !maps.Equal(members(t, s), members(t, again)) {
			t.Errorf("got %+v (%v) when written and read again, want %+v", again, err, s)
		}
		stored := l.writer.do(t.Context(), 1, func(tx *tx) error {
			if _, _, err := tx.applySnapshot(s); err != nil {
				return err
			}
			var id, version int64
			if err := tx.rowID.QueryRowContext(tx.ctx, s.ExternalID, s.ChainID).Scan(&id, &version); err != nil {
				return err
			}
			got, err := tx.snapshot(id, testEnvironment)
			if err != nil {
				return err
			}
			if got.Version != s.Version || got.Stage != s.Stage || len(got.Keys) != len(s.Keys) ||
				!reflect.DeepEqual(got.CreateGeneration, s.CreateGeneration) {
				t.Errorf("got %+v stored, want %+v", got, s)
			}
			return undo
		})
		if !errors.Is(stored, undo) {
			t.Errorf("got %v, want it stored", stored)
		}
	})
}

// members returns the JSON of a snapshot's members by name.
func members(t testing.TB, s *snapshot) map[string]string {
	t.Helper()
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(s.message(t).Value, &raw); err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for name, text := range raw {
		texts[name] = string(text)
	}
	return texts
}

// testEnvironments are those of a ledger that was never bound to another environment.
func testEnvironments() ownEnvironments {
	env := testEnvironment
	env.APIPath = "/v1"
	return newOwnEnvironments(Options{Environment: env}, nil)
}
