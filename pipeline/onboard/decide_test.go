package onboard

import (
	"testing"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// outcomes lists every outcome.
func outcomes() []outcome {
	return []outcome{
		throttled, notSent, misconfigured, unrecognized,
		created, accepted, unproven, oldForm, unknown, serverFailed, conflicting, unprocessable, invalid, notFound, odd,
		absent, initiating, past, rejectedThere, oddCustomer, other, unlisted, readFailed,
		gotChallenge, noChallenge, checkPassed, hostile, expiring,
		signed, noKey, declined, mismatch, signerFailed, signerLost, waiting,
	}
}

// TestTableIsWhole checks each cell of the table: its last branch always holds, its stages may follow each other, and
// each bad end has a class.
func TestTableIsWhole(t *testing.T) {
	for _, s := range pipeline.Stages() {
		for _, o := range outcomes() {
			cell := cell(s, o)
			if s.Terminal() && len(cell) > 0 {
				t.Errorf("%s, %q: got %d branches, want none: the stage is terminal", s, o, len(cell))
			}
			for i, b := range cell {
				d := b.Then
				if last := i == len(cell)-1; last != (b.When == otherwise) {
					t.Errorf("%s, %q: branch %d of %d: got condition %q, want only the last to be %q", s, o, i+1, len(cell), b.When,
						otherwise)
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
				if d.Do == DoRekey && o.costs() {
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
	wait := func(s pipeline.Stage, do Action, key pipeline.KeyState, after time.Duration) Disposition {
		return Disposition{Stage: s, Do: do, Wait: true, Key: key, After: after}
	}
	const half = 500 * time.Millisecond
	tests := []struct {
		name string
		in   situation
		want Disposition
	}{
		{"planned, known customer still initiating", situation{Stage: pipeline.Planned, Outcome: initiating}, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},
		{"planned, known customer past", situation{Stage: pipeline.Planned, Outcome: past}, end(pipeline.Onboarded, "")},
		{"planned, known customer rejected", situation{Stage: pipeline.Planned, Outcome: rejectedThere}, end(pipeline.Rejected, "")},
		{"planned, known customer gone", situation{Stage: pipeline.Planned, Outcome: absent}, Disposition{Stage: pipeline.Creating, Do: DoLookUp}},
		{"planned, no key", situation{Stage: pipeline.Planned, Outcome: noKey}, end(pipeline.Failed, "no-key")},
		{"planned, signer does not say", situation{Stage: pipeline.Planned, Outcome: signerFailed, Attempts: 1}, wait(pipeline.Planned, DoNext, "", half)},
		{"planned, key may not be used", situation{Stage: pipeline.Planned, Outcome: declined}, end(pipeline.Failed, "declined")},
		{"planned, key of another account", situation{Stage: pipeline.Planned, Outcome: mismatch}, end(pipeline.Failed, "signer-mismatch")},
		{"planned, signer lost", situation{Stage: pipeline.Planned, Outcome: signerLost}, halt(pipeline.Planned, "signer")},
		{"planned, id leads to another", situation{Stage: pipeline.Planned, Outcome: other}, Disposition{Stage: pipeline.Creating, Do: DoLookUp}},

		{"201", situation{Stage: pipeline.Creating, Outcome: created}, Disposition{Stage: pipeline.Challenged, Do: DoNext, Key: pipeline.KeySettled}},
		{"create unknown", situation{Stage: pipeline.Creating, Outcome: unknown, Attempts: 1}, wait(pipeline.Creating, DoNext, pipeline.KeyOpen, half)},
		{"create unknown, fourth", situation{Stage: pipeline.Creating, Outcome: unknown, Attempts: 4}, wait(pipeline.Creating, DoNext, pipeline.KeyOpen, 8*half)},
		{"create unknown, spent", situation{Stage: pipeline.Creating, Outcome: unknown, Attempts: 12}, end(pipeline.Failed, "no-answer")},
		{"create throttled", situation{Stage: pipeline.Creating, Outcome: throttled, RetryAfter: 7 * time.Second}, wait(pipeline.Creating, DoRepeat, "", 7*time.Second)},
		{"create throttled costs no try", situation{Stage: pipeline.Creating, Outcome: throttled, Attempts: 99}, wait(pipeline.Creating, DoRepeat, "", time.Minute)},
		{"create not sent", situation{Stage: pipeline.Creating, Outcome: notSent}, wait(pipeline.Creating, DoRepeat, "", half)},
		{"create 5xx", situation{Stage: pipeline.Creating, Outcome: serverFailed, Attempts: 1}, wait(pipeline.Creating, DoNext, pipeline.KeyHeard, half)},
		{"create 5xx after silence", situation{Stage: pipeline.Creating, Outcome: serverFailed, Attempts: 3, Heard: 1}, wait(pipeline.Creating, DoNext, pipeline.KeyHeard, 4*half)},
		{"create 5xx, second", situation{Stage: pipeline.Creating, Outcome: serverFailed, Attempts: 2, Heard: 2}, Disposition{Stage: pipeline.Creating, Do: DoLookUp, Key: pipeline.KeyAnswered}},
		{"create 5xx, spent", situation{Stage: pipeline.Creating, Outcome: serverFailed, Attempts: 12}, end(pipeline.Failed, "server-error")},
		{"create 409", situation{Stage: pipeline.Creating, Outcome: conflicting, Attempts: 1}, Disposition{Stage: pipeline.Creating, Do: DoLookUp, Key: pipeline.KeyOpen}},
		{"create 409, spent", situation{Stage: pipeline.Creating, Outcome: conflicting, Attempts: 12}, end(pipeline.Failed, "conflict-unresolved")},
		{"create 422", situation{Stage: pipeline.Creating, Outcome: unprocessable, Attempts: 1}, wait(pipeline.Creating, DoLookUp, pipeline.KeyAnswered, half)},
		{"create 422, third", situation{Stage: pipeline.Creating, Outcome: unprocessable, Attempts: 3}, end(pipeline.Failed, "unprocessable")},
		{"create 400", situation{Stage: pipeline.Creating, Outcome: invalid}, settled(pipeline.Failed, "invalid")},
		{"create 404", situation{Stage: pipeline.Creating, Outcome: notFound}, halt(pipeline.Creating, "configuration")},
		{"create odd", situation{Stage: pipeline.Creating, Outcome: odd}, Disposition{Stage: pipeline.Failed, Do: DoSettle, Class: "unexpected", Key: pipeline.KeyAnswered}},
		{"create 401", situation{Stage: pipeline.Creating, Outcome: misconfigured}, halt(pipeline.Creating, "configuration")},
		{"looked up: initiating", situation{Stage: pipeline.Creating, Outcome: initiating}, Disposition{Stage: pipeline.Challenged, Do: DoFetch, Key: pipeline.KeySettled}},
		{"looked up: past", situation{Stage: pipeline.Creating, Outcome: past}, settled(pipeline.Onboarded, "")},
		{"looked up: rejected", situation{Stage: pipeline.Creating, Outcome: rejectedThere}, settled(pipeline.Rejected, "")},
		{"looked up: another pair", situation{Stage: pipeline.Creating, Outcome: other}, settled(pipeline.Conflict, "taken")},
		{"absent, key open and fresh", situation{Stage: pipeline.Creating, Outcome: absent, KeyFirst: fresh, KeyState: pipeline.KeyOpen, Attempts: 1}, wait(pipeline.Creating, DoCreate, "", half)},
		{"absent, key answered", situation{Stage: pipeline.Creating, Outcome: absent, KeyFirst: fresh, KeyState: pipeline.KeyAnswered}, Disposition{Stage: pipeline.Creating, Do: DoRekey}},
		{"absent, key open and old", situation{Stage: pipeline.Creating, Outcome: absent, KeyFirst: old, KeyState: pipeline.KeyOpen}, wait(pipeline.Creating, DoCreate, "", half)},
		{"absent, foreign key", situation{Stage: pipeline.Creating, Outcome: absent, KeyFirst: fresh, KeyState: pipeline.KeyOpen, KeyForeign: true}, Disposition{Stage: pipeline.Creating, Do: DoRekey}},
		{"unlisted, key fresh", situation{Stage: pipeline.Creating, Outcome: unlisted, KeyFirst: fresh, KeyState: pipeline.KeyOpen, Attempts: 1}, wait(pipeline.Creating, DoCreate, "", half)},
		{"unlisted, key old", situation{Stage: pipeline.Creating, Outcome: unlisted, KeyFirst: old, KeyState: pipeline.KeyOpen, Attempts: 1}, end(pipeline.Failed, "conflict-unresolved")},
		{"unlisted, foreign key", situation{Stage: pipeline.Creating, Outcome: unlisted, KeyFirst: fresh, KeyState: pipeline.KeyOpen, KeyForeign: true, Attempts: 1}, end(pipeline.Failed, "conflict-unresolved")},
		{"unlisted, spent", situation{Stage: pipeline.Creating, Outcome: unlisted, KeyFirst: fresh, KeyState: pipeline.KeyOpen, Attempts: 12}, end(pipeline.Failed, "conflict-unresolved")},
		{"looked up: undocumented status", situation{Stage: pipeline.Creating, Outcome: oddCustomer}, end(pipeline.Failed, "unexpected")},
		{"create of no known shape", situation{Stage: pipeline.Creating, Outcome: unrecognized, Attempts: 1}, wait(pipeline.Creating, DoRepeat, "", half)},
		{"create of no known shape, spent", situation{Stage: pipeline.Creating, Outcome: unrecognized, Attempts: 12}, end(pipeline.Failed, "unrecognized")},
		{"absent, no key", situation{Stage: pipeline.Creating, Outcome: absent}, wait(pipeline.Creating, DoCreate, "", half)},
		{"look-up failed", situation{Stage: pipeline.Creating, Outcome: readFailed, Attempts: 2}, wait(pipeline.Creating, DoRepeat, "", 2*half)},
		{"look-up failed, spent", situation{Stage: pipeline.Creating, Outcome: readFailed, Attempts: 12}, end(pipeline.Failed, "no-answer")},

		{"challenge fetched", situation{Stage: pipeline.Challenged, Outcome: gotChallenge}, Disposition{Stage: pipeline.Challenged, Do: DoCheck}},
		{"challenge good", situation{Stage: pipeline.Challenged, Outcome: checkPassed}, Disposition{Stage: pipeline.Signing, Do: DoSign}},
		{"challenge hostile", situation{Stage: pipeline.Challenged, Outcome: hostile}, end(pipeline.Refused, "challenge")},
		{"challenge near its end", situation{Stage: pipeline.Challenged, Outcome: expiring, Attempts: 1}, wait(pipeline.Challenged, DoFetch, "", half)},
		{"challenge near its end, spent", situation{Stage: pipeline.Challenged, Outcome: expiring, Attempts: 12}, end(pipeline.Failed, "challenge-expired")},
		{"no challenge", situation{Stage: pipeline.Challenged, Outcome: noChallenge, Attempts: 1}, wait(pipeline.Challenged, DoRead, "", half)},
		{"no challenge, spent", situation{Stage: pipeline.Challenged, Outcome: noChallenge, Attempts: 12}, end(pipeline.Failed, "no-challenge")},
		{"read: initiating", situation{Stage: pipeline.Challenged, Outcome: initiating}, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},
		{"read: past", situation{Stage: pipeline.Challenged, Outcome: past}, end(pipeline.Onboarded, "")},
		{"read: rejected", situation{Stage: pipeline.Challenged, Outcome: rejectedThere}, end(pipeline.Rejected, "")},
		{"read: gone", situation{Stage: pipeline.Challenged, Outcome: absent}, end(pipeline.Failed, "customer-gone")},
		{"read: another", situation{Stage: pipeline.Challenged, Outcome: other}, end(pipeline.Failed, "customer-gone")},
		{"fetch 401", situation{Stage: pipeline.Challenged, Outcome: misconfigured}, halt(pipeline.Challenged, "configuration")},

		{"signed", situation{Stage: pipeline.Signing, Outcome: signed}, Disposition{Stage: pipeline.Submitting, Do: DoSubmit}},
		{"hostile on second sight", situation{Stage: pipeline.Signing, Outcome: hostile}, end(pipeline.Refused, "challenge")},
		{"expired while signing", situation{Stage: pipeline.Signing, Outcome: expiring, Attempts: 1}, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},
		{"no key", situation{Stage: pipeline.Signing, Outcome: noKey}, end(pipeline.Failed, "no-key")},
		{"declined", situation{Stage: pipeline.Signing, Outcome: declined}, end(pipeline.Failed, "declined")},
		{"mismatch", situation{Stage: pipeline.Signing, Outcome: mismatch}, end(pipeline.Failed, "signer-mismatch")},
		{"signer error", situation{Stage: pipeline.Signing, Outcome: signerFailed, Attempts: 1}, wait(pipeline.Signing, DoNext, "", half)},
		{"signer error, spent", situation{Stage: pipeline.Signing, Outcome: signerFailed, Attempts: 12}, end(pipeline.Failed, "signer-error")},
		{"waiting for the custodian", situation{Stage: pipeline.Signing, Outcome: waiting, Attempts: 3}, wait(pipeline.Signing, DoRepeat, "", 4*half)},
		{"signer lost", situation{Stage: pipeline.Signing, Outcome: signerLost}, halt(pipeline.Signing, "signer")},

		{"204", situation{Stage: pipeline.Submitting, Outcome: accepted}, settled(pipeline.Onboarded, "")},
		{"submit unknown", situation{Stage: pipeline.Submitting, Outcome: unknown, Attempts: 1}, wait(pipeline.Submitting, DoNext, pipeline.KeyOpen, half)},
		{"submit unknown, second", situation{Stage: pipeline.Submitting, Outcome: unknown, Attempts: 2}, Disposition{Stage: pipeline.Submitting, Do: DoRead, Key: pipeline.KeyOpen}},
		{"submit unknown, spent", situation{Stage: pipeline.Submitting, Outcome: unknown, Attempts: 12}, Disposition{Stage: pipeline.Submitting, Do: DoRead, Key: pipeline.KeyOpen}},
		{"submit 5xx", situation{Stage: pipeline.Submitting, Outcome: serverFailed, Attempts: 2}, Disposition{Stage: pipeline.Submitting, Do: DoRead, Key: pipeline.KeyAnswered}},
		{"submit 5xx, spent", situation{Stage: pipeline.Submitting, Outcome: serverFailed, Attempts: 12}, Disposition{Stage: pipeline.Submitting, Do: DoRead, Key: pipeline.KeyAnswered}},
		{"submit another 2xx", situation{Stage: pipeline.Submitting, Outcome: unproven, Attempts: 1}, Disposition{Stage: pipeline.Submitting, Do: DoRead, Key: pipeline.KeyAnswered}},
		{"submit in another encoding", situation{Stage: pipeline.Submitting, Outcome: oldForm}, Disposition{Stage: pipeline.Submitting, Do: DoRead, Key: pipeline.KeyRefused}},
		{"still initiating, spent", situation{Stage: pipeline.Submitting, Outcome: initiating, KeyFirst: fresh, KeyState: pipeline.KeyOpen, ChallengeAt: fresh, Attempts: 12}, end(pipeline.Failed, "no-answer")},
		{"still initiating, spent on answers", situation{Stage: pipeline.Submitting, Outcome: initiating, KeyFirst: fresh, KeyState: pipeline.KeyAnswered, ChallengeAt: fresh, Attempts: 12}, end(pipeline.Failed, "server-error")},
		{"still initiating, spent on unproven answers", situation{Stage: pipeline.Submitting, Outcome: initiating, KeyFirst: fresh, KeyState: pipeline.KeyAnswered, ChallengeAt: fresh, Attempts: 12, Last: unproven}, end(pipeline.Failed, "unexpected")},
		{"still initiating, foreign key", situation{Stage: pipeline.Submitting, Outcome: initiating, KeyFirst: fresh, KeyState: pipeline.KeyOpen, ChallengeAt: fresh, KeyForeign: true}, Disposition{Stage: pipeline.Submitting, Do: DoRekey}},
		{"submit 400", situation{Stage: pipeline.Submitting, Outcome: invalid, Refusals: 1}, Disposition{Stage: pipeline.Submitting, Do: DoRead, Key: pipeline.KeyRefused}},
		{"submit 409", situation{Stage: pipeline.Submitting, Outcome: conflicting, Attempts: 1}, Disposition{Stage: pipeline.Submitting, Do: DoRead, Key: pipeline.KeyOpen}},
		{"submit 409, spent", situation{Stage: pipeline.Submitting, Outcome: conflicting, Attempts: 12}, end(pipeline.Failed, "conflict-unresolved")},
		{"submit 422", situation{Stage: pipeline.Submitting, Outcome: unprocessable, Attempts: 1}, wait(pipeline.Submitting, DoRead, pipeline.KeyAnswered, half)},
		{"submit 422, third", situation{Stage: pipeline.Submitting, Outcome: unprocessable, Attempts: 3}, end(pipeline.Failed, "unprocessable")},
		{"submit 404", situation{Stage: pipeline.Submitting, Outcome: notFound, Attempts: 1}, wait(pipeline.Submitting, DoRead, pipeline.KeyAnswered, half)},
		{"submit 404, third", situation{Stage: pipeline.Submitting, Outcome: notFound, Attempts: 3}, end(pipeline.Failed, "customer-gone")},
		{"submit odd", situation{Stage: pipeline.Submitting, Outcome: odd}, Disposition{Stage: pipeline.Failed, Do: DoSettle, Class: "unexpected", Key: pipeline.KeyAnswered}},
		{"after submit: past", situation{Stage: pipeline.Submitting, Outcome: past}, settled(pipeline.Onboarded, "")},
		{"after submit: rejected", situation{Stage: pipeline.Submitting, Outcome: rejectedThere}, settled(pipeline.Rejected, "")},
		{"after submit: gone", situation{Stage: pipeline.Submitting, Outcome: absent}, end(pipeline.Failed, "customer-gone")},
		{"after submit: another", situation{Stage: pipeline.Submitting, Outcome: other}, end(pipeline.Failed, "customer-gone")},
		{"refused once", situation{Stage: pipeline.Submitting, Outcome: initiating, KeyFirst: fresh, KeyState: pipeline.KeyRefused, ChallengeAt: fresh, Refusals: 1}, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},
		{"refused thrice", situation{Stage: pipeline.Submitting, Outcome: initiating, KeyFirst: fresh, KeyState: pipeline.KeyRefused, ChallengeAt: fresh, Refusals: 3}, end(pipeline.Failed, "signature-refused")},
		{"still initiating, 5xx stored", situation{Stage: pipeline.Submitting, Outcome: initiating, KeyFirst: fresh, KeyState: pipeline.KeyAnswered, ChallengeAt: fresh, Attempts: 1}, wait(pipeline.Submitting, DoRekey, "", half)},
		{"still initiating, in flight", situation{Stage: pipeline.Submitting, Outcome: initiating, KeyFirst: fresh, KeyState: pipeline.KeyOpen, ChallengeAt: fresh, Attempts: 1}, wait(pipeline.Submitting, DoSubmit, "", half)},
		{"still initiating, key old", situation{Stage: pipeline.Submitting, Outcome: initiating, KeyFirst: old, KeyState: pipeline.KeyOpen, ChallengeAt: fresh}, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},
		{"still initiating, challenge old", situation{Stage: pipeline.Submitting, Outcome: initiating, KeyFirst: fresh, KeyState: pipeline.KeyAnswered, ChallengeAt: old}, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},

		{"cannot meet", situation{Stage: pipeline.Signing, Outcome: created}, halt(pipeline.Signing, "impossible")},
		{"terminal", situation{Stage: pipeline.Onboarded, Outcome: created}, halt(pipeline.Onboarded, "impossible")},
	}
	seen := map[pipeline.Stage]map[outcome]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.in.Now, tt.in.Failures = day, tt.in.Attempts
			if got := decide(tt.in, limits); got != tt.want {
				t.Errorf("Decide(%s, %s)\n got %+v\nwant %+v", tt.in.Stage, tt.in.Outcome, got, tt.want)
			}
		})
		if seen[tt.in.Stage] == nil {
			seen[tt.in.Stage] = map[outcome]bool{}
		}
		seen[tt.in.Stage][tt.in.Outcome] = true
	}
	everywhere := map[outcome]bool{unrecognized: true, oddCustomer: true, misconfigured: true, throttled: true, notSent: true, readFailed: true}
	for _, s := range pipeline.Stages() {
		for _, o := range outcomes() {
			if len(cell(s, o)) > 0 && !everywhere[o] && !seen[s][o] {
				t.Errorf("got no test of the cell %s, %q, want one", s, o)
			}
		}
	}
}

func TestBackoff(t *testing.T) {
	l := DefaultLimits()
	for attempts, want := range map[int]time.Duration{
		0: 50 * time.Millisecond, 1: 50 * time.Millisecond, 2: 100 * time.Millisecond, 6: 1600 * time.Millisecond,
		12: time.Minute, 1000: time.Minute,
	} {
		if got := l.backoff(attempts, l.RetryMax, 0, 0); got != want {
			t.Errorf("Backoff(%d): got %v, want %v", attempts, got, want)
		}
	}
	if got, want := l.backoff(1000, l.RetryAlone, 0.5, 0), 3*time.Second; got != want {
		t.Errorf("with half of the jitter: got %v, want %v", got, want)
	}
	if got, want := l.backoff(1, l.RetryMax, 1, 5*time.Minute), 5*time.Minute; got != want {
		t.Errorf("with a Retry-After: got %v, want %v", got, want)
	}
}

// TestBackoffOfOneRow: while the partner answers other rows, a failing row is tried again within seconds.
func TestBackoffOfOneRow(t *testing.T) {
	l := DefaultLimits()
	s := situation{Stage: pipeline.Creating, Outcome: unknown, Now: day, Failures: 12}
	if got := decide(s, l).After; got != l.RetryMax {
		t.Errorf("partner does not answer: got a wait of %v, want %v", got, l.RetryMax)
	}
	s.PartnerIsUp = true
	if got := decide(s, l).After; got != l.RetryAlone {
		t.Errorf("partner answers: got a wait of %v, want %v", got, l.RetryAlone)
	}
}

func TestNext(t *testing.T) {
	l := DefaultLimits()
	key := func(at time.Time, o pipeline.KeyState) pipeline.Key { return pipeline.Key{FirstSent: at, Outcome: o} }
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
		if got := next(tt.r, day, l, tt.foreign); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestSettledRowForgetsItsTrouble: a row that the partner onboarded or rejected after all has no class of an earlier
// failed request.
func TestSettledRowForgetsItsTrouble(t *testing.T) {
	for stage, o := range map[pipeline.Stage]outcome{pipeline.Onboarded: past, pipeline.Rejected: rejectedThere} {
		r := pipeline.Record{Stage: pipeline.Submitting, Class: string(readFailed), Reason: "no-answer"}
		apply(&r, Disposition{Stage: stage, Do: DoSettle}, result{outcome: o})
		if r.Stage != stage || r.Class != "" || r.Reason != "" {
			t.Errorf("got stage %q, class %q, reason %q; want %q without class and reason", r.Stage, r.Class, r.Reason, stage)
		}
	}
}
