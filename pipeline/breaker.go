package pipeline

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/purser-onboard/purser/client"
)

const (
	// setupLimit is how many rows may end alike at a step at which no row of the run has succeeded, and how many answers
	// to a request of which none was understood may be of an unknown shape.
	setupLimit = 5
	// outageAnswers is how many unusable answers in a row, with no other between them, make the partner suspect.
	outageAnswers = 10
	tellEvery     = 30 * time.Second
)

// step is what a row passes or fails at. A set-up that is right for one step can be wrong for the next.
type step string

const (
	stepKey    step = "key" // the signer has a key of the account
	stepCreate step = "create"
	stepCheck  step = "check" // the challenge is the customer's own sign-in
	stepSign   step = "sign"
	stepSubmit step = "submit"
)

// stepAt is the step at which a row ends with a class in a stage.
func stepAt(class string, s Stage) step {
	switch class {
	case "no-key":
		return stepKey
	case "declined", "signer-mismatch", "signer-error":
		return stepSign
	}
	switch s {
	case Challenged:
		return stepCheck
	case Signing:
		return stepSign
	case Submitting:
		return stepSubmit
	}
	return stepCreate
}

// passed are the steps that an outcome proves the set-up to be right for.
func passed(o Outcome, s Stage) []step {
	switch o {
	case Created:
		return []step{stepCreate}
	case CheckPassed:
		return []step{stepCheck}
	case Signed:
		return []step{stepKey, stepSign}
	case Accepted:
		return []step{stepSubmit}
	case Past:
		if s == Submitting {
			return []step{stepSubmit}
		}
	}
	return nil
}

// setupHint is the setting to look at when rows end with a class one after the other; ok is false for a class that the
// set-up cannot cause.
func setupHint(class string) (hint string, ok bool) {
	switch class {
	case "challenge":
		return "check --challenge-domain and --api-url (the partner may name another domain), and --challenge-ttl", true
	case "challenge-expired", "no-challenge":
		return "check --challenge-ttl and this machine's clock", true
	case "signature-refused":
		return "check --signature-encoding, and that --signer holds the customers' own keys", true
	case "no-key":
		return "check --signer: it has no key of these accounts", true
	case "signer-mismatch":
		return "check --signer: its keys are of other accounts", true
	case "declined", "signer-error":
		return "check --signer and its own log", true
	case "invalid":
		return "check --api-url (live or sandbox), --content-digest, and the chain the rows were imported for " +
			"(the importer's --chain)", true
	case "unprocessable":
		return "check that no other program uses the same --api-key", true
	case "unexpected", "unrecognized", "customer-gone", "conflict-unresolved":
		return "check --api-url, and whether the partner has changed its API", true
	case "server-error", "no-answer":
		return "ask the partner; rows that ended can be imported again", true
	}
	return "", false
}

// breaker stops a run before its rows pay for what is not theirs: a wrong set-up, or a partner that is away. A failure
// that every row shares is the set-up's.
type breaker struct {
	haltAfter int // rows in a row that may end alike after a success; 0: any number

	mu      sync.Mutex
	proven  map[step]time.Time // when a row last passed it, monotonic
	streaks map[step]*streak
	shapes  map[Act]int // answers of an unknown shape; -1: one was understood
	done    bool        // a row has come to a good end, or to a custodian

	lastGood time.Time // when the partner gave a usable answer, monotonic
	bad      int       // unusable answers since
	suspect  bool      // whether the partner is there has to be asked before anything else is sent
	told     time.Time // when the operator was last told of bad answers, monotonic
	throttle time.Time // … of throttling

	signerGood time.Time // the last signature that was right, monotonic
}

// streak counts the rows that ended with one class since the last success at their step.
type streak struct {
	class string
	n     int
	rows  []Row // the first of them
}

// spent is how many rows a message names.
const spentNamed = 5

func (b *breaker) init(haltAfter int) {
	b.haltAfter = haltAfter
	b.proven, b.streaks, b.shapes = map[step]time.Time{}, map[step]*streak{}, map[Act]int{}
}

// end takes in that a row is about to end with a class. stored: it may. halt: the run ends with it, or instead.
func (b *breaker) end(t *task, d Disposition, cause error) (halt error, stored bool) {
	hint, counts := setupHint(d.Class)
	if !counts || d.Class == t.before { // it ended so before: that says nothing new about the set-up
		return nil, true
	}
	at := stepAt(d.Class, t.Stage)
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.streaks[at]
	if s == nil || s.class != d.Class {
		s = &streak{class: d.Class}
		b.streaks[at] = s
	}
	limit := b.haltAfter
	outage := d.Class == "server-error" || d.Class == "no-answer" // about which the probe was asked
	if b.proven[at].IsZero() && !outage {
		limit = setupLimit
	}
	if limit > 0 && s.n >= limit {
		return b.halted(t, s, at, cause, hint), false
	}
	s.n++
	if len(s.rows) < spentNamed {
		s.rows = append(s.rows, t.Row)
	}
	if s.n == limit {
		return b.halted(t, s, at, cause, hint), true
	}
	return nil, true
}

func (b *breaker) halted(t *task, s *streak, at step, cause error, hint string) error {
	return &HaltError{
		Class: s.class, Row: t.Row, Err: cause, Count: s.n, Spent: append([]Row(nil), s.rows...), Hint: hint,
		never: b.proven[at].IsZero(),
	}
}

// passed takes in an outcome that proves steps, and ends their streaks.
func (b *breaker) passed(steps ...step) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, at := range steps {
		b.proven[at] = monotonic()
		delete(b.streaks, at)
	}
}

// othersFare reports whether another row has passed the task's step since its trouble began, so that the trouble is
// not the partner's.
func (b *breaker) othersFare(t *task) bool {
	if t.trouble.IsZero() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.proven[stepAt("", t.Stage)].After(t.trouble)
}

// shape takes in whether an answer to an act was understood; the error says that it never was.
func (b *breaker) shape(t *task, act Act, res result) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if res.outcome != Unrecognized {
		if res.err == nil {
			b.shapes[act] = -1
		}
		return nil
	}
	if b.shapes[act] >= 0 {
		b.shapes[act]++
	}
	if b.shapes[act] < setupLimit {
		return nil
	}
	return &HaltError{Class: "configuration", Row: t.Row, Err: res.err}
}

// finished notes that a row has come through: from now on any number may be begun at once.
func (b *breaker) finished() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done = true
}

// proved reports whether a row has come through.
func (b *breaker) proved() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.done
}

// heard takes in whether the partner gave a usable answer.
func (b *breaker) heard(t *task, res result, tell func(tries int, since time.Time, cause error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := monotonic()
	switch res.outcome {
	case Throttled:
		var partner *client.Error
		if !errors.As(res.err, &partner) {
			return // the signer does
		}
		if tell != nil && now.Sub(b.throttle) >= tellEvery {
			b.throttle = now
			tell(0, now, res.err)
		}
		b.lastGood, b.bad = now, 0
	case Unknown, ServerFailed, ReadFailed, NotSent, Unrecognized:
		if errors.As(res.err, new(tooSoonError)) {
			return
		}
		b.bad++
		b.suspect = b.suspect || b.bad >= outageAnswers
		if tell != nil && (b.bad == 1 || now.Sub(b.told) >= tellEvery) {
			b.told = now
			tell(b.bad, b.lastGood, res.err)
		}
		if t.trouble.IsZero() {
			t.trouble = now
		}
	case CheckPassed, Hostile, Expiring, Signed, NoKey, Declined, Mismatch, SignerFailed, SignerLost, Waiting, OldForm:
		// The partner was not asked.
	default:
		b.lastGood, b.bad = now, 0
		t.trouble = time.Time{}
	}
}

// mayEnd reports whether a row that got no usable answer may end for it: only if the partner was seen to be there since
// its trouble began. If not, the partner is suspect, and the row has to wait for the probe.
func (b *breaker) mayEnd(t *task, d Disposition) bool {
	if d.Class != "no-answer" && d.Class != "server-error" {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lastGood.After(t.trouble) {
		return true
	}
	b.suspect = true
	return false
}

// suspected reports whether the partner has to be probed before anything else is sent.
func (b *breaker) suspected() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.suspect
}

// answered notes that the partner has answered the probe.
func (b *breaker) answered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastGood, b.bad, b.suspect = monotonic(), 0, false
}

// signerSpoke notes a signature that was right.
func (b *breaker) signerSpoke() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.signerGood = monotonic()
}

// signerSilent reports whether a row is about to end because of a signer that has signed nothing since it first failed
// for the row.
func (b *breaker) signerSilent(t *task, res result, d Disposition) bool {
	if res.outcome != SignerFailed {
		return false
	}
	if t.signerTrouble.IsZero() {
		t.signerTrouble = monotonic()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return d.Class == "signer-error" && !b.signerGood.After(t.signerTrouble)
}

// HaltError stops the run (rule 10 and 14): the row stays where it was, and so do all others that had not ended.
type HaltError struct {
	Class string // "configuration", "signer", "unreachable", "ledger", "impossible", or the class with which rows ended
	Row   Row    // the one at which it was found; zero: none
	Err   error

	Count int    // how many rows ended alike; 0: that is not why
	Spent []Row  // the first of them
	Hint  string // the setting to look at

	never bool // no row had succeeded at the step
}

func (e *HaltError) Error() string {
	var b strings.Builder
	b.WriteString("halted")
	if e.Count > 0 {
		fmt.Fprintf(&b, ": %d rows in a row ended with %s", e.Count, e.Class)
		if e.never {
			b.WriteString(", and no row has passed that step")
		}
		b.WriteString("; the last")
	}
	if e.Row != (Row{}) {
		fmt.Fprintf(&b, " at %s (%s)", e.Row.Where(), e.Row.Account)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if hint := e.hint(); hint != "" {
		b.WriteString("; " + hint)
	}
	if e.Count > 0 {
		where := make([]string, len(e.Spent))
		for i, r := range e.Spent {
			where[i] = r.Where()
		}
		fmt.Fprintf(&b, "; ended so: %s", strings.Join(where, ", "))
		if more := e.Count - len(e.Spent); more > 0 {
			fmt.Fprintf(&b, " and %d more (`consumer failures` lists them)", more)
		}
		b.WriteString("; import them again after the fix, all others stay in the queue")
	}
	return b.String()
}

func (e *HaltError) hint() string {
	var partner *client.Error
	hint := e.Hint
	if hint == "" && errors.As(e.Err, &partner) {
		hint = partner.Hint()
	}
	switch {
	case e.Class == "configuration" && !strings.Contains(hint, "`consumer check`"):
		if hint != "" {
			hint += "; "
		}
		hint += "`consumer check` tests the set-up without touching a customer"
	case e.Class == "signer":
		hint = "fix the signer, then run again"
	case e.Class == "unreachable":
		hint = "run again when the partner is back (--outage-wait says how long a run waits)"
	}
	return hint
}

// SetUp reports whether the run halted because of a setting: it has to be fixed before the next run.
func (e *HaltError) SetUp() bool {
	switch e.Class {
	case "configuration":
		return true
	case "signer", "unreachable", "ledger", "impossible", "server-error", "no-answer", "signer-error":
		return false
	}
	return e.Count > 0
}

func (e *HaltError) Unwrap() error { return e.Err }

// oneLine makes text fit for one line of a report: printable, at most max bytes.
func oneLine(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, "\ufffd"))
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}
