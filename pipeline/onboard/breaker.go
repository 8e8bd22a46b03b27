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
	// SetupLimit is how many rows may end alike at a step that no row of the run has passed, how many new rows run before
	// one has come through, and how many answers of an unknown shape in a row are taken for a changed API.
	SetupLimit = 5
	// spentNamed is how many of the rows that ended a message names.
	spentNamed = 5
	// outageAnswers is how many unusable answers in a row make the partner suspect.
	outageAnswers = 10
	// When at least troubleFrom of troubleOf responses are unusable, that is reported; when fewer than troubleTo are, its
	// end.
	troubleOf   = 100
	troubleFrom = 25
	troubleTo   = 10
	// throttleOver is how long the partner must not have throttled for that to be over.
	throttleOver = time.Minute
)

// Trouble is what the operator should know of the partner's answers.
type Trouble struct {
	Throttled    bool // it is about throttling, not about unusable answers
	Over         bool // the trouble that was reported is over
	Unusable, Of int  // unusable answers of so many
	Cause        error
}

// step is what a row passes or fails at. A set-up that is right for one step can be wrong for the next.
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

// provenBy are the steps that an outcome proves the set-up to be right for.
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

// setupHint is the setting to look at when rows end with a class one after the other; ok is false for a class that the
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

// breaker halts a run whose rows fail for a shared cause: a wrong set-up, or a partner that is away.
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

// busy is since when something has done nothing but throttle, and when it did so last, monotonic.
type busy struct{ since, last time.Time }

// streak are the rows that ended with one class since the last success at their step.
type streak struct {
	ids  map[int64]bool
	rows []pipeline.Row // the first of them
}

// shapes counts the answers to an action that were not understood since one was.
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

// end takes in that a row is about to end with a class. stored reports whether it may. halt, if it is not nil, ends the
// run, after the row has ended if that may.
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

// prove takes in that a row has passed steps, and ends their streaks.
func (b *breaker) prove(steps ...step) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, at := range steps {
		b.proven[at] = pipeline.Monotonic()
		delete(b.streaks, at)
		delete(b.signerBusy, at)
	}
}

// partnerIsUp reports whether the partner has lately answered anything, so that the trouble is the row's: a wait of a
// minute is for a partner that is away.
func (b *breaker) partnerIsUp() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.lastGood.IsZero() && pipeline.Monotonic().Sub(b.lastGood) < upFor
}

// upFor is how long one good answer shows that the partner is there.
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
		// It was understood before: perhaps a page that stands for a partner that is away. The probe tells.
		s.probed, b.suspect = true, true
		s.n = 0
		clear(s.rows)
		return nil
	}
	return &HaltError{Class: HaltConfiguration, Row: t.Row, Err: res.err}
}

// firstThrough notes that a row has come through: from now on any number may run.
func (b *breaker) firstThrough() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.through = true
}

// isThrough reports whether a row has come through.
func (b *breaker) isThrough() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.through
}

// throttleLimit is how long partner or signer may do nothing but throttle the rows before the run halts: twice the
// longest closing of the gate, so that two of the longest in a row do not halt it.
const throttleLimit = 2 * client.MaxRetryAfter

// noteAnswer takes in whether the partner gave a usable answer.
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

// mayEnd reports whether a row may end with a class. Without a usable answer it may only if the partner was seen to be
// there since the row was last answered; with a 400 only if it has accepted a request since the last few that ended so,
// because what it finds wrong may be the signature of all requests. If not, the partner is suspect, and the row waits
// for the probe.
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

// throttledOut reports whether the partner has done nothing but throttle the rows for too long.
func (b *breaker) throttledOut() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.throttled.IsZero() && pipeline.Monotonic().Sub(b.throttled) > throttleLimit
}

// signerThrottledOut reports whether the signer has done nothing but throttle the rows for too long.
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

// signsNothing reports whether the signer has done nothing in this run but throttle when it was asked to sign.
func (b *breaker) signsNothing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.proven[stepSign].IsZero() && !b.signerBusy[stepSign].since.IsZero()
}

// suspected reports whether the partner has to be probed before anything else is sent.
func (b *breaker) suspected() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.suspect
}

// probeAnswered notes that the partner has answered the probe.
func (b *breaker) probeAnswered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastGood, b.bad, b.notAccepted, b.suspect = pipeline.Monotonic(), 0, 0, false
	b.answers, b.unusable, b.reported = 0, 0, false // an outage is reported by itself
}

// signerSpoke notes a signature that was right.
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
