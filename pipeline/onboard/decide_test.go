package onboard

import (
	"testing"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// TestTableIsWhole checks each cell of the table: its last branch always holds, its stages may follow each other, and
// each bad end has a class.
func TestTableIsWhole(t *testing.T) {
	for _, s := range pipeline.Stages() {
		for _, o := range Outcomes() {
			cell := Cell(s, o)
			if s.Terminal() && len(cell) > 0 {
				t.Errorf("%s, %q: got %d branches, want none: the stage is terminal", s, o, len(cell))
			}
			for i, b := range cell {
				d := b.Then
				if last := i == len(cell)-1; last != (b.When == Always) {
					t.Errorf("%s, %q: branch %d of %d: got condition %q, want only the last to be %q", s, o, i+1, len(cell), b.When,
						Always)
				}
				next := d.Stage
				if next == "" {
					next = s
				}
				if !s.CanBecome(next) {
					t.Errorf("%s, %q: got next stage %s, want one that may follow", s, o, next)
				}
				if next.Terminal() != (d.Do == DoSettle) {
					t.Errorf("%s, %q: got stage %s with action %q, want %q for terminal stages only", s, o, next, d.Do, DoSettle)
				}
				needsClass := next == pipeline.Failed || next == pipeline.Conflict || next == pipeline.Refused || d.Do == DoHalt
				if needsClass != (d.Class != "") {
					t.Errorf("%s, %q: got class %q with stage %s and action %q, want a class: %v",
						s, o, d.Class, next, d.Do, needsClass)
				}
				if d.Do == DoRekey && o.Costs() {
					t.Errorf("%s, %q: got action %q, want a look-up of the customer before a new key", s, o, d.Do)
				}
			}
		}
	}
}

var (
	day    = time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)
	fresh  = day.Add(-10 * time.Minute)
	near   = day.Add(-56 * time.Minute)
	old    = day.Add(-2 * time.Hour)
	future = day.Add(10 * time.Minute)
)

func TestDecide(t *testing.T) {
	limits := DefaultLimits()
	limits.RetryMin = 500 * time.Millisecond
	halt := func(s pipeline.Stage, class Class) Disposition {
		return Disposition{Stage: s, Do: DoHalt, Class: class}
	}
	end := func(s pipeline.Stage, class Class) Disposition {
		return Disposition{Stage: s, Do: DoSettle, Class: class}
	}
	settled := func(s pipeline.Stage, class Class) Disposition {
		return Disposition{Stage: s, Do: DoSettle, Class: class, Key: pipeline.KeySettled}
	}
	wait := func(s pipeline.Stage, do Action, key pipeline.KeyOutcome, after time.Duration) Disposition {
		return Disposition{Stage: s, Do: do, Wait: true, Key: key, After: after}
	}
	const half = 500 * time.Millisecond
	tests := []struct {
		name string
		in   Situation
		want Disposition
	}{
		{"planned, known customer still initiating", Situation{Stage: pipeline.Planned, Outcome: Initiating}, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},
		{"planned, known customer past", Situation{Stage: pipeline.Planned, Outcome: Past}, end(pipeline.Onboarded, "")},
		{"planned, known customer rejected", Situation{Stage: pipeline.Planned, Outcome: RejectedThere}, end(pipeline.Rejected, "")},
		{"planned, known customer gone", Situation{Stage: pipeline.Planned, Outcome: Absent}, Disposition{Stage: pipeline.Creating, Do: DoLookUp}},
		{"planned, no key", Situation{Stage: pipeline.Planned, Outcome: NoKey}, end(pipeline.Failed, "no-key")},
		{"planned, signer does not say", Situation{Stage: pipeline.Planned, Outcome: SignerFailed, Attempts: 1}, wait(pipeline.Planned, DoNext, "", half)},
		{"planned, key may not be used", Situation{Stage: pipeline.Planned, Outcome: Declined}, end(pipeline.Failed, "declined")},
		{"planned, key of another account", Situation{Stage: pipeline.Planned, Outcome: Mismatch}, end(pipeline.Failed, "signer-mismatch")},
		{"planned, signer lost", Situation{Stage: pipeline.Planned, Outcome: SignerLost}, halt(pipeline.Planned, "signer")},
		{"planned, id leads to another", Situation{Stage: pipeline.Planned, Outcome: Other}, Disposition{Stage: pipeline.Creating, Do: DoLookUp}},

		{"201", Situation{Stage: pipeline.Creating, Outcome: Created}, Disposition{Stage: pipeline.Challenged, Do: DoNext, Key: pipeline.KeySettled}},
		{"create unknown", Situation{Stage: pipeline.Creating, Outcome: Unknown, Attempts: 1}, wait(pipeline.Creating, DoNext, pipeline.KeyOpen, half)},
		{"create unknown, fourth", Situation{Stage: pipeline.Creating, Outcome: Unknown, Attempts: 4}, wait(pipeline.Creating, DoNext, pipeline.KeyOpen, 8*half)},
		{"create unknown, spent", Situation{Stage: pipeline.Creating, Outcome: Unknown, Attempts: 12}, end(pipeline.Failed, "no-answer")},
		{"create throttled", Situation{Stage: pipeline.Creating, Outcome: Throttled, RetryAfter: 7 * time.Second}, wait(pipeline.Creating, DoRepeat, "", 7*time.Second)},
		{"create throttled costs no try", Situation{Stage: pipeline.Creating, Outcome: Throttled, Attempts: 99}, wait(pipeline.Creating, DoRepeat, "", time.Minute)},
		{"create not sent", Situation{Stage: pipeline.Creating, Outcome: NotSent}, wait(pipeline.Creating, DoRepeat, "", half)},
		{"create 5xx", Situation{Stage: pipeline.Creating, Outcome: ServerFailed, Attempts: 1}, wait(pipeline.Creating, DoNext, pipeline.KeyHeard, half)},
		{"create 5xx after silence", Situation{Stage: pipeline.Creating, Outcome: ServerFailed, Attempts: 3, Heard: 1}, wait(pipeline.Creating, DoNext, pipeline.KeyHeard, 4*half)},
		{"create 5xx, second", Situation{Stage: pipeline.Creating, Outcome: ServerFailed, Attempts: 2, Heard: 2}, Disposition{Stage: pipeline.Creating, Do: DoLookUp, Key: pipeline.KeyAnswered}},
		{"create 5xx, spent", Situation{Stage: pipeline.Creating, Outcome: ServerFailed, Attempts: 12}, end(pipeline.Failed, "server-error")},
		{"create 409", Situation{Stage: pipeline.Creating, Outcome: Conflicting, Attempts: 1}, Disposition{Stage: pipeline.Creating, Do: DoLookUp, Key: pipeline.KeyOpen}},
		{"create 409, spent", Situation{Stage: pipeline.Creating, Outcome: Conflicting, Attempts: 12}, end(pipeline.Failed, "conflict-unresolved")},
		{"create 422", Situation{Stage: pipeline.Creating, Outcome: Unprocessable, Attempts: 1}, wait(pipeline.Creating, DoLookUp, pipeline.KeyAnswered, half)},
		{"create 422, third", Situation{Stage: pipeline.Creating, Outcome: Unprocessable, Attempts: 3}, end(pipeline.Failed, "unprocessable")},
		{"create 400", Situation{Stage: pipeline.Creating, Outcome: Invalid}, settled(pipeline.Failed, "invalid")},
		{"create 404", Situation{Stage: pipeline.Creating, Outcome: NotFound}, halt(pipeline.Creating, "configuration")},
		{"create odd", Situation{Stage: pipeline.Creating, Outcome: Odd}, Disposition{Stage: pipeline.Failed, Do: DoSettle, Class: "unexpected", Key: pipeline.KeyAnswered}},
		{"create 401", Situation{Stage: pipeline.Creating, Outcome: Misconfigured}, halt(pipeline.Creating, "configuration")},
		{"looked up: initiating", Situation{Stage: pipeline.Creating, Outcome: Initiating}, Disposition{Stage: pipeline.Challenged, Do: DoFetch, Key: pipeline.KeySettled}},
		{"looked up: past", Situation{Stage: pipeline.Creating, Outcome: Past}, settled(pipeline.Onboarded, "")},
		{"looked up: rejected", Situation{Stage: pipeline.Creating, Outcome: RejectedThere}, settled(pipeline.Rejected, "")},
		{"looked up: another pair", Situation{Stage: pipeline.Creating, Outcome: Other}, settled(pipeline.Conflict, "taken")},
		{"absent, key open and fresh", Situation{Stage: pipeline.Creating, Outcome: Absent, KeyFirst: fresh, KeyOutcome: pipeline.KeyOpen, Attempts: 1}, wait(pipeline.Creating, DoCreate, "", half)},
		{"absent, key answered", Situation{Stage: pipeline.Creating, Outcome: Absent, KeyFirst: fresh, KeyOutcome: pipeline.KeyAnswered}, Disposition{Stage: pipeline.Creating, Do: DoRekey}},
		{"absent, key open and old", Situation{Stage: pipeline.Creating, Outcome: Absent, KeyFirst: old, KeyOutcome: pipeline.KeyOpen}, wait(pipeline.Creating, DoCreate, "", half)},
		{"absent, foreign key", Situation{Stage: pipeline.Creating, Outcome: Absent, KeyFirst: fresh, KeyOutcome: pipeline.KeyOpen, KeyForeign: true}, Disposition{Stage: pipeline.Creating, Do: DoRekey}},
		{"unlisted, key fresh", Situation{Stage: pipeline.Creating, Outcome: Unlisted, KeyFirst: fresh, KeyOutcome: pipeline.KeyOpen, Attempts: 1}, wait(pipeline.Creating, DoCreate, "", half)},
		{"unlisted, key old", Situation{Stage: pipeline.Creating, Outcome: Unlisted, KeyFirst: old, KeyOutcome: pipeline.KeyOpen, Attempts: 1}, end(pipeline.Failed, "conflict-unresolved")},
		{"unlisted, foreign key", Situation{Stage: pipeline.Creating, Outcome: Unlisted, KeyFirst: fresh, KeyOutcome: pipeline.KeyOpen, KeyForeign: true, Attempts: 1}, end(pipeline.Failed, "conflict-unresolved")},
		{"unlisted, spent", Situation{Stage: pipeline.Creating, Outcome: Unlisted, KeyFirst: fresh, KeyOutcome: pipeline.KeyOpen, Attempts: 12}, end(pipeline.Failed, "conflict-unresolved")},
		{"looked up: undocumented status", Situation{Stage: pipeline.Creating, Outcome: OddCustomer}, end(pipeline.Failed, "unexpected")},
		{"create of no known shape", Situation{Stage: pipeline.Creating, Outcome: Unrecognized, Attempts: 1}, wait(pipeline.Creating, DoRepeat, "", half)},
		{"create of no known shape, spent", Situation{Stage: pipeline.Creating, Outcome: Unrecognized, Attempts: 12}, end(pipeline.Failed, "unrecognized")},
		{"absent, no key", Situation{Stage: pipeline.Creating, Outcome: Absent}, wait(pipeline.Creating, DoCreate, "", half)},
		{"look-up failed", Situation{Stage: pipeline.Creating, Outcome: ReadFailed, Attempts: 2}, wait(pipeline.Creating, DoRepeat, "", 2*half)},
		{"look-up failed, spent", Situation{Stage: pipeline.Creating, Outcome: ReadFailed, Attempts: 12}, end(pipeline.Failed, "no-answer")},

		{"challenge fetched", Situation{Stage: pipeline.Challenged, Outcome: GotChallenge}, Disposition{Stage: pipeline.Challenged, Do: DoCheck}},
		{"challenge good", Situation{Stage: pipeline.Challenged, Outcome: CheckPassed}, Disposition{Stage: pipeline.Signing, Do: DoSign}},
		{"challenge hostile", Situation{Stage: pipeline.Challenged, Outcome: Hostile}, end(pipeline.Refused, "challenge")},
		{"challenge near its end", Situation{Stage: pipeline.Challenged, Outcome: Expiring, Attempts: 1}, wait(pipeline.Challenged, DoFetch, "", half)},
		{"challenge near its end, spent", Situation{Stage: pipeline.Challenged, Outcome: Expiring, Attempts: 12}, end(pipeline.Failed, "challenge-expired")},
		{"no challenge", Situation{Stage: pipeline.Challenged, Outcome: NoChallenge, Attempts: 1}, wait(pipeline.Challenged, DoRead, "", half)},
		{"no challenge, spent", Situation{Stage: pipeline.Challenged, Outcome: NoChallenge, Attempts: 12}, end(pipeline.Failed, "no-challenge")},
		{"read: initiating", Situation{Stage: pipeline.Challenged, Outcome: Initiating}, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},
		{"read: past", Situation{Stage: pipeline.Challenged, Outcome: Past}, end(pipeline.Onboarded, "")},
		{"read: rejected", Situation{Stage: pipeline.Challenged, Outcome: RejectedThere}, end(pipeline.Rejected, "")},
		{"read: gone", Situation{Stage: pipeline.Challenged, Outcome: Absent}, end(pipeline.Failed, "customer-gone")},
		{"read: another", Situation{Stage: pipeline.Challenged, Outcome: Other}, end(pipeline.Failed, "customer-gone")},
		{"fetch 401", Situation{Stage: pipeline.Challenged, Outcome: Misconfigured}, halt(pipeline.Challenged, "configuration")},

		{"signed", Situation{Stage: pipeline.Signing, Outcome: Signed}, Disposition{Stage: pipeline.Submitting, Do: DoSubmit}},
		{"hostile on second sight", Situation{Stage: pipeline.Signing, Outcome: Hostile}, end(pipeline.Refused, "challenge")},
		{"expired while signing", Situation{Stage: pipeline.Signing, Outcome: Expiring, Attempts: 1}, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},
		{"no key", Situation{Stage: pipeline.Signing, Outcome: NoKey}, end(pipeline.Failed, "no-key")},
		{"declined", Situation{Stage: pipeline.Signing, Outcome: Declined}, end(pipeline.Failed, "declined")},
		{"mismatch", Situation{Stage: pipeline.Signing, Outcome: Mismatch}, end(pipeline.Failed, "signer-mismatch")},
		{"signer error", Situation{Stage: pipeline.Signing, Outcome: SignerFailed, Attempts: 1}, wait(pipeline.Signing, DoNext, "", half)},
		{"signer error, spent", Situation{Stage: pipeline.Signing, Outcome: SignerFailed, Attempts: 12}, end(pipeline.Failed, "signer-error")},
		{"waiting for the custodian", Situation{Stage: pipeline.Signing, Outcome: Waiting, Attempts: 3}, wait(pipeline.Signing, DoRepeat, "", 4*half)},
		{"signer lost", Situation{Stage: pipeline.Signing, Outcome: SignerLost}, halt(pipeline.Signing, "signer")},

		{"204", Situation{Stage: pipeline.Submitting, Outcome: Accepted}, settled(pipeline.Onboarded, "")},
		{"submit unknown", Situation{Stage: pipeline.Submitting, Outcome: Unknown, Attempts: 1}, Disposition{Stage: pipeline.Submitting, Do: DoRead, Key: pipeline.KeyOpen}},
		{"submit unknown, spent", Situation{Stage: pipeline.Submitting, Outcome: Unknown, Attempts: 12}, Disposition{Stage: pipeline.Submitting, Do: DoRead, Key: pipeline.KeyOpen}},
		{"submit 5xx", Situation{Stage: pipeline.Submitting, Outcome: ServerFailed, Attempts: 2}, Disposition{Stage: pipeline.Submitting, Do: DoRead, Key: pipeline.KeyAnswered}},
		{"submit 5xx, spent", Situation{Stage: pipeline.Submitting, Outcome: ServerFailed, Attempts: 12}, Disposition{Stage: pipeline.Submitting, Do: DoRead, Key: pipeline.KeyAnswered}},
		{"submit another 2xx", Situation{Stage: pipeline.Submitting, Outcome: Unproven, Attempts: 1}, Disposition{Stage: pipeline.Submitting, Do: DoRead, Key: pipeline.KeyAnswered}},
		{"submit in another encoding", Situation{Stage: pipeline.Submitting, Outcome: OldForm}, Disposition{Stage: pipeline.Submitting, Do: DoRead, Key: pipeline.KeyRefused}},
		{"still initiating, spent", Situation{Stage: pipeline.Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: pipeline.KeyOpen, ChallengeAt: fresh, Attempts: 12}, end(pipeline.Failed, "no-answer")},
		{"still initiating, spent on answers", Situation{Stage: pipeline.Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: pipeline.KeyAnswered, ChallengeAt: fresh, Attempts: 12}, end(pipeline.Failed, "server-error")},
		{"still initiating, spent on unproven answers", Situation{Stage: pipeline.Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: pipeline.KeyAnswered, ChallengeAt: fresh, Attempts: 12, Last: Unproven}, end(pipeline.Failed, "unexpected")},
		{"still initiating, foreign key", Situation{Stage: pipeline.Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: pipeline.KeyOpen, ChallengeAt: fresh, KeyForeign: true}, Disposition{Stage: pipeline.Submitting, Do: DoRekey}},
		{"submit 400", Situation{Stage: pipeline.Submitting, Outcome: Invalid, Refusals: 1}, Disposition{Stage: pipeline.Submitting, Do: DoRead, Key: pipeline.KeyRefused}},
		{"submit 409", Situation{Stage: pipeline.Submitting, Outcome: Conflicting, Attempts: 1}, Disposition{Stage: pipeline.Submitting, Do: DoRead, Key: pipeline.KeyOpen}},
		{"submit 409, spent", Situation{Stage: pipeline.Submitting, Outcome: Conflicting, Attempts: 12}, end(pipeline.Failed, "conflict-unresolved")},
		{"submit 422", Situation{Stage: pipeline.Submitting, Outcome: Unprocessable, Attempts: 1}, wait(pipeline.Submitting, DoRead, pipeline.KeyAnswered, half)},
		{"submit 422, third", Situation{Stage: pipeline.Submitting, Outcome: Unprocessable, Attempts: 3}, end(pipeline.Failed, "unprocessable")},
		{"submit 404", Situation{Stage: pipeline.Submitting, Outcome: NotFound, Attempts: 1}, wait(pipeline.Submitting, DoRead, pipeline.KeyAnswered, half)},
		{"submit 404, third", Situation{Stage: pipeline.Submitting, Outcome: NotFound, Attempts: 3}, end(pipeline.Failed, "customer-gone")},
		{"submit odd", Situation{Stage: pipeline.Submitting, Outcome: Odd}, Disposition{Stage: pipeline.Failed, Do: DoSettle, Class: "unexpected", Key: pipeline.KeyAnswered}},
		{"after submit: past", Situation{Stage: pipeline.Submitting, Outcome: Past}, settled(pipeline.Onboarded, "")},
		{"after submit: rejected", Situation{Stage: pipeline.Submitting, Outcome: RejectedThere}, settled(pipeline.Rejected, "")},
		{"after submit: gone", Situation{Stage: pipeline.Submitting, Outcome: Absent}, end(pipeline.Failed, "customer-gone")},
		{"after submit: another", Situation{Stage: pipeline.Submitting, Outcome: Other}, end(pipeline.Failed, "customer-gone")},
		{"refused once", Situation{Stage: pipeline.Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: pipeline.KeyRefused, ChallengeAt: fresh, Refusals: 1}, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},
		{"refused thrice", Situation{Stage: pipeline.Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: pipeline.KeyRefused, ChallengeAt: fresh, Refusals: 3}, end(pipeline.Failed, "signature-refused")},
		{"still initiating, 5xx stored", Situation{Stage: pipeline.Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: pipeline.KeyAnswered, ChallengeAt: fresh, Attempts: 1}, wait(pipeline.Submitting, DoRekey, "", half)},
		{"still initiating, in flight", Situation{Stage: pipeline.Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: pipeline.KeyOpen, ChallengeAt: fresh, Attempts: 1}, wait(pipeline.Submitting, DoSubmit, "", half)},
		{"still initiating, key old", Situation{Stage: pipeline.Submitting, Outcome: Initiating, KeyFirst: old, KeyOutcome: pipeline.KeyOpen, ChallengeAt: fresh}, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},
		{"still initiating, challenge old", Situation{Stage: pipeline.Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: pipeline.KeyAnswered, ChallengeAt: old}, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},

		{"cannot meet", Situation{Stage: pipeline.Signing, Outcome: Created}, halt(pipeline.Signing, "impossible")},
		{"terminal", Situation{Stage: pipeline.Onboarded, Outcome: Created}, halt(pipeline.Onboarded, "impossible")},
	}
	seen := map[pipeline.Stage]map[Outcome]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.in.Now = day
			if got := Decide(tt.in, limits); got != tt.want {
				t.Errorf("Decide(%s, %s)\n got %+v\nwant %+v", tt.in.Stage, tt.in.Outcome, got, tt.want)
			}
		})
		if seen[tt.in.Stage] == nil {
			seen[tt.in.Stage] = map[Outcome]bool{}
		}
		seen[tt.in.Stage][tt.in.Outcome] = true
	}
	everywhere := map[Outcome]bool{Unrecognized: true, OddCustomer: true, Misconfigured: true, Throttled: true, NotSent: true, ReadFailed: true}
	for _, s := range pipeline.Stages() {
		for _, o := range Outcomes() {
			if len(Cell(s, o)) > 0 && !everywhere[o] && !seen[s][o] {
				t.Errorf("got no test of the cell %s, %q, want one", s, o)
			}
		}
	}
}

func TestBackoff(t *testing.T) {
	l := DefaultLimits()
	for attempts, want := range map[int]time.Duration{
		0: 100 * time.Millisecond, 1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 6: 3200 * time.Millisecond,
		11: time.Minute, 1000: time.Minute,
	} {
		if got := l.Backoff(attempts, l.RetryMax, 0, 0); got != want {
			t.Errorf("Backoff(%d): got %v, want %v", attempts, got, want)
		}
	}
	if got, want := l.Backoff(1000, l.RetryAlone, 0.5, 0), 3*time.Second; got != want {
		t.Errorf("with half of the jitter: got %v, want %v", got, want)
	}
	if got, want := l.Backoff(1, l.RetryMax, 1, 5*time.Minute), 5*time.Minute; got != want {
		t.Errorf("with a Retry-After: got %v, want %v", got, want)
	}
}

// TestBackoffOfOneRow: while the partner answers other rows, a failing row is tried again within seconds.
func TestBackoffOfOneRow(t *testing.T) {
	l := DefaultLimits()
	s := Situation{Stage: pipeline.Creating, Outcome: Unknown, Now: day, Attempts: 11}
	if got := Decide(s, l).After; got != l.RetryMax {
		t.Errorf("partner does not answer: got a wait of %v, want %v", got, l.RetryMax)
	}
	s.PartnerIsUp = true
	if got := Decide(s, l).After; got != l.RetryAlone {
		t.Errorf("partner answers: got a wait of %v, want %v", got, l.RetryAlone)
	}
}

func TestNext(t *testing.T) {
	l := DefaultLimits()
	key := func(at time.Time, o pipeline.KeyOutcome) pipeline.Key { return pipeline.Key{FirstSent: at, Outcome: o} }
	tests := []struct {
		name    string
		r       pipeline.Record
		want    Action
		foreign bool // the key was derived for an earlier API key id
	}{
		{name: "new", r: pipeline.Record{Stage: pipeline.Planned}, want: DoCreate},
		{name: "restarted, foreign key", r: pipeline.Record{Stage: pipeline.Planned, CreateKey: key(fresh, pipeline.KeyAnswered)}, want: DoLookUp, foreign: true},
		{name: "creating, foreign key", r: pipeline.Record{Stage: pipeline.Creating, CreateKey: key(fresh, pipeline.KeyOpen)}, want: DoLookUp, foreign: true},
		{name: "submitting, foreign key", r: pipeline.Record{Stage: pipeline.Submitting, SubmitKey: key(fresh, pipeline.KeyOpen)}, want: DoRead, foreign: true},
		{name: "restarted, key open", r: pipeline.Record{Stage: pipeline.Planned, CreateKey: key(fresh, pipeline.KeyOpen)}, want: DoCreate},
		{name: "restarted, key open and old", r: pipeline.Record{Stage: pipeline.Planned, CreateKey: key(old, pipeline.KeyOpen)}, want: DoLookUp},
		{name: "restarted, key answered", r: pipeline.Record{Stage: pipeline.Planned, CreateKey: key(fresh, pipeline.KeyAnswered)}, want: DoRekey},
		{name: "restarted, key settled", r: pipeline.Record{Stage: pipeline.Planned, CreateKey: key(old, pipeline.KeySettled)}, want: DoRekey},
		{name: "restarted, customer known", r: pipeline.Record{Stage: pipeline.Planned, CustomerID: "c", CreateKey: key(old, pipeline.KeySettled)}, want: DoRead},
		{name: "creating", r: pipeline.Record{Stage: pipeline.Creating, CreateKey: key(fresh, pipeline.KeyOpen)}, want: DoCreate},
		{name: "creating, key answered", r: pipeline.Record{Stage: pipeline.Creating, CreateKey: key(fresh, pipeline.KeyAnswered)}, want: DoLookUp},
		{name: "creating, key heard", r: pipeline.Record{Stage: pipeline.Creating, CreateKey: key(fresh, pipeline.KeyHeard)}, want: DoCreate},
		{name: "submitting, key answered", r: pipeline.Record{Stage: pipeline.Submitting, SubmitKey: key(fresh, pipeline.KeyAnswered)}, want: DoRead},
		{name: "creating, near the hour", r: pipeline.Record{Stage: pipeline.Creating, CreateKey: key(near, pipeline.KeyOpen)}, want: DoLookUp},
		{name: "creating, clock set back", r: pipeline.Record{Stage: pipeline.Creating, CreateKey: key(future, pipeline.KeyOpen)}, want: DoLookUp},
		{name: "creating, no key", r: pipeline.Record{Stage: pipeline.Creating}, want: DoLookUp},
		{name: "challenged", r: pipeline.Record{Stage: pipeline.Challenged, Challenge: "x", ChallengeAt: fresh}, want: DoCheck},
		{name: "challenged, near the hour", r: pipeline.Record{Stage: pipeline.Challenged, Challenge: "x", ChallengeAt: near}, want: DoFetch},
		{name: "challenged, none", r: pipeline.Record{Stage: pipeline.Challenged}, want: DoFetch},
		{name: "signing", r: pipeline.Record{Stage: pipeline.Signing}, want: DoSign},
		{name: "submitting", r: pipeline.Record{Stage: pipeline.Submitting, SubmitKey: key(fresh, pipeline.KeyOpen)}, want: DoSubmit},
		{name: "submitting, not accepted", r: pipeline.Record{Stage: pipeline.Submitting, SubmitKey: key(fresh, pipeline.KeyRefused)}, want: DoRead},
		{name: "submitting, old", r: pipeline.Record{Stage: pipeline.Submitting, SubmitKey: key(old, pipeline.KeyOpen)}, want: DoRead},
		{name: "terminal", r: pipeline.Record{Stage: pipeline.Onboarded}, want: DoSettle},
	}
	for _, tt := range tests {
		if got := Next(tt.r, day, l, tt.foreign); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
