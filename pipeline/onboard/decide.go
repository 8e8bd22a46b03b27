package onboard

import (
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

// outcome is the result of a row's last action. It classifies answers by their meaning for the row, so that one table
// covers all of them.
type outcome string

// The outcomes, by action.
const (
	// Of any request.
	throttled     outcome = "throttled"     // 429, 503 with Retry-After
	notSent       outcome = "not sent"      // the request never left: no token was to be had just now
	misconfigured outcome = "misconfigured" // the set-up's fault, by its nature: every row would meet it
	unrecognized  outcome = "unrecognized"  // a 2xx whose body is whole, but of no shape that is known

	// Of a request that changes something: create, submit.
	created       outcome = "created"      // 201
	accepted      outcome = "accepted"     // 204
	unproven      outcome = "unproven"     // a submission's 2xx that is not an empty 204
	oldForm       outcome = "old form"     // the recorded signature would be sent in another encoding now
	unknown       outcome = "unknown"      // no answer, or a 2xx with an unusable body
	serverFailed  outcome = "server error" // 5xx, the partner's or a gateway's, which may be stored under the key
	conflicting   outcome = "409"
	unprocessable outcome = "422"
	invalid       outcome = "400"
	notFound      outcome = "404"
	odd           outcome = "odd status" // a status that has no place here; several in a row halt the run

	// Of looking the customer up or reading it.
	absent        outcome = "absent"       // the partner has no such customer
	initiating    outcome = "initiating"   // there, with a challenge to sign
	past          outcome = "past"         // there, past initiating
	rejectedThere outcome = "rejected"     // there, rejected
	oddCustomer   outcome = "odd customer" // there, with a status that is not documented
	unlisted      outcome = "unlisted"     // not in the part of the list that can be read
	other         outcome = "other"        // the address or the externalId belongs to another customer
	readFailed    outcome = "read failed"

	// Of fetching, checking and signing the challenge.
	gotChallenge outcome = "challenge"    // the current challenge was read
	noChallenge  outcome = "no challenge" // 4xx instead of one
	checkPassed  outcome = "check passed" // the challenge is this customer's own sign-in
	hostile      outcome = "hostile"      // the challenge failed the policy; nothing was signed
	expiring     outcome = "expiring"     // the challenge is too near its end to be signed
	signed       outcome = "signed"       // a checked signature
	noKey        outcome = "no key"       // the signer has no key of the account
	declined     outcome = "declined"     // the signer declined
	mismatch     outcome = "mismatch"     // the signature does not recover to the account
	signerFailed outcome = "signer error" // the signer failed this time
	waiting      outcome = "waiting"      // the custodian has been asked and has not decided
	signerLost   outcome = "signer lost"  // the signer is locked, absent or does not admit us
)

// costs reports whether the outcome uses up one of the row's attempts.
func (o outcome) costs() bool {
	switch o {
	case unrecognized, unproven, unknown, serverFailed, conflicting, unprocessable, notFound, readFailed, unlisted,
		noChallenge, expiring, signerFailed:
		return true
	}
	return false
}

// Action is what the worker does next for a row.
type Action string

// The actions.
const (
	// DoNext: the action that the record requires in its stage (next).
	DoNext Action = "next"
	// DoRepeat: the same action again.
	DoRepeat Action = "repeat"
	// DoCreate: send POST /customers under the recorded key.
	DoCreate Action = "create"
	// DoSubmit: send the recorded signature under the recorded key.
	DoSubmit Action = "submit"
	// DoRekey: open the next generation of the operation's key and send under it.
	DoRekey Action = "re-key"
	// DoLookUp: search the partner's list for the pair, then read the customer found.
	DoLookUp Action = "look up"
	// DoRead: read the customer whose id is recorded.
	DoRead Action = "read"
	// DoFetch: read the current challenge.
	DoFetch Action = "fetch"
	// DoCheck: is the challenge this customer's own sign-in?
	DoCheck Action = "check"
	// DoSign: check the challenge once more and have it signed.
	DoSign Action = "sign"
	// DoHalt: stop the run; the row stays where it is.
	DoHalt Action = "halt"
	// DoSettle: the row is terminal.
	DoSettle Action = "settle"
)

// when is a condition of a branch of the decision table.
type when string

// The conditions. A cell's branches are tried in order.
const (
	otherwise      when = "always"
	keyFresh       when = "key fresh"      // the key's first use is well within its hour
	answered       when = "key answered"   // answers that settle nothing were received under the key
	keyForeign     when = "key foreign"    // the key was derived for an earlier API key id
	sigNotAccepted when = "not accepted"   // the partner did not accept this key's signature, or it is in an old form
	lastRefusal    when = "last refusal"   // … and it was the last one allowed
	attemptsLeft   when = "attempts left"  // the row has attempts left
	attemptsSpent  when = "attempts spent" // it has none
	spentHeard     when = "spent, heard"   // it has none, and its key was answered
	spentOdd       when = "spent, odd"     // it has none, and its signatures were answered by 2xx that prove nothing
	heardTwice     when = "heard twice"    // the row has attempts left, and its key was answered twice, no silence between
	firstFailure   when = "first failure"  // nothing else has failed for the row at this operation
	firstAttempts  when = "first attempts" // the row has had less than three attempts
	challengeOld   when = "challenge old"  // the challenge is near or over its hour
)

// situation is the input of a decision.
type situation struct {
	Stage   pipeline.Stage
	Outcome outcome

	Now         time.Time
	KeyFirst    time.Time         // first use of the operation's current key; zero: none
	KeyState    pipeline.KeyState // what is known under it
	KeyForeign  bool              // it was derived for an earlier API key id
	ChallengeAt time.Time         // when the challenge was received; zero: none
	Last        outcome           // the failure that the row is struggling with; empty: none
	Attempts    int               // that settled nothing, this one included
	Failures    int               // that the wait grows with, this one included
	Heard       int               // answers in a row under the key that settled nothing, no silence between
	Refusals    int               // signatures not accepted, this one included
	RetryAfter  time.Duration
	PartnerIsUp bool    // the partner has lately answered something
	Jitter      float64 // from 0 to 1, the same for the same attempt of the same row
}

// Limits are the settings of the decision table.
type Limits struct {
	KeyTTL       time.Duration // how long the partner honours an idempotency key
	ChallengeTTL time.Duration // how long a challenge lives
	MaxAttempts  int           // at one operation before the row fails
	MaxRefusals  int           // signatures not accepted before the row fails
	RetryMin     time.Duration // first wait between two attempts
	RetryMax     time.Duration // longest wait between two attempts
	RetryAlone   time.Duration // longest wait of a row whose trouble is its own: the partner answers others
}

// DefaultLimits returns the partner's documented lifetimes, and retries that span up to 100 seconds if no row succeeds,
// and up to 22 seconds if others do.
func DefaultLimits() Limits {
	return Limits{
		KeyTTL: time.Hour, ChallengeTTL: time.Hour,
		MaxAttempts: 12, MaxRefusals: 3,
		RetryMin: 50 * time.Millisecond, RetryMax: time.Minute, RetryAlone: 4 * time.Second,
	}
}

// margin is the last part of a lifetime, which is not relied upon: a twelfth, five minutes of the hour.
func margin(ttl time.Duration) time.Duration { return ttl / 12 }

// keyIsFresh reports whether a key first used at first can still be relied upon at now (rule "Old keys are not
// trusted"). A first use in the future means that the clock was set back: nothing is known of the key's age then, and
// it is not relied upon.
func (l Limits) keyIsFresh(first, now time.Time) bool {
	age := now.Sub(first)
	return age > -margin(l.KeyTTL) && age < l.KeyTTL-margin(l.KeyTTL)
}

// challengeIsFresh reports whether a challenge received or issued at the given time can still be signed and submitted
// at now (rule "Fresh challenge").
func (l Limits) challengeIsFresh(at, now time.Time) bool {
	age := now.Sub(at)
	return age > -margin(l.ChallengeTTL) && age < l.ChallengeTTL-margin(l.ChallengeTTL)
}

// challengeIsUsable reports whether a challenge that is no longer fresh may still be signed and submitted at now if
// there is no other: until a twelfth of the margin is left, 25 seconds of the hour.
func (l Limits) challengeIsUsable(at, now time.Time) bool {
	age := now.Sub(at)
	return age > 0 && age < l.ChallengeTTL-margin(margin(l.ChallengeTTL))
}

// staleWhenAsked reports whether a challenge had already expired when it was requested, regardless of how long the
// response took: a partner that issues such a challenge cannot be trusted. Issued At is in seconds.
func (l Limits) staleWhenAsked(issued, asked time.Time) bool {
	return asked.Sub(issued) > l.ChallengeTTL+max(margin(l.ChallengeTTL), 2*time.Second)
}

// backoff is the wait after n failures: doubling from RetryMin to most, reduced by up to half by jitter (from 0 to 1),
// and never less than the partner asked for.
func (l Limits) backoff(failures int, most time.Duration, jitter float64, retryAfter time.Duration) time.Duration {
	wait := l.RetryMin
	for i := 1; i < failures && wait < most; i++ {
		wait *= 2
	}
	wait = min(wait, most)
	return max(wait-time.Duration(jitter*float64(wait/2)), retryAfter)
}

// Disposition is the decision: the row's next stage and action.
type Disposition struct {
	Stage pipeline.Stage    // the stage to be in; the same one means stay
	Do    Action            // what to do next
	Wait  bool              // not before the backoff has passed
	Class Class             // machine-readable kind: why the row ended badly, or of a halt
	Key   pipeline.KeyState // what is known under the operation's key now; "" leaves it
	After time.Duration     // filled in by decide from Wait
}

// branch is one alternative in a cell of the decision table.
type branch struct {
	When when
	Then Disposition
}

// decide is the decision table: a pure function. A pair of stage and outcome that is not in the table halts the run,
// because it means a bug.
func decide(s situation, l Limits) Disposition {
	for _, b := range cell(s.Stage, s.Outcome) {
		if !s.holds(b.When, l) {
			continue
		}
		d := b.Then
		if d.Stage == "" {
			d.Stage = s.Stage
		}
		if d.Wait {
			most := l.RetryMax
			if s.PartnerIsUp && l.RetryAlone > 0 {
				most = min(most, l.RetryAlone)
			}
			d.After = l.backoff(s.Failures, most, s.Jitter, s.RetryAfter)
		}
		return d
	}
	return Disposition{Stage: s.Stage, Do: DoHalt, Class: HaltImpossible}
}

func (s situation) holds(w when, l Limits) bool {
	switch w {
	case otherwise:
		return true
	case keyFresh:
		return !s.KeyFirst.IsZero() && l.keyIsFresh(s.KeyFirst, s.Now)
	case answered:
		return s.KeyState == pipeline.KeyAnswered
	case keyForeign:
		return s.KeyForeign
	case sigNotAccepted:
		return s.KeyState == pipeline.KeyRefused
	case lastRefusal:
		return s.KeyState == pipeline.KeyRefused && s.Refusals >= l.MaxRefusals
	case attemptsLeft:
		return s.Attempts < l.MaxAttempts
	case attemptsSpent:
		return s.Attempts >= l.MaxAttempts
	case spentHeard:
		return s.Attempts >= l.MaxAttempts && s.KeyState == pipeline.KeyAnswered
	case spentOdd:
		return s.Attempts >= l.MaxAttempts && s.Last == unproven
	case heardTwice:
		return s.Attempts < l.MaxAttempts && s.Heard >= 2
	case firstFailure:
		return s.Attempts <= 1 && s.Attempts < l.MaxAttempts
	case firstAttempts:
		return s.Attempts < min(3, l.MaxAttempts)
	case challengeOld:
		return !l.challengeIsFresh(s.ChallengeAt, s.Now)
	}
	return false
}
