package pipeline

import (
	"testing"
	"time"
)

// TestTableIsWhole walks every cell: each ends in a branch that always holds, moves only where the stages allow, and
// names what it leaves behind.
func TestTableIsWhole(t *testing.T) {
	for _, s := range Stages() {
		for _, o := range Outcomes() {
			cell := Cell(s, o)
			if s.Terminal() && len(cell) > 0 {
				t.Errorf("%s is terminal and yet answers %q", s, o)
			}
			for i, b := range cell {
				d := b.Then
				if last := i == len(cell)-1; last != (b.When == Always) {
					t.Errorf("%s, %q: branch %d of %d holds %s", s, o, i+1, len(cell), b.When)
				}
				next := d.Stage
				if next == "" {
					next = s
				}
				if !s.CanBecome(next) {
					t.Errorf("%s, %q: cannot become %s", s, o, next)
				}
				if next.Terminal() != (d.Do == DoSettle) {
					t.Errorf("%s, %q: stage %s and act %q do not fit", s, o, next, d.Do)
				}
				needsClass := next == Failed || next == Conflict || next == Refused || d.Do == DoHalt
				if needsClass != (d.Class != "") {
					t.Errorf("%s, %q: class %q with stage %s and act %q", s, o, d.Class, next, d.Do)
				}
				if d.Do == DoRekey && o.Costs() {
					t.Errorf("%s, %q: a new key straight after an answer, without looking the customer up", s, o)
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
	halt := func(s Stage, class string) Disposition { return Disposition{Stage: s, Do: DoHalt, Class: class} }
	end := func(s Stage, class string) Disposition { return Disposition{Stage: s, Do: DoSettle, Class: class} }
	settled := func(s Stage, class string) Disposition {
		return Disposition{Stage: s, Do: DoSettle, Class: class, Key: KeySettled}
	}
	wait := func(s Stage, do Action, key KeyOutcome, after time.Duration) Disposition {
		return Disposition{Stage: s, Do: do, Wait: true, Key: key, After: after}
	}
	const half = 500 * time.Millisecond
	tests := []struct {
		name string
		in   Situation
		want Disposition
	}{
		{"planned, known customer still initiating", Situation{Stage: Planned, Outcome: Initiating}, Disposition{Stage: Challenged, Do: DoFetch}},
		{"planned, known customer past", Situation{Stage: Planned, Outcome: Past}, end(Onboarded, "")},
		{"planned, known customer rejected", Situation{Stage: Planned, Outcome: RejectedThere}, end(Rejected, "")},
		{"planned, known customer gone", Situation{Stage: Planned, Outcome: Absent}, Disposition{Stage: Creating, Do: DoLookUp}},
		{"planned, no key", Situation{Stage: Planned, Outcome: NoKey}, end(Failed, "no-key")},
		{"planned, signer does not say", Situation{Stage: Planned, Outcome: SignerFailed, Attempts: 1}, wait(Planned, DoNext, "", half)},
		{"planned, key may not be used", Situation{Stage: Planned, Outcome: Declined}, end(Failed, "declined")},
		{"planned, key of another account", Situation{Stage: Planned, Outcome: Mismatch}, end(Failed, "signer-mismatch")},
		{"planned, signer lost", Situation{Stage: Planned, Outcome: SignerLost}, halt(Planned, "signer")},
		{"planned, id leads to another", Situation{Stage: Planned, Outcome: Other}, Disposition{Stage: Creating, Do: DoLookUp}},

		{"201", Situation{Stage: Creating, Outcome: Created}, Disposition{Stage: Challenged, Do: DoNext, Key: KeySettled}},
		{"create unknown", Situation{Stage: Creating, Outcome: Unknown, Attempts: 1}, wait(Creating, DoNext, KeyOpen, half)},
		{"create unknown, fourth", Situation{Stage: Creating, Outcome: Unknown, Attempts: 4}, wait(Creating, DoNext, KeyOpen, 8*half)},
		{"create unknown, spent", Situation{Stage: Creating, Outcome: Unknown, Attempts: 12}, end(Failed, "no-answer")},
		{"create throttled", Situation{Stage: Creating, Outcome: Throttled, RetryAfter: 7 * time.Second}, wait(Creating, DoRepeat, "", 7*time.Second)},
		{"create throttled costs no try", Situation{Stage: Creating, Outcome: Throttled, Attempts: 99}, wait(Creating, DoRepeat, "", time.Minute)},
		{"create not sent", Situation{Stage: Creating, Outcome: NotSent}, wait(Creating, DoRepeat, "", half)},
		{"create 5xx", Situation{Stage: Creating, Outcome: ServerFailed, Attempts: 1}, wait(Creating, DoNext, KeyHeard, half)},
		{"create 5xx after silence", Situation{Stage: Creating, Outcome: ServerFailed, Attempts: 3, Heard: 1}, wait(Creating, DoNext, KeyHeard, 4*half)},
		{"create 5xx, second", Situation{Stage: Creating, Outcome: ServerFailed, Attempts: 2, Heard: 2}, Disposition{Stage: Creating, Do: DoLookUp, Key: KeyAnswered}},
		{"create 5xx, spent", Situation{Stage: Creating, Outcome: ServerFailed, Attempts: 12}, end(Failed, "server-error")},
		{"create 409", Situation{Stage: Creating, Outcome: Conflicting, Attempts: 1}, Disposition{Stage: Creating, Do: DoLookUp, Key: KeyOpen}},
		{"create 409, spent", Situation{Stage: Creating, Outcome: Conflicting, Attempts: 12}, end(Failed, "conflict-unresolved")},
		{"create 422", Situation{Stage: Creating, Outcome: Unprocessable, Attempts: 1}, wait(Creating, DoLookUp, KeyAnswered, half)},
		{"create 422, third", Situation{Stage: Creating, Outcome: Unprocessable, Attempts: 3}, end(Failed, "unprocessable")},
		{"create 400", Situation{Stage: Creating, Outcome: Invalid}, settled(Failed, "invalid")},
		{"create 404", Situation{Stage: Creating, Outcome: NotFound}, halt(Creating, "configuration")},
		{"create odd", Situation{Stage: Creating, Outcome: Odd}, Disposition{Stage: Failed, Do: DoSettle, Class: "unexpected", Key: KeyAnswered}},
		{"create 401", Situation{Stage: Creating, Outcome: Misconfigured}, halt(Creating, "configuration")},
		{"looked up: initiating", Situation{Stage: Creating, Outcome: Initiating}, Disposition{Stage: Challenged, Do: DoFetch, Key: KeySettled}},
		{"looked up: past", Situation{Stage: Creating, Outcome: Past}, settled(Onboarded, "")},
		{"looked up: rejected", Situation{Stage: Creating, Outcome: RejectedThere}, settled(Rejected, "")},
		{"looked up: another pair", Situation{Stage: Creating, Outcome: Other}, settled(Conflict, "taken")},
		{"absent, key open and fresh", Situation{Stage: Creating, Outcome: Absent, KeyFirst: fresh, KeyOutcome: KeyOpen, Attempts: 1}, wait(Creating, DoCreate, "", half)},
		{"absent, key answered", Situation{Stage: Creating, Outcome: Absent, KeyFirst: fresh, KeyOutcome: KeyAnswered}, Disposition{Stage: Creating, Do: DoRekey}},
		{"absent, key open and old", Situation{Stage: Creating, Outcome: Absent, KeyFirst: old, KeyOutcome: KeyOpen}, wait(Creating, DoCreate, "", half)},
		{"absent, foreign key", Situation{Stage: Creating, Outcome: Absent, KeyFirst: fresh, KeyOutcome: KeyOpen, KeyForeign: true}, Disposition{Stage: Creating, Do: DoRekey}},
		{"unlisted, key fresh", Situation{Stage: Creating, Outcome: Unlisted, KeyFirst: fresh, KeyOutcome: KeyOpen, Attempts: 1}, wait(Creating, DoCreate, "", half)},
		{"unlisted, key old", Situation{Stage: Creating, Outcome: Unlisted, KeyFirst: old, KeyOutcome: KeyOpen, Attempts: 1}, end(Failed, "conflict-unresolved")},
		{"unlisted, foreign key", Situation{Stage: Creating, Outcome: Unlisted, KeyFirst: fresh, KeyOutcome: KeyOpen, KeyForeign: true, Attempts: 1}, end(Failed, "conflict-unresolved")},
		{"unlisted, spent", Situation{Stage: Creating, Outcome: Unlisted, KeyFirst: fresh, KeyOutcome: KeyOpen, Attempts: 12}, end(Failed, "conflict-unresolved")},
		{"looked up: undocumented status", Situation{Stage: Creating, Outcome: OddCustomer}, end(Failed, "unexpected")},
		{"create of no known shape", Situation{Stage: Creating, Outcome: Unrecognized, Attempts: 1}, wait(Creating, DoRepeat, "", half)},
		{"create of no known shape, spent", Situation{Stage: Creating, Outcome: Unrecognized, Attempts: 12}, end(Failed, "unrecognized")},
		{"absent, no key", Situation{Stage: Creating, Outcome: Absent}, wait(Creating, DoCreate, "", half)},
		{"look-up failed", Situation{Stage: Creating, Outcome: ReadFailed, Attempts: 2}, wait(Creating, DoRepeat, "", 2*half)},
		{"look-up failed, spent", Situation{Stage: Creating, Outcome: ReadFailed, Attempts: 12}, end(Failed, "no-answer")},

		{"challenge fetched", Situation{Stage: Challenged, Outcome: GotChallenge}, Disposition{Stage: Challenged, Do: DoCheck}},
		{"challenge good", Situation{Stage: Challenged, Outcome: CheckPassed}, Disposition{Stage: Signing, Do: DoSign}},
		{"challenge hostile", Situation{Stage: Challenged, Outcome: Hostile}, end(Refused, "challenge")},
		{"challenge near its end", Situation{Stage: Challenged, Outcome: Expiring, Attempts: 1}, wait(Challenged, DoFetch, "", half)},
		{"challenge near its end, spent", Situation{Stage: Challenged, Outcome: Expiring, Attempts: 12}, end(Failed, "challenge-expired")},
		{"no challenge", Situation{Stage: Challenged, Outcome: NoChallenge, Attempts: 1}, wait(Challenged, DoRead, "", half)},
		{"no challenge, spent", Situation{Stage: Challenged, Outcome: NoChallenge, Attempts: 12}, end(Failed, "no-challenge")},
		{"read: initiating", Situation{Stage: Challenged, Outcome: Initiating}, Disposition{Stage: Challenged, Do: DoFetch}},
		{"read: past", Situation{Stage: Challenged, Outcome: Past}, end(Onboarded, "")},
		{"read: rejected", Situation{Stage: Challenged, Outcome: RejectedThere}, end(Rejected, "")},
		{"read: gone", Situation{Stage: Challenged, Outcome: Absent}, end(Failed, "customer-gone")},
		{"read: another", Situation{Stage: Challenged, Outcome: Other}, end(Failed, "customer-gone")},
		{"fetch 401", Situation{Stage: Challenged, Outcome: Misconfigured}, halt(Challenged, "configuration")},

		{"signed", Situation{Stage: Signing, Outcome: Signed}, Disposition{Stage: Submitting, Do: DoSubmit}},
		{"hostile on second sight", Situation{Stage: Signing, Outcome: Hostile}, end(Refused, "challenge")},
		{"expired while signing", Situation{Stage: Signing, Outcome: Expiring, Attempts: 1}, Disposition{Stage: Challenged, Do: DoFetch}},
		{"no key", Situation{Stage: Signing, Outcome: NoKey}, end(Failed, "no-key")},
		{"declined", Situation{Stage: Signing, Outcome: Declined}, end(Failed, "declined")},
		{"mismatch", Situation{Stage: Signing, Outcome: Mismatch}, end(Failed, "signer-mismatch")},
		{"signer error", Situation{Stage: Signing, Outcome: SignerFailed, Attempts: 1}, wait(Signing, DoNext, "", half)},
		{"signer error, spent", Situation{Stage: Signing, Outcome: SignerFailed, Attempts: 12}, end(Failed, "signer-error")},
		{"waiting for the custodian", Situation{Stage: Signing, Outcome: Waiting, Attempts: 3}, wait(Signing, DoRepeat, "", 4*half)},
		{"signer lost", Situation{Stage: Signing, Outcome: SignerLost}, halt(Signing, "signer")},

		{"204", Situation{Stage: Submitting, Outcome: Accepted}, settled(Onboarded, "")},
		{"submit unknown", Situation{Stage: Submitting, Outcome: Unknown, Attempts: 1}, Disposition{Stage: Submitting, Do: DoRead, Key: KeyOpen}},
		{"submit unknown, spent", Situation{Stage: Submitting, Outcome: Unknown, Attempts: 12}, Disposition{Stage: Submitting, Do: DoRead, Key: KeyOpen}},
		{"submit 5xx", Situation{Stage: Submitting, Outcome: ServerFailed, Attempts: 2}, Disposition{Stage: Submitting, Do: DoRead, Key: KeyAnswered}},
		{"submit 5xx, spent", Situation{Stage: Submitting, Outcome: ServerFailed, Attempts: 12}, Disposition{Stage: Submitting, Do: DoRead, Key: KeyAnswered}},
		{"submit another 2xx", Situation{Stage: Submitting, Outcome: Unproven, Attempts: 1}, Disposition{Stage: Submitting, Do: DoRead, Key: KeyAnswered}},
		{"submit in another encoding", Situation{Stage: Submitting, Outcome: OldForm}, Disposition{Stage: Submitting, Do: DoRead, Key: KeyRefused}},
		{"still initiating, spent", Situation{Stage: Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: KeyOpen, ChallengeAt: fresh, Attempts: 12}, end(Failed, "no-answer")},
		{"still initiating, spent on answers", Situation{Stage: Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: KeyAnswered, ChallengeAt: fresh, Attempts: 12}, end(Failed, "server-error")},
		{"still initiating, spent on unproven answers", Situation{Stage: Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: KeyAnswered, ChallengeAt: fresh, Attempts: 12, Last: Unproven}, end(Failed, "unexpected")},
		{"still initiating, foreign key", Situation{Stage: Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: KeyOpen, ChallengeAt: fresh, KeyForeign: true}, Disposition{Stage: Submitting, Do: DoRekey}},
		{"submit 400", Situation{Stage: Submitting, Outcome: Invalid, Refusals: 1}, Disposition{Stage: Submitting, Do: DoRead, Key: KeyRefused}},
		{"submit 409", Situation{Stage: Submitting, Outcome: Conflicting, Attempts: 1}, Disposition{Stage: Submitting, Do: DoRead, Key: KeyOpen}},
		{"submit 409, spent", Situation{Stage: Submitting, Outcome: Conflicting, Attempts: 12}, end(Failed, "conflict-unresolved")},
		{"submit 422", Situation{Stage: Submitting, Outcome: Unprocessable, Attempts: 1}, wait(Submitting, DoRead, KeyAnswered, half)},
		{"submit 422, third", Situation{Stage: Submitting, Outcome: Unprocessable, Attempts: 3}, end(Failed, "unprocessable")},
		{"submit 404", Situation{Stage: Submitting, Outcome: NotFound, Attempts: 1}, wait(Submitting, DoRead, KeyAnswered, half)},
		{"submit 404, third", Situation{Stage: Submitting, Outcome: NotFound, Attempts: 3}, end(Failed, "customer-gone")},
		{"submit odd", Situation{Stage: Submitting, Outcome: Odd}, Disposition{Stage: Failed, Do: DoSettle, Class: "unexpected", Key: KeyAnswered}},
		{"after submit: past", Situation{Stage: Submitting, Outcome: Past}, settled(Onboarded, "")},
		{"after submit: rejected", Situation{Stage: Submitting, Outcome: RejectedThere}, settled(Rejected, "")},
		{"after submit: gone", Situation{Stage: Submitting, Outcome: Absent}, end(Failed, "customer-gone")},
		{"after submit: another", Situation{Stage: Submitting, Outcome: Other}, end(Failed, "customer-gone")},
		{"refused once", Situation{Stage: Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: KeyRefused, ChallengeAt: fresh, Refusals: 1}, Disposition{Stage: Challenged, Do: DoFetch}},
		{"refused thrice", Situation{Stage: Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: KeyRefused, ChallengeAt: fresh, Refusals: 3}, end(Failed, "signature-refused")},
		{"still initiating, 5xx stored", Situation{Stage: Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: KeyAnswered, ChallengeAt: fresh, Attempts: 1}, wait(Submitting, DoRekey, "", half)},
		{"still initiating, in flight", Situation{Stage: Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: KeyOpen, ChallengeAt: fresh, Attempts: 1}, wait(Submitting, DoSubmit, "", half)},
		{"still initiating, key old", Situation{Stage: Submitting, Outcome: Initiating, KeyFirst: old, KeyOutcome: KeyOpen, ChallengeAt: fresh}, Disposition{Stage: Challenged, Do: DoFetch}},
		{"still initiating, challenge old", Situation{Stage: Submitting, Outcome: Initiating, KeyFirst: fresh, KeyOutcome: KeyAnswered, ChallengeAt: old}, Disposition{Stage: Challenged, Do: DoFetch}},

		{"cannot meet", Situation{Stage: Signing, Outcome: Created}, halt(Signing, "impossible")},
		{"terminal", Situation{Stage: Onboarded, Outcome: Created}, halt(Onboarded, "impossible")},
	}
	seen := map[Stage]map[Outcome]bool{}
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
	for _, s := range Stages() {
		for _, o := range Outcomes() {
			if len(Cell(s, o)) > 0 && !everywhere[o] && !seen[s][o] {
				t.Errorf("no test of the cell %s, %q", s, o)
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

// TestBackoffOfOneRow: while other rows pass the step, a row in trouble tries again within seconds.
func TestBackoffOfOneRow(t *testing.T) {
	l := DefaultLimits()
	s := Situation{Stage: Creating, Outcome: Unknown, Now: day, Attempts: 11}
	if got := Decide(s, l).After; got != l.RetryMax {
		t.Errorf("nothing is answered: got a wait of %v, want %v", got, l.RetryMax)
	}
	s.PartnerIsUp = true
	if got := Decide(s, l).After; got != l.RetryAlone {
		t.Errorf("others fare better: got a wait of %v, want %v", got, l.RetryAlone)
	}
}

func TestNext(t *testing.T) {
	l := DefaultLimits()
	key := func(at time.Time, o KeyOutcome) Key { return Key{FirstSent: at, Outcome: o} }
	tests := []struct {
		name    string
		r       Record
		want    Action
		foreign bool // the key was derived for an earlier API key id
	}{
		{name: "new", r: Record{Stage: Planned}, want: DoCreate},
		{name: "restarted, foreign key", r: Record{Stage: Planned, CreateKey: key(fresh, KeyAnswered)}, want: DoLookUp, foreign: true},
		{name: "creating, foreign key", r: Record{Stage: Creating, CreateKey: key(fresh, KeyOpen)}, want: DoLookUp, foreign: true},
		{name: "submitting, foreign key", r: Record{Stage: Submitting, SubmitKey: key(fresh, KeyOpen)}, want: DoRead, foreign: true},
		{name: "restarted, key open", r: Record{Stage: Planned, CreateKey: key(fresh, KeyOpen)}, want: DoCreate},
		{name: "restarted, key open and old", r: Record{Stage: Planned, CreateKey: key(old, KeyOpen)}, want: DoLookUp},
		{name: "restarted, key answered", r: Record{Stage: Planned, CreateKey: key(fresh, KeyAnswered)}, want: DoRekey},
		{name: "restarted, key settled", r: Record{Stage: Planned, CreateKey: key(old, KeySettled)}, want: DoRekey},
		{name: "restarted, customer known", r: Record{Stage: Planned, CustomerID: "c", CreateKey: key(old, KeySettled)}, want: DoRead},
		{name: "creating", r: Record{Stage: Creating, CreateKey: key(fresh, KeyOpen)}, want: DoCreate},
		{name: "creating, key answered", r: Record{Stage: Creating, CreateKey: key(fresh, KeyAnswered)}, want: DoLookUp},
		{name: "creating, key heard", r: Record{Stage: Creating, CreateKey: key(fresh, KeyHeard)}, want: DoCreate},
		{name: "submitting, key answered", r: Record{Stage: Submitting, SubmitKey: key(fresh, KeyAnswered)}, want: DoRead},
		{name: "creating, near the hour", r: Record{Stage: Creating, CreateKey: key(near, KeyOpen)}, want: DoLookUp},
		{name: "creating, clock set back", r: Record{Stage: Creating, CreateKey: key(future, KeyOpen)}, want: DoLookUp},
		{name: "creating, no key", r: Record{Stage: Creating}, want: DoLookUp},
		{name: "challenged", r: Record{Stage: Challenged, Challenge: "x", ChallengeAt: fresh}, want: DoCheck},
		{name: "challenged, near the hour", r: Record{Stage: Challenged, Challenge: "x", ChallengeAt: near}, want: DoFetch},
		{name: "challenged, none", r: Record{Stage: Challenged}, want: DoFetch},
		{name: "signing", r: Record{Stage: Signing}, want: DoSign},
		{name: "submitting", r: Record{Stage: Submitting, SubmitKey: key(fresh, KeyOpen)}, want: DoSubmit},
		{name: "submitting, refused", r: Record{Stage: Submitting, SubmitKey: key(fresh, KeyRefused)}, want: DoRead},
		{name: "submitting, old", r: Record{Stage: Submitting, SubmitKey: key(old, KeyOpen)}, want: DoRead},
		{name: "terminal", r: Record{Stage: Onboarded}, want: DoSettle},
	}
	for _, tt := range tests {
		if got := Next(tt.r, day, l, tt.foreign); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
