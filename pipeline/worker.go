package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/siwe"
)

// WorkerOptions are what a Worker needs. API, Signer, Ledger, Policy and Now are required; the functions without a remark may
// be called by many goroutines at once.
type WorkerOptions struct {
	API     API
	Signer  Signer // wrapped by signer.Verified
	Ledger  Ledger
	Keyring Keyring
	// Aliases derive keys of the same API key under other forms of the API's host, as earlier versions did.
	Aliases  []Keyring
	Limits   Limits
	Encoding client.SignatureEncoding
	// Policy is the policy for the challenge of an account (rule 8).
	Policy func(Account) siwe.Policy
	// CheckClock says why no challenge can be judged by the clock of this machine; nothing is signed then, and the run
	// halts. May be nil.
	CheckClock func() error
	// ListPause is the least time between two readings of the partner's list.
	ListPause time.Duration
	Now       func() time.Time
	// Hook is called at named points around each durable write and each send; crash tests stop the process there. May
	// be nil.
	Hook func(point string)
	// OnTrouble is called when many answers of the partner are unusable, or it throttles, and when that is over; not for a
	// failure that stands alone. It must not block. May be nil.
	OnTrouble func(Trouble)
	// OnStale is called when a custodian's request that is of no use any more could not be cancelled: a person may still
	// be asked to approve it. May be nil.
	OnStale func(r Row, externalTxID string, cause error)
	// OnPollTrouble is called when the custodian gives no usable answer about a row, and then once a minute for as long as
	// that goes on. It must not block. May be nil.
	OnPollTrouble func(PollTrouble)
	// PollLimit is for how long the polls of a row may fail before the signer is asked for its health: if that is bad, the
	// run halts; if it is good, the row fails. 0: without end.
	PollLimit time.Duration
	// OnList is called after the partner's list was read. May be nil.
	OnList func(customers int, took time.Duration)
	// OnPartialList is called when the partner's list was read and announces more than could be read. May be nil.
	OnPartialList func(cause error)
	// HaltAfter is how many rows in a row may end alike, for a reason that the set-up can cause, before the run halts; 0:
	// any number. Before the first success at a step it is SetupLimit.
	HaltAfter int
	// Probes says that the partner is probed whenever the worker suspects that it is away (Suspect), before anything else
	// is sent. Without it, what only a probe could tell apart is taken for the row's own trouble.
	Probes bool
	// SignerCheck asks the signer whether it is well; it is called before a row ends for want of a signature, and an error
	// halts the run. If nil, no signature since the row's first signer failure halts the run.
	SignerCheck func(context.Context) error
}

// Worker takes rows from stage to stage, one action at a time. It may be used by many goroutines, never by two for one
// row.
type Worker struct {
	WorkerOptions

	list    *lister
	breaker *breaker
	stats   workerStats
	polls   pollTroubles
}

type workerStats struct{ retried, signatures atomic.Int64 }

// NewWorker returns a worker that is ready. An error names what is missing.
func NewWorker(o WorkerOptions) (*Worker, error) {
	switch {
	case o.API == nil, o.Signer == nil, o.Ledger == nil, o.Policy == nil, o.Now == nil:
		return nil, errors.New("onboard: API, Signer, Ledger, Policy and Now are required")
	}
	if o.Hook == nil {
		o.Hook = func(string) {}
	}
	w := &Worker{WorkerOptions: o, list: newLister(o.API, o.Ledger, o.Now, o.ListPause)}
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

// Through reports whether a row has come through: it is onboarded or rejected, or with a custodian.
func (w *Worker) Through() bool { return w.breaker.isThrough() }

// NoteThrough notes that a row has come through. From then on any number of rows may run.
func (w *Worker) NoteThrough() { w.breaker.firstThrough() }

// Suspect reports whether the partner has to be probed before anything else is sent.
func (w *Worker) Suspect() bool { return w.breaker.suspected() }

// NoteProbe notes that the partner has answered the probe.
func (w *Worker) NoteProbe() { w.breaker.probeAnswered() }

// result is what an act came to.
type result struct {
	outcome Outcome
	after   time.Duration // the partner's Retry-After
	err     error         // the cause, for the operator
	change  func(*Record) // what is now known besides
}

// Step performs the task's next act, decides, and stores the decision. The error is ErrStale (somebody else moved the
// row), ErrFenced (its partition went to another consumer), a *HaltError, client.ErrStopped, or ctx's when the act was
// interrupted: the row then stands where the ledger says, and the same key goes out again.
func (w *Worker) Step(ctx context.Context, t *Task) (Disposition, error) {
	if t.Action == DoNext || t.Action == "" {
		t.Action = w.next(t)
	}
	if t.Action == DoSettle {
		return Disposition{Stage: t.Stage, Do: DoSettle}, nil
	}
	res, err := w.perform(ctx, t)
	if err != nil {
		return Disposition{}, err
	}
	if Exhausted(res.err) {
		return Disposition{}, &HaltError{Class: "resources", Row: t.Row, Err: res.err}
	}
	if errors.Is(res.err, client.ErrStopped) {
		return Disposition{}, res.err
	}
	if res.err != nil && ctx.Err() != nil {
		return Disposition{}, ctx.Err() // cut short by us, not by the partner
	}
	return w.conclude(ctx, t, res)
}

// PassingPause is how long a row waits that was turned away because partitions are dealt out anew.
const PassingPause = 100 * time.Millisecond

// Exhausted reports whether this process or machine has no file descriptor left: nothing gets better by trying again.
func Exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// next says what the task's record asks for.
func (w *Worker) next(t *Task) Action { return Next(t.Record, w.Now(), w.Limits, w.foreign(t.Record)) }

// foreign reports whether the key of the record's operation was derived for an earlier API key id. The partner keeps
// the keys of each apart, so nothing is known under it any more.
func (w *Worker) foreign(r Record) bool {
	key := operationKey(&r)
	if key.IsZero() {
		return false
	}
	derives := func(k Keyring) bool {
		if r.Stage == Submitting {
			return key.ID == k.Submit(r.CustomerID, key.Digest, key.Generation)
		}
		return key.ID == k.Create(r.Row, key.Generation)
	}
	return !derives(w.Keyring) && !slices.ContainsFunc(w.Aliases, derives)
}

func (w *Worker) perform(ctx context.Context, t *Task) (result, error) {
	switch t.Action {
	case DoCreate, DoRekey:
		if t.Action == DoRekey && t.Stage == Submitting {
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
		return w.check(t), nil
	case DoSign:
		return w.sign(ctx, t)
	case DoSubmit:
		return w.submit(ctx, t)
	}
	return result{}, &HaltError{Class: "impossible", Row: t.Row, Err: fmt.Errorf("act %q in stage %s", t.Action, t.Stage)}
}

// conclude decides, and stores what the row has become before anything else happens to it.
func (w *Worker) conclude(ctx context.Context, t *Task, res result) (Disposition, error) {
	now := w.Now()
	next := t.Record
	if res.change != nil {
		res.change(&next)
	}
	if res.outcome.Costs() {
		next.Attempts++
	}
	op := operationKey(&next)
	if res.outcome == Invalid && t.Stage == Submitting && w.Limits.ChallengeIsFresh(t.ChallengeAt, now) {
		next.Refusals++ // a challenge that ran out meanwhile was not refused, it was late
	}
	attempts := next.Attempts
	switch res.outcome { // these spread out, too, but count for nothing
	case Waiting:
		t.polls++
		attempts = t.polls
		next.Attempts = 0
		t.Attempts = 0
	case Throttled, NotSent:
		t.delays++
		attempts = t.delays
		if errors.As(res.err, new(tooSoonError)) {
			attempts = 1 // it says itself when it is due
		}
	default:
		t.delays = 0
	}
	switch res.outcome {
	case ServerFailed, Unprocessable, Unproven:
		t.heard++
	case Unknown, Conflicting:
		t.heard = 0
	}
	if t.resends && wasSent(res) {
		w.stats.retried.Add(1)
	}
	t.resends = false
	spread := jitter(t.Row, attempts)
	if res.outcome == Waiting {
		spread = 0 // the custodian's rows are asked after in turn as it is
	}
	d := Decide(Situation{
		Stage: t.Stage, Outcome: res.outcome, Now: now,
		KeyFirst: op.FirstSent, KeyOutcome: op.Outcome, KeyForeign: w.foreign(next), ChallengeAt: next.ChallengeAt,
		Last: Outcome(t.Class), Attempts: attempts, Heard: t.heard, Refusals: next.Refusals, RetryAfter: res.after,
		PartnerIsUp: w.breaker.partnerIsUp(), Jitter: spread,
	}, w.Limits)
	w.breaker.noteAnswer(t, res, w.OnTrouble)
	if halt := w.breaker.noteShape(t, res); halt != nil {
		return Disposition{}, halt
	}
	if w.breaker.throttledOut() {
		return Disposition{}, &HaltError{Class: "unreachable", Row: t.Row, Err: fmt.Errorf(
			"the partner has only throttled for more than %v: %w", throttleLimit, res.err)}
	}
	if !w.breaker.mayEnd(t, d) {
		t.recorded = false
		return Disposition{Stage: t.Stage, Do: t.Action, After: PassingPause}, nil // nothing is written before the probe
	}
	if w.breaker.signerSilent(t, res, d) {
		if err := w.checkSigner(ctx, res.err); err != nil {
			return Disposition{}, &HaltError{Class: "signer", Row: t.Row, Err: err}
		}
	}
	if d.Do == DoHalt {
		cause := res.err
		if cause == nil {
			cause = fmt.Errorf("outcome %q in stage %s", res.outcome, t.Stage)
		}
		return Disposition{}, &HaltError{Class: d.Class, Row: t.Row, Err: cause}
	}
	if d.Do == DoRepeat && !res.outcome.Costs() {
		d.Do = t.Action // throttled or not sent: nothing is known that was not known before, so nothing is written
		t.recorded = false
		return d, nil
	}
	if d.Do == DoRepeat {
		d.Do = t.Action
	}
	if d.Key != "" {
		op.Outcome = d.Key
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
	}
	was := t.Stage
	err := w.store(ctx, t, next)
	if errors.Is(err, ErrNonceUsed) {
		return w.conclude(ctx, t, result{outcome: Hostile, err: &siwe.PolicyError{
			Field: siwe.FieldNonce, Got: next.Nonce, Want: "one that no other challenge in this ledger has had",
		}})
	}
	if err != nil {
		return Disposition{}, err
	}
	if c, slow := w.Signer.(signer.Custodian); slow && res.outcome == SignerFailed && t.Stage == Failed {
		_ = w.withdraw(ctx, t, c) // OnStale is told
	}
	w.breaker.prove(provenBy(res.outcome, was)...) // not before: the ledger may know a challenge's nonce
	return d, halt
}

// jitter spreads the tries of rows that failed together. It depends on the row and the try alone, so that a run can be
// repeated.
func jitter(r Row, attempt int) float64 {
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, r.Account, r.ExternalID, attempt) // a hash takes everything
	return float64(h.Sum64()>>11) / (1 << 53)
}

// checkSigner says why the signer, which fails for a row, fails for all of them; nil when only for that row.
func (w *Worker) checkSigner(ctx context.Context, cause error) error {
	if w.SignerCheck == nil {
		return cause
	}
	if err := w.SignerCheck(ctx); err != nil {
		return fmt.Errorf("%w; its check: %w", cause, err)
	}
	return nil
}

// wasSent reports whether the request itself left: without a token it did not.
func wasSent(res result) bool {
	var e *client.Error
	return res.outcome != NotSent && !(errors.As(res.err, &e) && e.Kind == client.NoToken)
}

// operationKey is the key of the stage's operation.
func operationKey(r *Record) *Key {
	if r.Stage == Submitting {
		return &r.SubmitKey
	}
	return &r.CreateKey
}

// apply moves the record to the stage decided on.
func apply(r *Record, d Disposition, res result) {
	if d.Stage != r.Stage {
		r.Attempts = 0
	}
	if d.Stage == Challenged && r.Stage != Challenged && d.Do == DoFetch {
		r.Challenge, r.ChallengeAt, r.ExternalTxID = "", time.Time{}, "" // the old one is of no use any more
	}
	r.AlreadyOnboarded = r.AlreadyOnboarded || d.Stage == Onboarded && res.outcome == Past && r.Stage != Submitting
	r.Stage = d.Stage
	switch {
	case d.Stage.Terminal() && d.Class != "":
		if res.outcome != Initiating || r.Reason == "" { // else what the row has been struggling with says more
			r.Reason = reasonOf(res)
		}
		r.Class = d.Class
	case d.Stage == Onboarded:
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
func (w *Worker) store(ctx context.Context, t *Task, next Record) error {
	point := "ledger." + string(next.Stage)
	w.Hook(point + ".before")
	// What the partner answered is stored even while we are being stopped.
	version, err := w.Ledger.Update(context.WithoutCancel(ctx), next)
	if err != nil {
		if errors.Is(err, ErrStale) || errors.Is(err, ErrFenced) || errors.Is(err, ErrNonceUsed) {
			return err
		}
		return &HaltError{Class: "ledger", Row: t.Row, Err: err}
	}
	w.Hook(point + ".after")
	next.Version, next.Nonce = version, ""
	t.Record = next
	return nil
}

// create sends POST /customers. The key and the digest of the payload are durable before it leaves (rule 1).
func (w *Worker) create(ctx context.Context, t *Task) (result, error) {
	if t.Stage == Planned && t.CreateKey.IsZero() {
		// A customer that nobody can sign for would stay half made with the partner.
		if _, err := w.Signer.HasKey(ctx, t.Account.Address); err != nil {
			return signResult(err), nil
		}
		w.breaker.prove(stepKey)
	}
	body := client.CreateBody(t.Account.String(), t.ExternalID)
	now := w.Now()
	next := t.Record
	next.Stage = Creating
	switch {
	case next.CreateKey.IsZero():
		next.CreateKey = Key{Operation: OpCreate, FirstSent: now}
	case t.Action == DoRekey:
		next.CreateKey = Key{Operation: OpCreate, Generation: next.CreateKey.Generation + 1, FirstSent: now}
	default:
		t.resends = true
	}
	if t.Action == DoRekey {
		t.heard = 0
	} else if next.CreateKey.Outcome == KeyHeard {
		t.heard = 1 // by an earlier run
	}
	key := &next.CreateKey
	if key.ID == uuid.Nil {
		key.ID = w.Keyring.Create(t.Row, key.Generation)
	}
	key.Digest = sha256.Sum256(body)
	key.LastSent, key.Outcome = now, KeyOpen
	if err := w.store(ctx, t, next); err != nil {
		return result{}, err
	}
	t.Action = DoCreate // from here on a repetition is one under the same key
	w.Hook("create.before-send")
	t.sent = Monotonic()
	customer, err := w.API.CreateCustomer(ctx, t.CreateKey.ID, body)
	w.Hook("create.after-send")
	if err != nil {
		outcome, after := changeOutcome(err)
		return result{outcome: outcome, after: after, err: err}, nil
	}
	received := w.Now()
	t.fetched = time.Time{}
	res := result{outcome: Created, change: func(r *Record) {
		r.CustomerID, r.PartnerStatus = customer.ID, string(customer.Status)
		r.Challenge, r.ChallengeAt = "", time.Time{}
		if text, err := client.DecodeChallenge(customer.Challenge); err == nil {
			r.Challenge, r.ChallengeAt = text, received // else it is fetched
		}
	}}
	if customer.Status != "" {
		if res.outcome = StatusOutcome(customer.Status); res.outcome == Initiating {
			res.outcome = Created
		}
		if res.outcome == OddCustomer {
			res.err = oddStatus(customer)
		}
	}
	return res, nil
}

// lookUp searches the pair in the partner's list and reads the customer found: its status may have moved on since, or
// it may be gone. Only a list that was read after the creation was last sent can say that no customer is there, and
// only to a search that began when that list was in force.
func (w *Worker) lookUp(ctx context.Context, t *Task) (result, error) {
	for {
		current, partial, err := w.list.current(ctx, t.sent)
		if err != nil {
			return w.listFailed(ctx, t, err)
		}
		found, err := w.list.find(ctx, t.Row)
		if err != nil {
			return w.listFailed(ctx, t, err)
		}
		// The pair itself first: a customer that shares only one half of it matters if there is no such customer.
		slices.SortStableFunc(found, func(a, b Customer) int {
			return boolInt(!IsPair(t.Row, a.ChainID, a.ExternalID)) - boolInt(!IsPair(t.Row, b.ChainID, b.ExternalID))
		})
		for _, c := range found {
			if res, err := w.readCustomer(ctx, t.Row, c.ID); err != nil || res.outcome != Absent {
				return res, err
			}
		}
		switch {
		case current && partial != nil:
			return result{outcome: Unlisted, err: partial}, nil
		case current:
			return result{outcome: Absent}, nil
		}
		if err := w.list.refresh(ctx, t.sent); err != nil {
			return w.listFailed(ctx, t, err)
		}
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// listFailed sorts what went wrong with the list: it is too early to read it again, the partner failed, or the ledger.
func (w *Worker) listFailed(ctx context.Context, t *Task, err error) (result, error) {
	var soon tooSoonError
	if errors.As(err, &soon) {
		return result{outcome: NotSent, after: soon.after, err: err}, nil
	}
	var partner *client.Error
	if !errors.As(err, &partner) && !errors.Is(err, client.ErrStopped) && ctx.Err() == nil {
		return result{}, &HaltError{Class: "ledger", Row: t.Row, Err: err}
	}
	outcome, after := readOutcome(err)
	if outcome == Absent { // of the list itself: there is no such endpoint
		outcome = Misconfigured
	}
	return result{outcome: outcome, after: after, err: err}, nil
}

// readCustomer reads one customer and says what it means for the row.
func (w *Worker) readCustomer(ctx context.Context, row Row, id string) (result, error) {
	customer, err := w.API.Customer(ctx, id)
	if err != nil {
		outcome, after := readOutcome(err)
		return result{outcome: outcome, after: after, err: err}, nil
	}
	outcome := customerOutcome(row, customer)
	if outcome == Other {
		return result{outcome: Other, err: takenBy(customer)}, nil
	}
	res := result{outcome: outcome, change: func(r *Record) {
		r.CustomerID, r.PartnerStatus = customer.ID, string(customer.Status)
	}}
	if outcome == OddCustomer {
		res.err = oddStatus(customer)
	}
	return res, nil
}

func oddStatus(c client.Customer) error {
	return fmt.Errorf("customer %s has status %q, which the partner does not document", c.ID, c.Status)
}

func takenBy(c client.Customer) error {
	return fmt.Errorf("customer %s has account %s and externalId %q", c.ID, c.ChainID, c.ExternalID)
}

// fetch reads the current challenge.
func (w *Worker) fetch(ctx context.Context, t *Task) (result, error) {
	asked := w.Now()
	encoded, err := w.API.Challenge(ctx, t.CustomerID)
	if err != nil {
		outcome, after := fetchOutcome(err)
		return result{outcome: outcome, after: after, err: err}, nil
	}
	text, err := client.DecodeChallenge(encoded)
	if err != nil {
		return result{outcome: Hostile, err: fmt.Errorf("challenge: %w", err)}, nil
	}
	t.fetched = asked
	received := w.Now()
	return result{outcome: GotChallenge, change: func(r *Record) {
		r.Challenge, r.ChallengeAt = text, received
	}}, nil
}

// check asks rule 8's question of the challenge: is it this very customer's sign-in?
func (w *Worker) check(t *Task) result {
	if w.CheckClock != nil {
		if err := w.CheckClock(); err != nil {
			return result{outcome: Misconfigured, err: err}
		}
	}
	now := w.Now()
	if !w.Limits.ChallengeIsFresh(t.ChallengeAt, now) {
		return result{outcome: Expiring, err: errors.New("the challenge is near its end")}
	}
	message, err := siwe.Parse(t.Challenge)
	if err != nil {
		return result{outcome: Hostile, err: err}
	}
	err = w.Policy(t.Account).Check(message)
	var refusal *siwe.PolicyError
	ranOut := errors.As(err, &refusal) && refusal.Stale
	switch {
	case errors.Is(err, siwe.ErrPolicy):
		return result{outcome: Misconfigured, err: err}
	case ranOut && (t.fetched.IsZero() || !w.Limits.staleWhenAsked(message.IssuedAt, t.fetched)):
		return result{outcome: Expiring, err: errors.New("the challenge has expired")} // late or replayed: fetch it anew
	case err != nil:
		return result{outcome: Hostile, err: err}
	case !w.Limits.ChallengeIsFresh(message.IssuedAt, now):
		return result{outcome: Expiring, err: errors.New("the challenge is near its end")}
	}
	return result{outcome: CheckPassed, change: func(r *Record) {
		r.Nonce = message.Nonce
		if _, slow := w.Signer.(signer.Custodian); slow {
			r.ExternalTxID = externalTxID(r.Account, r.Challenge) // recorded before the custodian is asked
		}
	}}
}

// sign has the challenge signed. It is checked here once more, so that no path leads to the signer but through the
// policy.
func (w *Worker) sign(ctx context.Context, t *Task) (result, error) {
	custodian, slow := w.Signer.(signer.Custodian)
	if slow && t.ExternalTxID == "" { // the signer was another one when the challenge was checked: begin with a new one
		return result{outcome: Expiring, err: errors.New("no transaction id is recorded for the custodian")}, nil
	}
	checked := w.check(t)
	if checked.outcome == Expiring && slow && t.ExternalTxID != "" {
		return w.giveUp(ctx, t, custodian, checked)
	}
	if checked.outcome != CheckPassed {
		return checked, nil
	}
	w.Hook("sign.before")
	var signature signer.Signature
	var err error
	if slow {
		signature, err = w.custody(ctx, t, custodian)
	} else {
		signature, err = w.Signer.SignMessage(ctx, t.Account.Address, []byte(t.Challenge))
	}
	if err != nil {
		res := signResult(err)
		if res.outcome == SignerFailed && slow {
			return w.pollFailed(t, err), nil
		}
		t.failing = failing{}
		return res, nil
	}
	w.breaker.signerSpoke()
	return w.signed(t, signature), nil
}

// signed takes a signature over: it and the key it will be sent under are stored before it is sent (rule 1).
func (w *Worker) signed(t *Task, signature signer.Signature) result {
	w.stats.signatures.Add(1)
	w.Hook("sign.after")
	text := "0x" + hex.EncodeToString(signature[:])
	digest := sha256.Sum256(client.SubmitBody(t.Account.String(), text, w.Encoding))
	now := w.Now()
	t.recorded = true
	return result{outcome: Signed, change: func(r *Record) {
		generation := 0
		if !r.SubmitKey.IsZero() {
			generation = r.SubmitKey.Generation + 1
		}
		r.Signature = text
		r.SubmitKey = Key{
			Operation: OpSubmit, Generation: generation, Digest: digest,
			ID:        w.Keyring.Submit(r.CustomerID, digest, generation),
			FirstSent: now, LastSent: now, Outcome: KeyOpen,
		}
	}}
}

// submit sends the recorded signature, byte for byte the same under the same key.
func (w *Worker) submit(ctx context.Context, t *Task) (result, error) {
	body := client.SubmitBody(t.Account.String(), t.Signature, w.Encoding)
	if digest := sha256.Sum256(body); digest != t.SubmitKey.Digest {
		return result{outcome: OldForm, err: errors.New(
			"--signature-encoding was changed since the signature was recorded")}, nil
	}
	if !t.recorded {
		now := w.Now()
		next := t.Record
		if t.Action == DoRekey {
			generation := next.SubmitKey.Generation + 1
			next.SubmitKey.Generation, next.SubmitKey.FirstSent = generation, now
			next.SubmitKey.ID = w.Keyring.Submit(next.CustomerID, next.SubmitKey.Digest, generation)
			t.heard = 0
		} else {
			t.resends = true
		}
		next.SubmitKey.LastSent, next.SubmitKey.Outcome = now, KeyOpen
		if err := w.store(ctx, t, next); err != nil {
			return result{}, err
		}
	}
	t.recorded = false
	t.Action = DoSubmit
	w.Hook("submit.before-send")
	err := w.API.SubmitSignature(ctx, t.CustomerID, t.SubmitKey.ID, body)
	w.Hook("submit.after-send")
	if err != nil {
		outcome, after := changeOutcome(err)
		return result{outcome: outcome, after: after, err: err}, nil
	}
	return result{outcome: Accepted, change: func(r *Record) { r.PartnerStatus = string(client.StatusScreening) }}, nil
}
