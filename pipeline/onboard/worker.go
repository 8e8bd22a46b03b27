package onboard

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/siwe"
)

// Options configure a Worker. API, Signer, Ledger, Policy and Now are required; the functions may be called by many
// goroutines at once.
type Options struct {
	API     API
	Signer  Signer // wrapped by signer.Verified
	Ledger  pipeline.Ledger
	Keyring pipeline.Keyring
	// Aliases derive keys of the same API key under other forms of the API's host, as earlier versions did.
	Aliases  []pipeline.Keyring
	Limits   Limits
	Encoding client.SignatureEncoding
	// Policy is the policy for the challenge of an account (rule "Sign nothing blind").
	Policy func(pipeline.Account) siwe.Policy
	// CheckClock returns an error if this machine's clock is too wrong to check challenges; then nothing is signed, and
	// the run halts. A *client.Error means that the partner could not be asked; the row is retried. May be nil.
	CheckClock func(context.Context) error
	// ListPause is the minimum time between two readings of the partner's list.
	ListPause time.Duration
	Now       func() time.Time
	// Hook is called at named points around each durable write and each send; crash tests stop the process there. May
	// be nil.
	Hook func(point string)
	// OnTrouble is called when many answers of the partner are unusable, or it throttles, and when that is over; not for a
	// single failure. It must not block. May be nil.
	OnTrouble func(Trouble)
	// OnStale is called when an obsolete request to a custodian could not be cancelled: a person may still be asked to
	// approve it. May be nil.
	OnStale func(r pipeline.Row, externalTxID string, cause error)
	// OnPollTrouble is called when the custodian gives no usable answer about a row, and then once a minute while that
	// continues. It must not block. May be nil.
	OnPollTrouble func(PollTrouble)
	// PollLimit is how long the polls of a row may fail before SignerCheck is called: if it fails, the run halts;
	// otherwise the row fails. 0: no limit.
	PollLimit time.Duration
	// OnList is called after the partner's list was read. May be nil.
	OnList func(customers int, took time.Duration)
	// OnPartialList is called when the partner's list was read and announces more than could be read. May be nil.
	OnPartialList func(cause error)
	// OnSigner is called after each signer call with its error, which is also nil if a custodian has not decided yet, and
	// its duration. It must not block. May be nil.
	OnSigner func(err error, took time.Duration)
	// OnStage is called when a row changes its stage, with the time that it spent in the previous stage in this process.
	// It must not block. May be nil.
	OnStage func(from, to pipeline.Stage, after time.Duration)
	// HaltAfter is how many consecutive rows may end with the same class, if the set-up can cause it, before the run
	// halts; 0: any number. Before the first success at a step it is SetupLimit, except for no-answer and server-error.
	HaltAfter int
	// Probes says that the caller probes the partner whenever the worker suspects an outage (Suspect), before anything
	// else is sent. Without it, such failures count as the row's own.
	Probes bool
	// SignerCheck checks the signer's health. It is called before a row ends for lack of a signature, and an error halts
	// the run. If nil, the run halts if there was no signature since the row's first signer failure.
	SignerCheck func(context.Context) error
}

// Worker takes rows from stage to stage, one action at a time. It may be used by many goroutines, but not by two for
// the same row.
type Worker struct {
	Options

	list    *lister
	breaker *breaker
	stats   workerStats
	polls   pollTroubles
}

type workerStats struct{ retried, signatures atomic.Int64 }

// New returns a worker that is ready. An error names what is missing.
func New(o Options) (*Worker, error) {
	if o.API == nil || o.Signer == nil || o.Ledger == nil || o.Policy == nil || o.Now == nil {
		return nil, errors.New("onboard: API, Signer, Ledger, Policy and Now are required")
	}
	if o.Hook == nil {
		o.Hook = func(string) {}
	}
	// The monotonic clock, by which Sub counts, stands still while the machine is suspended; the lifetimes of the
	// partner's keys and challenges do not.
	wall := o.Now
	o.Now = func() time.Time { return wall().Round(0) }
	w := &Worker{Options: o, list: newLister(o.API, o.Ledger, o.Now, o.ListPause)}
	w.list.onRead, w.list.onPartial = o.OnList, o.OnPartialList
	w.breaker = newBreaker(o.HaltAfter, o.Probes)
	return w, nil
}

// Stats are counts of a Worker.
type Stats struct {
	Retried    int64 // requests sent again under the same key
	Signatures int64 // signatures made
}

// Stats returns the counts so far.
func (w *Worker) Stats() Stats {
	return Stats{Retried: w.stats.retried.Load(), Signatures: w.stats.signatures.Load()}
}

// Through reports whether a row is through: onboarded, rejected, or with a custodian.
func (w *Worker) Through() bool { return w.breaker.isThrough() }

// SignsNothing reports whether the signer has answered every signing request of this run by throttling.
func (w *Worker) SignsNothing() bool { return w.breaker.signsNothing() }

// NoteThrough records that a row is through. From then on any number of rows may run.
func (w *Worker) NoteThrough() { w.breaker.firstThrough() }

// Suspect reports whether the partner must be probed before anything else is sent.
func (w *Worker) Suspect() bool { return w.breaker.suspected() }

// NoteProbe records that the partner has answered the probe.
func (w *Worker) NoteProbe() { w.breaker.probeAnswered() }

// result is the result of an action.
type result struct {
	outcome outcome
	after   time.Duration          // the partner's Retry-After
	err     error                  // the cause, for the operator
	change  func(*pipeline.Record) // what is known now
}

// Step performs the task's next action, decides, and stores the decision. The error is ErrStale (another caller moved
// the row), ErrFenced (its partition went to another consumer), a *HaltError, client.ErrStopped, or ctx's if the action
// was interrupted: the row then has the ledger's state, and the same key is sent again.
func (w *Worker) Step(ctx context.Context, t *Task) (Disposition, error) {
	if t.Action == DoNext || t.Action == "" {
		t.Action = w.dueAction(t)
	}
	if t.Action == DoSettle {
		return Disposition{Stage: t.Stage, Do: DoSettle}, nil
	}
	res, err := w.perform(ctx, t)
	if err != nil {
		return Disposition{}, err
	}
	if Exhausted(res.err) {
		return Disposition{}, &HaltError{Class: HaltResources, Row: t.Row, Err: res.err}
	}
	if errors.Is(res.err, client.ErrStopped) {
		return Disposition{}, res.err
	}
	if res.err != nil && ctx.Err() != nil {
		return Disposition{}, ctx.Err() // cut short by us, not by the partner
	}
	return w.conclude(ctx, t, res)
}

// PassingPause is how long a row waits that was turned away because of a rebalance.
const PassingPause = 100 * time.Millisecond

// Exhausted reports whether this process or machine is out of file descriptors: retrying does not help.
func Exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// dueAction is the action that the task's record requires.
func (w *Worker) dueAction(t *Task) Action {
	return next(t.Record, w.Now(), w.Limits, w.foreign(t.Record))
}

// foreign reports whether the key of the record's operation was derived for an earlier API key id. The partner keeps
// the keys of each apart, so nothing is known under it any more.
func (w *Worker) foreign(r pipeline.Record) bool {
	key := operationKey(&r)
	if key.IsZero() {
		return false
	}
	derives := func(k pipeline.Keyring) bool {
		if r.Stage == pipeline.Submitting {
			return key.ID == k.Submit(r.CustomerID, key.Digest, key.Generation)
		}
		return key.ID == k.Create(r.Row, key.Generation)
	}
	return !derives(w.Keyring) && !slices.ContainsFunc(w.Aliases, derives)
}

func (w *Worker) perform(ctx context.Context, t *Task) (result, error) {
	switch t.Action {
	case DoCreate, DoRekey:
		if t.Action == DoRekey && t.Stage == pipeline.Submitting {
			return w.submit(ctx, t)
		}
		return w.create(ctx, t)
	case DoLookUp:
		return w.lookUp(ctx, t)
	case DoRead:
		return w.readCustomer(ctx, t.Row, t.CustomerID)
	case DoFetch:
		return w.fetch(ctx, t)
	case DoCheck:
		return w.check(ctx, t), nil
	case DoSign:
		return w.sign(ctx, t)
	case DoSubmit:
		return w.submit(ctx, t)
	}
	return result{}, &HaltError{
		Class: HaltImpossible, Row: t.Row, Err: fmt.Errorf("action %q in stage %s", t.Action, t.Stage),
	}
}

// conclude decides, and stores the row's new state before anything else happens to it.
func (w *Worker) conclude(ctx context.Context, t *Task, res result) (Disposition, error) {
	next := t.Record
	if res.change != nil {
		res.change(&next)
	}
	failures := w.remember(t, &next, res)
	d := w.consultTable(t, next, res, failures)
	if stop, instead, err := w.consultBreaker(ctx, t, res, d); stop {
		return instead, err
	}
	if d.Do == DoRepeat {
		d.Do = t.Action
		if !res.outcome.costs() { // throttled or not sent: nothing new is known, so nothing is written
			t.recorded = false
			return d, nil
		}
	}
	if d.Key != "" {
		operationKey(&next).Outcome = d.Key
	}
	apply(&next, d, res)
	var halt error
	if d.Stage.Terminal() && d.Class != "" {
		var stored bool
		if stored, halt = w.breaker.end(t, d, errors.New(next.Reason)); !stored {
			return Disposition{}, halt
		}
	}
	if d.Stage != t.Stage {
		t.polls, t.failing = 0, failing{}
		t.spared, t.failedInRow = 0, 0
	}
	was := t.Stage
	err := w.store(ctx, t, next)
	if errors.Is(err, pipeline.ErrNonceUsed) {
		return w.conclude(ctx, t, result{outcome: hostile, err: &siwe.PolicyError{
			Field: siwe.FieldNonce, Got: next.Nonce, Want: "a nonce that no other challenge in this ledger has had",
		}})
	}
	if err != nil {
		return Disposition{}, err
	}
	if c, slow := w.Signer.(signer.Custodian); slow && res.outcome == signerFailed && t.Stage == pipeline.Failed {
		_ = w.withdraw(ctx, t, c) // OnStale gets its error
	}
	w.breaker.prove(provenBy(res.outcome, was)...) // not before: the ledger may know a challenge's nonce
	return d, halt
}

// remember updates the task's state with the result, counts the attempt, and returns the number of failures for the
// next wait: for a read the consecutive failed reads, otherwise the attempts that were not spared.
func (w *Worker) remember(t *Task, next *pipeline.Record, res result) (failures int) {
	if res.outcome.costs() {
		next.Attempts++
	}
	if res.outcome == invalid && t.Stage == pipeline.Submitting && w.Limits.challengeIsFresh(t.ChallengeAt, w.Now()) {
		next.Refusals++ // a challenge that ran out meanwhile was not rejected, it was late
	}
	if t.resends && wasSent(res) {
		w.stats.retried.Add(1)
	}
	t.resends = false
	switch res.outcome {
	case serverFailed, unprocessable, unproven:
		t.heard++
	case unknown, conflicting:
		t.heard = 0
	}
	switch res.outcome { // these spread out, too, but count for nothing
	case waiting:
		t.polls++
		next.Attempts, t.Attempts = 0, 0
		return t.polls
	case throttled, notSent:
		t.delays++
		if errors.As(res.err, new(tooSoonError)) {
			return 1 // it says itself when it is due
		}
		return t.delays
	}
	t.delays = 0
	if res.outcome == readFailed {
		t.spared++
		t.failedInRow++
		return t.failedInRow
	}
	t.failedInRow = 0
	return next.Attempts - t.spared
}

// consultTable looks the next step up in the decision table.
func (w *Worker) consultTable(t *Task, next pipeline.Record, res result, failures int) Disposition {
	spread := jitter(t.Row, failures)
	if res.outcome == waiting {
		spread = 0 // the custodian's rows are asked after in turn as it is
	}
	op := operationKey(&next)
	return decide(situation{
		Stage: t.Stage, Outcome: res.outcome, Now: w.Now(),
		KeyFirst: op.FirstSent, KeyState: op.Outcome, KeyForeign: w.foreign(next), ChallengeAt: next.ChallengeAt,
		Last: outcome(t.Class), Attempts: next.Attempts, Failures: failures, Heard: t.heard, Refusals: next.Refusals,
		RetryAfter: res.after, PartnerIsUp: w.breaker.partnerIsUp(), Jitter: spread,
	}, w.Limits)
}

// consultBreaker passes the result to the breaker before anything is stored. stop: the row stays as it is, and the
// returned values replace the decision.
func (w *Worker) consultBreaker(
	ctx context.Context, t *Task, res result, d Disposition,
) (stop bool, instead Disposition, err error) {
	w.breaker.noteAnswer(t, res, w.OnTrouble)
	if halt := w.breaker.noteShape(t, res); halt != nil {
		return true, Disposition{}, halt
	}
	if w.breaker.throttledOut() {
		return true, Disposition{}, &HaltError{Class: HaltUnreachable, Row: t.Row, Err: fmt.Errorf(
			"the partner has only throttled for more than %v: %w", throttleLimit, res.err)}
	}
	if res.outcome == throttled && w.breaker.signerThrottledOut() {
		return true, Disposition{}, &HaltError{Class: HaltSigner, Row: t.Row, Err: fmt.Errorf(
			"the signer has only throttled for more than %v: %w", throttleLimit, res.err)}
	}
	if !w.breaker.mayEnd(t, d) {
		t.recorded = false
		return true, Disposition{Stage: t.Stage, Do: t.Action, After: PassingPause}, nil // the partner is probed first
	}
	if w.breaker.signerSilent(t, res, d) {
		if err := w.checkSigner(ctx, res.err); err != nil {
			return true, Disposition{}, &HaltError{Class: HaltSigner, Row: t.Row, Err: err}
		}
	}
	if d.Do != DoHalt {
		return false, Disposition{}, nil
	}
	cause := res.err
	if cause == nil {
		cause = fmt.Errorf("outcome %q in stage %s", res.outcome, t.Stage)
	}
	return true, Disposition{}, &HaltError{Class: d.Class, Row: t.Row, Err: cause}
}

// jitter spreads the attempts of rows that failed together. It depends only on the row and the attempt, so that a run
// can be reproduced.
func jitter(r pipeline.Row, attempt int) float64 {
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, r.Account, r.ExternalID, attempt) // a hash takes everything
	return float64(h.Sum64()>>11) / (1 << 53)
}

// wasSent reports whether the request itself left: without a token it did not.
func wasSent(res result) bool {
	var e *client.Error
	return res.outcome != notSent && !(errors.As(res.err, &e) && e.Kind == client.NoToken)
}

// operationKey is the key of the stage's operation.
func operationKey(r *pipeline.Record) *pipeline.Key {
	if r.Stage == pipeline.Submitting {
		return &r.SubmitKey
	}
	return &r.CreateKey
}

// apply applies the decision to the record.
func apply(r *pipeline.Record, d Disposition, res result) {
	if d.Stage != r.Stage {
		r.Attempts = 0
	}
	if d.Stage == pipeline.Challenged && r.Stage != pipeline.Challenged && d.Do == DoFetch {
		r.Challenge, r.ChallengeAt, r.ExternalTxID = "", time.Time{}, "" // the old one cannot be used again
	}
	if d.Stage == pipeline.Onboarded && res.outcome == past && r.Stage != pipeline.Submitting {
		r.AlreadyOnboarded = true
	}
	r.Stage = d.Stage
	switch {
	case d.Stage.Terminal() && d.Class != "":
		if res.outcome != initiating || r.Reason == "" { // else what the row has been struggling with says more
			r.Reason = reasonOf(res)
		}
		r.Class = string(d.Class)
	case d.Stage.Terminal(): // onboarded, or rejected by the partner: what the row was struggling with is over
		r.Class, r.Reason = "", ""
	case res.err != nil:
		r.Class, r.Reason = string(res.outcome), reasonOf(res) // what the row is struggling with
	}
}

func reasonOf(res result) string {
	if res.err == nil {
		return string(res.outcome)
	}
	return printable.Line(res.err.Error(), 500)
}

// store writes the record by compare-and-set and takes over its new version.
func (w *Worker) store(ctx context.Context, t *Task, next pipeline.Record) error {
	point := "ledger." + string(next.Stage)
	w.Hook(point + ".before")
	// What the partner answered is stored even while we are being stopped.
	version, err := w.Ledger.Update(context.WithoutCancel(ctx), next)
	if err != nil {
		if errors.Is(err, pipeline.ErrStale) || errors.Is(err, pipeline.ErrFenced) || errors.Is(err, pipeline.ErrNonceUsed) {
			return err
		}
		return &HaltError{Class: HaltLedger, Row: t.Row, Err: err}
	}
	w.Hook(point + ".after")
	if w.OnStage != nil && next.Stage != t.Stage {
		now := pipeline.Monotonic()
		w.OnStage(t.Stage, next.Stage, now.Sub(t.entered))
		t.entered = now
	}
	next.Version, next.Nonce = version, ""
	t.Record = next
	return nil
}
