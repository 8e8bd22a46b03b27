package ledger

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/pipeline"
)

// keyIDs opens a ledger, reads the key ids that it was bound to, oldest first, and closes it.
func keyIDs(t *testing.T, o Options) []string {
	t.Helper()
	l, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, l)
	bindings, err := l.Bindings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for i, b := range bindings {
		if b.Since.IsZero() || i > 0 && b.Since.Before(bindings[i-1].Since) {
			t.Errorf("binding %d: got since %v, want a time not before those of %v", i, b.Since, bindings[:i])
		}
		ids = append(ids, b.APIKeyID)
	}
	return ids
}

func closed(t *testing.T, l *Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func wantEnvironmentError(t *testing.T, o Options, advice string) {
	t.Helper()
	_, err := Open(t.Context(), o)
	var wrong *EnvironmentError
	if !errors.As(err, &wrong) || !strings.Contains(err.Error(), advice) {
		t.Errorf("got %v, want an EnvironmentError with %q", err, advice)
	}
}

func TestRebind(t *testing.T) {
	l, o := openTest(t)
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	first := createKey(0, o.Now())
	r = advance(t, l, r, pipeline.Creating, func(r *pipeline.Record) { r.CreateKey = first })
	rotated := o
	rotated.Environment.APIKeyID = "key-2"
	rebind := rotated
	rebind.Rebind = true
	if _, err := Open(t.Context(), rebind); !errors.As(err, new(*LockedError)) {
		t.Errorf("while it is open: got %v, want a LockedError", err)
	}
	closed(t, l)

	wantEnvironmentError(t, rotated, "if the API key was rotated, run `consumer rebind`")
	elsewhere := rebind
	elsewhere.Environment.APIHost = "api.example.org"
	wantEnvironmentError(t, elsewhere, "another data directory for another environment")
	if got := keyIDs(t, o); !slices.Equal(got, []string{"key-1"}) {
		t.Errorf("after the errors: got key ids %q, want key-1", got)
	}

	if got := keyIDs(t, rebind); !slices.Equal(got, []string{"key-1", "key-2"}) {
		t.Errorf("rebound: got key ids %q, want key-1, key-2", got)
	}
	wantEnvironmentError(t, o, "consumer rebind")
	if got := keyIDs(t, rotated); !slices.Equal(got, []string{"key-1", "key-2"}) {
		t.Errorf("opened again: got key ids %q, want key-1, key-2", got)
	}
	l = reopen(t, rotated) // from now on without Rebind
	if got, err := l.Environment(t.Context()); err != nil || got != rotated.Environment {
		t.Errorf("Environment: got %v, %v; want %v", got, err, rotated.Environment)
	}

	// The earlier key does not change; the next generation has another id.
	second := createKey(1, o.Now())
	second.ID = uuid.UUID{2}
	r = advance(t, l, r, pipeline.Creating, func(r *pipeline.Record) { r.CreateKey = second })
	keys, err := l.keys(t.Context(), r.ID)
	if err != nil || len(keys) != 2 || keys[0].ID != first.ID || keys[1].ID != second.ID {
		t.Errorf("got keys %v, %v; want %v and %v", keys, err, first.ID, second.ID)
	}
	r.CreateKey = first
	r.CreateKey.ID = uuid.UUID{3}
	if _, err := l.Update(t.Context(), r); !errors.As(err, new(*keyError)) {
		t.Errorf("another id in generation 0: got %v, want a keyError", err)
	}
}

// TestHostInAnotherForm: an earlier version bound ledgers to hosts with the default port.
func TestHostInAnotherForm(t *testing.T) {
	o := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	o.Environment.APIHost = "api.example.com:443"
	closed(t, reopen(t, o))
	o.Environment = testEnvironment
	wantEnvironmentError(t, o, "another data directory")
	o.CanonicalHost = func(host string) string { return strings.TrimSuffix(host, ":443") }
	l := reopen(t, o)
	bindings, err := l.Bindings(t.Context())
	if err != nil || len(bindings) != 2 || bindings[0].APIHost != "api.example.com:443" ||
		bindings[1].Environment != testEnvironment {
		t.Errorf("got bindings %v, %v; want both forms of the host", bindings, err)
	}
	closed(t, l)
	o.Environment.APIKeyID = "key-2"
	wantEnvironmentError(t, o, "consumer rebind")
}

// TestRecordsOfAnEarlierKeyID: a ledger topic holds records from before a rotation.
func TestRecordsOfAnEarlierKeyID(t *testing.T) {
	topic := newTopic(1)
	open := func(path string, change func(*Options)) *Ledger {
		o := testOptions(path)
		o.Changelog = "onboarding.ledger"
		change(&o)
		l := reopen(t, o)
		f := &follower{topic: topic, held: map[int]bool{0: true}, epoch: 1}
		if err := l.Follow(f, nil); err != nil {
			t.Fatal(err)
		}
		return l
	}
	first := filepath.Join(t.TempDir(), "ledger.db")
	l := open(first, func(*Options) {})
	if _, err := l.restoreOne(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for i := range minSuspects {
		acceptOne(t, l, testRow(1+i, "i1"), pipeline.Open)
	}
	closed(t, l)
	rotate := func(o *Options) { o.Environment.APIKeyID, o.Rebind = "key-2", true }
	l = open(first, rotate)
	if _, err := l.restoreOne(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for i := range minSuspects {
		acceptOne(t, l, testRow(1+minSuspects+i, "i1"), pipeline.Open)
	}

	for name, test := range map[string]struct {
		change func(*Options)
		want   string // of the error; "": all rows
	}{
		"the earlier id is known": {func(o *Options) { rotate(o); o.EarlierKeyIDs = []string{"key-1", "key-2"} }, ""},
		"rebound":                 {rotate, "if the API key was rotated, run `consumer rebind`"},
		"not rebound":             {func(*Options) {}, "if the API key was rotated, run `consumer rebind`"},
		"another host": {func(o *Options) {
			o.Environment.APIHost, o.EarlierKeyIDs = "api.example.org", []string{"key-1", "key-2"}
		}, "another topic for another environment"},
	} {
		l := open(filepath.Join(t.TempDir(), "ledger.db"), test.change)
		r, err := l.restoreOne(t.Context(), 0)
		if err == nil {
			err = l.CheckChangelog(t.Context(), 1)
		}
		var snapshot *SnapshotError
		switch {
		case test.want == "":
			if err != nil || r.Newer != 2*minSuspects {
				t.Errorf("%s: got %+v, %v; want %d rows", name, r, err, 2*minSuspects)
			}
		case !errors.As(err, &snapshot) || !strings.Contains(err.Error(), test.want):
			t.Errorf("%s: got %v, want a SnapshotError with %q", name, err, test.want)
		}
	}
}

// TestBasePathIsBound: a ledger belongs to a base path. A ledger without a path, of an earlier version, takes the
// first.
func TestBasePathIsBound(t *testing.T) {
	l, o := openTest(t) // without a path, as an earlier version
	closed(t, l)
	v1, live := o, o
	v1.Environment.APIPath, live.Environment.APIPath = "/v1", "/live/v1"
	l = reopen(t, v1)
	if got, err := l.Environment(t.Context()); err != nil || got != v1.Environment {
		t.Errorf("Environment: got %v, %v; want %v", got, err, v1.Environment)
	}
	bindings, err := l.Bindings(t.Context())
	if err != nil || len(bindings) != 1 || bindings[0].Environment != testEnvironment {
		t.Errorf("got bindings %v, %v; want the earlier one only", bindings, err)
	}
	closed(t, l)
	closed(t, reopen(t, v1))
	wantEnvironmentError(t, live, "API api.example.com/v1 with key id \"key-1\", but this run uses API "+
		"api.example.com/live/v1 with key id \"key-1\": use another data directory")
	live.Environment.APIKeyID, live.Rebind = "key-2", true
	wantEnvironmentError(t, live, "use another data directory")

	fresh := testOptions(filepath.Join(t.TempDir(), "ledger.db"))
	fresh.Environment.APIPath = "/"
	closed(t, reopen(t, fresh))
	fresh.Environment.APIPath = "/v1"
	wantEnvironmentError(t, fresh, "another data directory")
}
