package onboard

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

const (
	// SetupLimit is how many rows may end with the same class at a step that no row of the run has passed, how many new
	// rows run before one is through, and how many consecutive responses of an unknown shape mean a changed API.
	SetupLimit = 5
	// spentNamed is how many of the ended rows a message names.
	spentNamed = 5
	// outageAnswers is how many consecutive unusable answers make the partner suspect.
	outageAnswers = 10
	// When at least troubleFrom of troubleOf responses are unusable, that is reported; when fewer than troubleTo are, its
	// end.
	troubleOf   = 100
	troubleFrom = 25
	troubleTo   = 10
	// throttleOver is the time without throttling after which throttling is over.
	throttleOver = time.Minute
)

// Trouble reports unusable or throttled answers of the partner to the operator.
type Trouble struct {
	Throttled    bool // it is about throttling, not about unusable answers
	Over         bool // the trouble that was reported is over
	Unusable, Of int  // unusable answers of so many
	Cause        error
}

// step is a part of a row's path. A set-up that is right for one step can be wrong for the next.
type step string

const (
	stepKey    step = "key" // the signer has a key of the account
	stepCreate step = "create"
	stepCheck  step = "check" // the challenge is the customer's own sign-in
	stepSign   step = "sign"
	stepSubmit step = "submit"
)

// stepAt is the step at which a row in a stage fails, or ends with a class.
func stepAt(class Class, s pipeline.Stage) step {
	switch class {
	case classKeyMissing:
		if s == pipeline.Signing { // the signer said before that it has the key, and says so of the others, too
			return stepSign
		}
		return stepKey
	case classChallengeRefused, classChallengeExpired:
		return stepCheck
	case classSignerDeclined, classSignerMismatch, classSignerError:
		return stepSign
	}
	switch s {
	case pipeline.Challenged:
		return stepCheck
	case pipeline.Signing:
		return stepSign
	case pipeline.Submitting:
		return stepSubmit
	}
	return stepCreate
}

// provenBy returns the steps for which an outcome proves that the set-up is right.
func provenBy(o outcome, s pipeline.Stage) []step {
	switch o {
	case created:
		return []step{stepCreate}
	case checkPassed:
		return []step{stepCheck}
	case signed:
		return []step{stepKey, stepSign}
	case accepted:
		return []step{stepSubmit}
	case past:
		if s == pipeline.Submitting {
			return []step{stepSubmit}
		}
	}
	return nil
}

// setupHint returns the setting to check when consecutive rows end with a class; ok is false for a class that the
// set-up cannot cause.
func setupHint(class Class) (hint string, ok bool) {
	switch class {
	case classChallengeRefused:
		return "check --challenge-domain, --challenge-statement and --api-url (the partner may name another domain), and " +
			"--challenge-ttl", true
	case classChallengeExpired, classChallengeMissing:
		return "check --challenge-ttl and this machine's clock", true
	case classSignatureNotAccepted:
		return "check --signature-encoding, and that --signer holds the customers' own keys", true
	case classKeyMissing:
		return "check --signer: it has no key of these accounts", true
	case classSignerMismatch:
		return "check --signer: its keys belong to other accounts", true
	case classSignerDeclined, classSignerError:
		return "check --signer and its own log", true
	case classNotAccepted:
		return "check --api-url (live or sandbox), --content-digest, and the chain the rows were imported for " +
			"(the importer's --chain)", true
	case classKeyReused:
		return "check that no other program uses the same --api-key", true
	case classUnexpected, classNotRecognized, classCustomerGone, classConflictUnresolved:
		return "check --api-url, and whether the partner has changed its API", true
	case classServerError, classNoAnswer:
		return "ask the partner why requests for these rows fail", true
	}
	return "", false
}

// breaker halts a run whose rows fail for a shared cause: a wrong set-up, or an unavailable partner.
type breaker struct {
	haltAfter int  // rows in a row that may end alike after a success; 0: any number
	probes    bool // the partner can be probed

	mu      sync.Mutex
	proven  map[step]time.Time // when a row last passed it, monotonic
	streaks map[step]map[Class]*streak
	shapes  map[Action]*shapes
	through bool // a row has come through, or as far as a custodian

	lastGood     time.Time // when the partner gave a usable answer, monotonic
	bad          int       // unusable answers since lastGood
	notAccepted  int       // rows that ended for a 400 since the partner last accepted a request
	throttled    time.Time // since when it has done nothing but throttle, monotonic; zero: it does not
	suspect      bool      // the partner has to be probed before anything else is sent
	answers      int       // of the present hundred
	unusable     int       // of these
	latest       error     // the latest unusable one
	reported     bool      // unusable responses were reported
	reportedBusy bool      // throttling was reported
	busy         time.Time // when it last throttled, monotonic

	signerGood time.Time     // the last signature that was right, monotonic
	signerBusy map[step]busy // while the signer does nothing but throttle when it is asked for a key, or to sign
}

// busy records since when a peer has only throttled, and when it last did, monotonic.
type busy struct{ since, last time.Time }

// streak are the rows that ended with one class since the last success at their step.
type streak struct {
	ids  map[int64]bool
	rows []pipeline.Row // the first of them
}

// shapes counts the answers of an unknown shape to an action since the last understood answer.
type shapes struct {
	known  bool // one was
	probed bool // since then the partner was suspected for it
	n      int
	rows   map[int64]bool
}

func newBreaker(haltAfter int, probes bool) *breaker {
	return &breaker{
		haltAfter: haltAfter, probes: probes,
		proven: map[step]time.Time{}, streaks: map[step]map[Class]*streak{}, shapes: map[Action]*shapes{},
		signerBusy: map[step]busy{},
	}
}

// end records that a row is about to end with a class. stored reports whether it may. A halt that is not nil ends the
// run, after the row has ended if it may.
func (b *breaker) end(t *Task, d Disposition, cause error) (stored bool, halt error) {
	hint, counts := setupHint(d.Class)
	if !counts || string(d.Class) == t.previousClass { // it ended so before: that says nothing new about the set-up
		return true, nil
	}
	at := stepAt(d.Class, t.Stage)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.streaks[at] == nil {
		b.streaks[at] = map[Class]*streak{}
	}
	s := b.streaks[at][d.Class]
	if s == nil {
		s = &streak{ids: map[int64]bool{}}
		b.streaks[at][d.Class] = s
	}
	// no-answer and server-error count only towards HaltAfter: the probe has shown that the partner is up.
	never := b.proven[at].IsZero()
	limit := b.haltAfter
	if never && d.Class != classServerError && d.Class != classNoAnswer {
		limit = SetupLimit
	}
	full := limit > 0 && len(s.ids) >= limit && !s.ids[t.ID]
	if !full && !s.ids[t.ID] {
		s.ids[t.ID] = true
		if len(s.rows) < spentNamed {
			s.rows = append(s.rows, t.Row)
		}
	}
	if full || limit > 0 && len(s.ids) == limit {
		halt = &HaltError{
			Class: d.Class, Row: t.Row, Err: cause, Count: len(s.ids), Spent: slices.Clone(s.rows), Hint: hint,
			never: never,
		}
	}
	return !full, halt
}

// prove records that a row has passed steps, and ends their streaks.
func (b *breaker) prove(steps ...step) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, at := range steps {
		b.proven[at] = pipeline.Monotonic()
		delete(b.streaks, at)
		delete(b.signerBusy, at)
	}
}

// partnerIsUp reports whether the partner has recently answered anything, so that the problem is the row's: a wait of a
// minute is for an unavailable partner.
func (b *breaker) partnerIsUp() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.lastGood.IsZero() && pipeline.Monotonic().Sub(b.lastGood) < upFor
}

// upFor is how long one usable answer shows that the partner is available.
const upFor = 30 * time.Second

// noteShape counts unrecognized answers per action. It returns an error after SetupLimit of them in a row, or, once an
// answer was understood, from SetupLimit different rows.
func (b *breaker) noteShape(t *Task, res result) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.shapes[t.Action]
	if s == nil {
		s = &shapes{rows: map[int64]bool{}}
		b.shapes[t.Action] = s
	}
	if res.outcome != unrecognized {
		if res.err == nil {
			s.known, s.probed, s.n = true, false, 0
			clear(s.rows)
		}
		return nil
	}
	s.n++
	s.rows[t.ID] = true
	switch {
	case s.known && len(s.rows) < SetupLimit || s.n < SetupLimit:
		return nil
	case s.known && b.probes && !s.probed:
		// Earlier answers were understood: this may be a maintenance page. The probe shows whether the partner is available.
		s.probed, b.suspect = true, true
		s.n = 0
		clear(s.rows)
		return nil
	}
	return &HaltError{Class: HaltConfiguration, Row: t.Row, Err: res.err}
}

// firstThrough records that a row is through: from now on any number may run.
func (b *breaker) firstThrough() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.through = true
}

// isThrough reports whether a row is through.
func (b *breaker) isThrough() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.through
}

// throttleLimit is how long partner or signer may only throttle before the run halts: twice the longest closing of the
// gate, so that two such closings in succession do not halt it.
const throttleLimit = 2 * client.MaxRetryAfter

// noteAnswer records whether the partner gave a usable answer.
func (b *breaker) noteAnswer(t *Task, res result, tell func(Trouble)) {
	trouble := b.take(t, res)
	if tell == nil {
		return
	}
	for _, what := range trouble {
		tell(what)
	}
}

func (b *breaker) take(t *Task, res result) (trouble []Trouble) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := pipeline.Monotonic()
	switch res.outcome {
	case throttled:
		if !errors.As(res.err, new(*client.Error)) { // the signer does
			at := stepSign
			if t.Stage == pipeline.Planned {
				at = stepKey
			}
			since := b.signerBusy[at].since
			if since.IsZero() || t.delays < 2 && now.Sub(b.signerBusy[at].last) > throttleLimit {
				since = now // no row has waited for it
			}
			b.signerBusy[at] = busy{since, now}
			return nil
		}
		if !b.reportedBusy {
			b.reportedBusy = true
			trouble = append(trouble, Trouble{Throttled: true, Cause: res.err})
		}
		b.busy = now
		if b.throttled.IsZero() {
			b.throttled = now
		}
		b.lastGood, b.bad = now, 0
		return trouble
	case unknown, serverFailed, readFailed, notSent, unrecognized:
		if errors.As(res.err, new(tooSoonError)) {
			return nil
		}
		b.bad++
		b.unusable++
		b.latest = res.err
		b.suspect = b.suspect || b.bad >= outageAnswers
		if t.unanswered.IsZero() {
			t.unanswered = now
		}
	case signed, noKey, declined, mismatch, signerFailed, waiting:
		clear(b.signerBusy)
		return nil // the partner was not asked
	case checkPassed, hostile, expiring, signerLost, oldForm, misconfigured:
		return nil // the partner was not asked, or the run ends
	default:
		b.lastGood, b.bad, b.throttled = now, 0, time.Time{}
		t.unanswered = time.Time{}
		if res.outcome != invalid && res.outcome != notFound && res.outcome != odd {
			b.notAccepted = 0
		}
		if b.reportedBusy && now.Sub(b.busy) > throttleOver {
			b.reportedBusy = false
			trouble = append(trouble, Trouble{Throttled: true, Over: true})
		}
	}
	if b.answers++; b.answers < troubleOf {
		return trouble
	}
	was := b.reported
	if b.unusable >= troubleFrom {
		b.reported = true
	} else if b.unusable < troubleTo {
		b.reported = false
	}
	if b.reported != was {
		trouble = append(trouble, Trouble{Over: was, Unusable: b.unusable, Of: b.answers, Cause: b.latest})
	}
	b.answers, b.unusable = 0, 0
	return trouble
}

// mayEnd reports whether a row may end with a class. Without a usable answer it may only if the partner has answered
// others since it last answered the row; with a 400 only if the partner has accepted a request since the last few rows
// that ended with a 400, because it may reject the signature of all requests. Otherwise the partner is suspect, and the
// row waits for the probe.
func (b *breaker) mayEnd(t *Task, d Disposition) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch d.Class {
	case classNoAnswer, classServerError:
		if b.lastGood.After(t.unanswered) {
			return true
		}
	case classNotAccepted:
		if b.notAccepted < SetupLimit {
			b.notAccepted++
			return true
		}
	default:
		return true
	}
	if !b.probes {
		return true
	}
	b.suspect = true
	return false
}

// throttledOut reports whether the partner has only throttled for too long.
func (b *breaker) throttledOut() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.throttled.IsZero() && pipeline.Monotonic().Sub(b.throttled) > throttleLimit
}

// signerThrottledOut reports whether the signer has only throttled for too long.
func (b *breaker) signerThrottledOut() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.signerBusy {
		if s.last.Sub(s.since) > throttleLimit {
			return true
		}
	}
	return false
}

// signsNothing reports whether the signer has answered every signing request of this run by throttling.
func (b *breaker) signsNothing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.proven[stepSign].IsZero() && !b.signerBusy[stepSign].since.IsZero()
}

// suspected reports whether the partner must be probed before anything else is sent.
func (b *breaker) suspected() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.suspect
}

// probeAnswered records that the partner has answered the probe.
func (b *breaker) probeAnswered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastGood, b.bad, b.notAccepted, b.suspect = pipeline.Monotonic(), 0, 0, false
	b.answers, b.unusable, b.reported = 0, 0, false // an outage is reported by itself
}

// signerSpoke records a valid signature.
func (b *breaker) signerSpoke() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.signerGood = pipeline.Monotonic()
}

// signerSilent reports whether a row is about to end because of a signer that has signed nothing since it first failed
// for the row.
func (b *breaker) signerSilent(t *Task, res result, d Disposition) bool {
	if res.outcome != signerFailed {
		return false
	}
	if t.signerTrouble.IsZero() {
		t.signerTrouble = pipeline.Monotonic()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return d.Class == classSignerError && !b.signerGood.After(t.signerTrouble)
}
