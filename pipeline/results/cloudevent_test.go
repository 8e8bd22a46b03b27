package results

import (
	"net/url"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/pipeline"
)

// settled returns a row as it was settled, at version 7.
func settled(stage pipeline.Stage) pipeline.Record {
	r := row(0, stage, "screening")
	r.Version = 7
	r.AcceptedAt = time.Date(2026, 11, 27, 2, 15, 0, 123456000, time.UTC)
	r.UpdatedAt = r.AcceptedAt.Add(90 * time.Second)
	return r
}

// TestCloudEventHeaders: an event is a CloudEvent in binary mode, with the attributes that the specification requires.
func TestCloudEventHeaders(t *testing.T) {
	outbox, results := &memoryOutbox{rows: []pipeline.Record{settled(pipeline.Onboarded)}}, &topic{}
	from := Origin{Source: Source("api.example:8443", "/v1"), Run: "01a21b7a-70ac-7c0c-aba4-31e576540927"}
	if err := NewRelay(outbox, results, "results", from).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := results.messages[0]
	account := settled(pipeline.Onboarded).Account.String()
	const value = `{"v":1,"chainId":"eip155:300:0x0100000000000000000000000000000000000000","externalId":"0",` +
		`"stage":"onboarded","partnerStatus":"screening","importId":"i","file":"export.csv","line":2,` +
		`"settledAt":"2026-11-27T02:16:30.123456Z"}`
	if string(m.Value) != value {
		t.Errorf("got value %s, want it as in earlier versions: %s", m.Value, value)
	}
	for key, want := range map[string]string{
		"ce_specversion": "1.0", "ce_source": "/purser/api.example:8443/v1", "ce_subject": account,
		"ce_type": "com.github.purser-onboard.row.onboarded", "ce_time": "2026-11-27T02:16:30.123456Z",
		"content-type": "application/json", "ce_purserrun": from.Run, "ce_id": "6afbf810-d91d-5edc-a80f-4b74ce7c6e58",
	} {
		if got := m.Header(key); got != want {
			t.Errorf("got header %s %q, want %q", key, got, want)
		}
	}
	if len(m.Headers) != 8 {
		t.Errorf("got %d headers, want 8: %q", len(m.Headers), m.Headers)
	}
}

// TestEventIDs: an event that is published again has the same id, also after `reconcile` has changed the row; another
// settlement has another.
func TestEventIDs(t *testing.T) {
	first := settled(pipeline.Failed)
	for name, tt := range map[string]struct {
		change func(*pipeline.Record)
		same   bool
	}{
		"published again":          {func(*pipeline.Record) {}, true},
		"reconciled":               {func(r *pipeline.Record) { r.PartnerStatus, r.UpdatedAt = "active", r.UpdatedAt.Add(1e9) }, true},
		"by the next owner":        {func(r *pipeline.Record) { r.ID = 99 }, true},
		"time in another location": {func(r *pipeline.Record) { r.AcceptedAt = r.AcceptedAt.In(time.FixedZone("", 3600)) }, true},
		"settled again":            {func(r *pipeline.Record) { r.Version += 5 }, false},
		"another end":              {func(r *pipeline.Record) { r.Stage = pipeline.Onboarded }, false},
		"ledger lost":              {func(r *pipeline.Record) { r.AcceptedAt = r.AcceptedAt.Add(time.Microsecond) }, false},
		"another externalId":       {func(r *pipeline.Record) { r.ExternalID = "1" }, false},
		"another account":          {func(r *pipeline.Record) { r.Account.Chain = 324 }, false},
	} {
		second := settled(pipeline.Failed)
		tt.change(&second)
		if got := eventID(second); (got == eventID(first)) != tt.same || got == uuid.Nil {
			t.Errorf("%s: got id %s, the first event has %s; want the same: %v", name, got, eventID(first), tt.same)
		}
	}
}

// TestSource: a source is a URI reference, whatever the host and path.
func TestSource(t *testing.T) {
	for _, tt := range []struct{ host, path, want string }{
		{"api.offblocks.xyz", "/v1", "/purser/api.offblocks.xyz/v1"},
		{"api.offblocks.xyz", "/", "/purser/api.offblocks.xyz"},
		{"127.0.0.1:8420", "/a%2Fb/v1/", "/purser/127.0.0.1:8420/a%2Fb/v1"},
		{"[::1]:8420", "", "/purser/%5B::1%5D:8420"},
	} {
		got := Source(tt.host, tt.path)
		if u, err := url.Parse(got); got != tt.want || err != nil || u.String() != got {
			t.Errorf("%s, %s: got source %s (%v), want %s", tt.host, tt.path, got, err, tt.want)
		}
	}
}
