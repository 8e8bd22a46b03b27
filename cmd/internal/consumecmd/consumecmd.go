// Package consumecmd is the consumer's wiring: broker, ledger, partner API and signer around the pipeline's Runner. The
// command consumer and `sandbox run` share it.
package consumecmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/outfile"
	"github.com/purser-onboard/purser/cmd/internal/queue"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/dispatch"
	"github.com/purser-onboard/purser/pipeline/onboard"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/signer"
)

// Streams are where a command reads and writes.
type Streams struct {
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	// IgnoreEnvironment keeps the process's variables from being settings.
	IgnoreEnvironment bool
}

// Stopping is what the command says at the first signal.
func Stopping() console.Stopping {
	return console.Stopping{
		Command: "consumer", Waits: "taking no new rows, waiting for the requests in flight (each --request-timeout at most)",
	}
}

// Main parses the arguments and runs the command they name. gentle asks to take nothing new and finish what is in
// flight, hard to cut that short. The error carries the exit code (console.Exit).
func Main(gentle, hard context.Context, args []string, s Streams) error {
	s.Stdout = console.Output(s.Stdout)
	c, command, err := config.ParseConsumer(args, config.Streams{
		Stdout: s.Stdout, Stderr: s.Stderr, IgnoreEnvironment: s.IgnoreEnvironment,
	})
	if err != nil {
		return err
	}
	switch command {
	case "run":
		return run(gentle, hard, &c.Consumer, c.Run.Drain, s)
	case "check":
		return check(gentle, &c.Consumer, s)
	case "status":
		return status(gentle, &c.Consumer, c.Status.Fleet, s)
	case "failures":
		return failures(gentle, &c.Consumer, c.Failures.Fleet, s)
	case "reconcile":
		return reconcile(gentle, &c.Consumer, s)
	case "redrive":
		return queue.Coded(redrive(gentle, c, s))
	case "register-key":
		return registerKey(gentle, &c.Consumer, c.RegisterKey.Delete, s)
	case "rotate-secret":
		return rotateSecret(hard, &c.Consumer, c.RotateSecret.NewSecretFile, c.RotateSecret.ReplaceFile, s)
	case "rebind":
		return rebind(gentle, &c.Consumer, c.Rebind.From, s)
	}
	return fmt.Errorf("command %q is not known", command) // the grammar admits no other
}

// run is the consumer proper. Order of shutdown: the queue's Run ends and has released and committed everything, the
// workers stop, then broker, ledger, signer and connections are closed in the reverse order of their opening.
func run(gentle, hard context.Context, c *config.Consumer, drain bool, s Streams) (err error) {
	report := results.Report{StartedAt: time.Now().UTC()}
	var tally pipeline.Tally
	var stats client.Stats
	var waiting []pipeline.Record // rows left to the custodian
	defer func() {
		// What was cut short says no more than that; what failed besides is told.
		if joined := errors.As(err, new(interface{ Unwrap() []error })); gentle.Err() != nil && !joined &&
			errors.Is(err, context.Canceled) {
			err = console.Coded(console.ExitUnfinished, context.Cause(gentle))
		}
		err = conclude(c, s, &report, tally, stats, waiting, err)
	}()
	screen := console.NewScreen(s.Stderr)
	log := console.NewLogger(screen, c.LogFormat, c.LogLevel)
	keys, err := c.MessageKeys()
	if err != nil {
		return err
	}
	p, err := openPartner(c, s.Getenv, log)
	if err != nil {
		return err
	}
	defer p.client.Close()
	backend, err := openSigner(gentle, c, p.base, s.Getenv, func(text string) {
		log.Warn(text, "setting", "--signer")
	})
	if err != nil {
		return err
	}
	defer closing(&err, "signer", backend.Close)
	hook := crashHook(s.Getenv)
	book, err := openLedger(gentle, c, p, hook, log)
	if err != nil {
		return err
	}
	defer closing(&err, "ledger", book.Close)
	q, err := queue.Open(gentle, c.Queue, log)
	if err != nil {
		return err
	}
	defer closing(&err, "broker", q.Close)
	if err := q.CheckTopics(gentle, topics(c)...); err != nil {
		return err
	}
	var part *share
	var runner *dispatch.Dispatcher
	var told *events
	var dropped *dropping
	ledgers := &following{book: book, c: c, log: log}
	consumer, err := q.Consumer(c, drain, queue.Told{
		Assigned: func(partitions []int, of int) {
			ledgers.rows = of
			runner.Assigned()
			part.assigned(partitions, of)
		},
		// Nobody sends for rows that may be another consumer's by now.
		Lease: p.pace.Until,
		Restore: ledgers.restore(func() {
			told.wake()
			dropped.wake()
		}),
		Stall: func(stall broker.Stall) { tellStall(stall, runner, log) },
	})
	if err != nil {
		return console.Coded(console.ExitUsage, err)
	}
	home, err := ledgers.follow(gentle, q, consumer)
	if err != nil {
		return err
	}

	aliases, err := earlierHosts(gentle, book, c)
	if err != nil {
		return err
	}
	taking, stopTaking := context.WithCancelCause(gentle)
	defer stopTaking(nil)
	steps := onboard.Options{
		API: p.client, Signer: backend, Ledger: book,
		Keyring: pipeline.Keyring{APIHost: p.base.Host, APIKeyID: c.APIKey}, Aliases: aliases,
		Limits: limits(c), Encoding: encoding(c), Policy: p.policy(c),
		CheckClock: func() error { return checkSkew(p.client.Stats().ClockSkew) },
		ListPause:  c.ListPause, Now: time.Now, Hook: hook,
		OnTrouble: func(t onboard.Trouble) { tellTrouble(t, log) },
		HaltAfter: c.HaltAfter, Probes: true,
		SignerCheck: func(ctx context.Context) error {
			_, err := backend.Check(ctx)
			return err
		},
		OnPartialList: func(cause error) {
			log.Warn("the partner's customer list is incomplete; unlisted customers are not treated as absent", "cause", cause)
		},
		OnStale: func(r pipeline.Row, id string, cause error) {
			log.Warn("a request that is of no use any more could not be cancelled: somebody may still be asked to approve it",
				"row", r.Where(), "transaction", id, "error", cause)
		},
		OnPollTrouble: func(p onboard.PollTrouble) { tellPolls(p, c.SignerWait, log) },
		OnList: func(n int, took time.Duration) {
			log.Debug("read the partner's list of customers", "customers", n, "took", took.Round(time.Millisecond))
		},
	}
	loop := dispatch.Options{
		DeadLetters: q.DeadLetters(), DeadLetterTopic: c.DeadLetterTopic,
		Concurrency: c.Concurrency, SignerConcurrency: c.SignerConcurrency, Defer: consumer.Defer, Logger: log,
		Home:       home,
		OnHalt:     func(cause error) { stopTaking(cause) },
		Probe:      p.probe,
		OutageWait: c.OutageWait,
		OnOutage:   func(cause error) { tellOutage(cause, c.OutageWait, log) },
	}
	if drain {
		loop.SignerWait = c.SignerWait // a row whose polls fail is left to the next run, too
	} else {
		steps.PollLimit = c.SignerWait
	}
	if keys != nil {
		loop.Authenticate = keys.Verify
	}
	if c.SignerRate > 0 {
		pace := client.NewRateLimiter(c.SignerRate)
		defer context.AfterFunc(taking, pace.Stop)()
		loop.SignerPace = pace.Wait
	}
	if loop.Worker, err = onboard.New(steps); err != nil {
		return err
	}
	if runner, err = dispatch.New(loop); err != nil {
		return err
	}
	dropped = dropSigned(taking, book, log)
	told = announce(taking, hard, c, q, book, runner, log)
	// A worker that waits for its turn in the rate has sent nothing: it need not be waited for.
	stopPace := context.AfterFunc(taking, p.pace.Stop)
	defer stopPace()
	runner.Start(hard)
	progress := console.StartProgress(screen, c.Progress, func() string { return progressLine(runner.Tally()) })
	part = newShare(told, p.pace, c.Rate, log)
	err = consumer.Run(taking, part)
	progress.Stop()
	runner.Close()
	if err != nil {
		stopTaking(err) // what ended the run does not let its results be published either, for long
	}
	if e := dropped.end(); err == nil {
		err = e
	}
	if e := told.end(hard); err == nil {
		err = e
	}
	tally, stats = runner.Tally(), p.client.Stats()
	waiting = runner.Waiting()
	if cause := context.Cause(taking); taking.Err() != nil && (err == nil || errors.As(cause, new(*onboard.HaltError))) {
		err = cause // what halted the run comes before what failed because of it
	}
	warnOfSkew(log, stats)
	if err == nil {
		err = unanswered(hard, backend, waiting)
	}
	if err == nil && drain && c.Embedded() {
		err = stranded(hard, book, tally)
	}
	return classify(c, err)
}

// unanswered returns an error if rows wait for a custodian whose polls fail and who is out of reach: that is an outage,
// and not for a person to decide.
func unanswered(ctx context.Context, backend signer.Backend, waiting []pipeline.Record) error {
	failing := slices.IndexFunc(waiting, func(r pipeline.Record) bool { return r.Class == string(onboard.SignerFailed) })
	if failing < 0 {
		return nil
	}
	if _, err := backend.Check(ctx); err != nil {
		return console.Coded(console.ExitUnfinished, fmt.Errorf("%d rows are waiting for the custodian, whose polls fail; "+
			"the signer's check: %w; the rows stay in the queue: run again when the custodian is back", len(waiting), err))
	}
	return nil
}

// stranded returns an error if the ledger holds unsettled rows after all messages of the embedded broker have been
// taken. The offsets of their messages are committed, so that no later run would be given them: the ledger has lost
// that they were settled. Rows that wait for the custodian have their messages. A ledger behind a Kafka cluster may
// hold rows that another consumer settles, and is not looked at.
func stranded(ctx context.Context, book *ledger.Ledger, t pipeline.Tally) error {
	n, err := book.Unsettled(ctx)
	if n -= t.Waiting; err != nil || n <= 0 {
		return err
	}
	return fmt.Errorf("the queue is empty, but %d rows of ledger %s are not settled, and no message will bring them "+
		"(was the ledger damaged or restored?): import their export again, then run again; `consumer failures` lists them",
		n, book.Path())
}

// earlierHosts derives the keys of this API key as they were derived while the ledger was bound to another form of the
// API's host.
func earlierHosts(ctx context.Context, book *ledger.Ledger, c *config.Consumer) ([]pipeline.Keyring, error) {
	bindings, err := book.Bindings(ctx)
	if err != nil {
		return nil, err
	}
	var list []pipeline.Keyring
	for _, b := range bindings {
		if b.APIKeyID == c.APIKey {
			list = append(list, pipeline.Keyring{APIHost: b.APIHost, APIKeyID: b.APIKeyID})
		}
	}
	return list, nil
}

// tellTrouble says that many answers are unusable, or that the partner throttles; and when that is over. A failure that
// stands alone is in the log at level debug, by the client.
func tellTrouble(t onboard.Trouble, log *slog.Logger) {
	switch {
	case t.Throttled && t.Over:
		log.Warn("the partner has stopped throttling")
	case t.Throttled:
		log.Warn("the partner throttles: all workers wait, and the rate is lowered", "answer", t.Cause)
	case t.Over:
		log.Warn("the partner's answers are usable again", "unusable", t.Unusable, "of", t.Of)
	default:
		log.Warn("many of the partner's answers are unusable; the requests are repeated under the same keys",
			"unusable", t.Unusable, "of", t.Of, "latest", t.Cause)
	}
}

// tellPolls says that the custodian does not say how things stand.
func tellPolls(p onboard.PollTrouble, limit time.Duration, log *slog.Logger) {
	log.Warn("no usable response from the custodian; its rows wait", "row", p.Row.Where(), "transaction", p.ExternalTxID,
		"failed", p.Failed, "failed_of_all_rows", p.OfAllRows, "waits_at_most", limit, "setting", "--signer-wait",
		"error", p.Cause)
}

// tellOutage says that the partner is away, or back.
func tellOutage(cause error, wait time.Duration, log *slog.Logger) {
	if cause == nil {
		log.Warn("partner available again; the run goes on")
		return
	}
	log.Warn("partner unavailable; probing only", "probe_every", dispatch.ProbeInterval, "halts_after", wait,
		"setting", "--outage-wait", "error", cause)
}

// tellStall says of a partition that makes no progress which row is first in it, and what that one waits for.
func tellStall(s broker.Stall, runner *dispatch.Dispatcher, log *slog.Logger) {
	what := []any{
		"partition", s.Partition, "offset", s.Offset, "for", s.For.Round(time.Second), "unsettled", s.Outstanding,
		"nothing_more_is_read", s.Full,
	}
	if row, doing, ok := runner.Holding(s.Partition, s.Offset); ok {
		what = append(what, "first_row", row.Where(), "account", row.Account.String(), "stage", row.Stage, "doing", doing,
			"because", row.Reason)
	}
	log.Warn("a partition makes no progress", what...)
}

// topics are those that a run needs.
func topics(c *config.Consumer) []string {
	names := []string{c.Topic, c.DeadLetterTopic}
	if c.ResultsTopic != "" {
		names = append(names, c.ResultsTopic)
	}
	return names
}

// classify gives what ended the run its exit code.
func classify(c *config.Consumer, err error) error {
	var halt *onboard.HaltError
	switch {
	case err == nil, errors.As(err, new(*console.CodedError)):
		return err
	case errors.As(err, &halt) && halt.SetUp(), errors.As(err, new(*ledger.SnapshotError)):
		return console.Coded(console.ExitUsage, err)
	case broker.SessionRefused(err):
		return console.Coded(console.ExitUsage, &config.Error{
			Setting: "--kafka-session-timeout", Value: c.SessionTimeout.String(), Problem: "the brokers do not allow it: " +
				"want group.min.session.timeout.ms (6s by default) to group.max.session.timeout.ms (30m)",
		})
	}
	if errors.As(err, &halt) { // the partner's or the signer's
		return console.Coded(console.ExitUnfinished, err)
	}
	return queue.Coded(err)
}

// partnerExit is the exit code of a command that the partner kept from its end: 2 where a setting has to be changed.
func partnerExit(err error) int {
	var failure *client.Error
	if errors.As(err, &failure) && !failure.Passing() {
		return console.ExitUsage
	}
	return console.ExitUnfinished
}

// listWaiting names the rows that were left to the custodian.
func listWaiting(w io.Writer, rows []pipeline.Record) {
	const most = 50
	for i, r := range rows {
		if i == most {
			fmt.Fprintf(w, "waiting   and %d more: `consumer failures` lists them\n", len(rows)-most)
			return
		}
		because := ""
		if r.Class == string(onboard.SignerFailed) {
			because = "; its last poll failed: " + r.Reason
		}
		fmt.Fprintf(w, "waiting   %s %s: for the custodian's transaction %s%s\n",
			r.Where(), r.Account, r.ExternalTxID, because)
	}
}

func closing(err *error, what string, end func() error) {
	if e := end(); e != nil {
		*err = errors.Join(*err, fmt.Errorf("close %s: %w", what, e))
	}
}

func openLedger(
	ctx context.Context, c *config.Consumer, p *partner, hook func(string), log *slog.Logger,
) (*ledger.Ledger, error) {
	book, err := ledger.Open(ctx, ledger.Options{
		Path: c.Ledger, Environment: environment(c, p.base), CanonicalHost: canonicalHost(p.base), Now: time.Now,
		Program: "purser " + config.Version, Changelog: c.LedgerTopic, Logger: log, Hook: hook,
		DropSigned: c.Retain == "none",
	})
	var environment *ledger.EnvironmentError
	if errors.As(err, &environment) {
		return nil, console.Coded(console.ExitUsage, err)
	}
	return book, err
}

func progressLine(t pipeline.Tally) string {
	bad := t.Conflict + t.Refused + t.Rejected + t.Failed + t.DeadLettered
	return fmt.Sprintf("%d taken: %d onboarded, %d skipped, %d bad, %d under way",
		t.Received, t.Onboarded, t.Skipped, bad, t.Open)
}

func warnOfSkew(log *slog.Logger, s client.Stats) {
	if skew := s.ClockSkew; skew.Abs() > 5*time.Second {
		log.Warn("the clock here differs from the partner's; request signatures carry the time, so set it right",
			"ahead", skew.Round(time.Second))
	}
}

// conclude settles the exit code, writes the report and prints the summary.
func conclude(
	c *config.Consumer, s Streams, report *results.Report, t pipeline.Tally, stats client.Stats,
	waiting []pipeline.Record, err error,
) error {
	report.FinishedAt = time.Now().UTC()
	report.Rows = results.RowsOf(t)
	report.Requests = results.ReportRequests{
		Sent: stats.Sent, Throttled: stats.Throttled, Retried: stats.Retried + t.Retried,
	}
	report.Signatures = t.Signatures
	if err == nil && t.Bad() {
		err = console.Coded(console.ExitRowsBad, errors.New(whoIsBad(t)))
		if t.Waiting > 0 {
			report.Reason = fmt.Sprintf("%d rows are waiting for the custodian", t.Waiting)
		}
	} else if err != nil {
		report.Reason = console.Line(err)
		if errors.Is(err, console.ErrInterrupted) {
			err = console.Coded(console.ExitUnfinished, fmt.Errorf("%w: %s", err, whatIsLeft(t)))
		}
	}
	report.Exit = console.Code(err)
	if c.Report != "" { // before standard output, which may wait for its reader
		if e := outfile.Write(c.Report, report.JSON()); e != nil {
			err = console.Coded(max(report.Exit, console.ExitUnfinished), errors.Join(err, fmt.Errorf("report: %w", e)))
		}
	}
	if !c.Quiet || err != nil {
		listWaiting(s.Stdout, waiting)
		summarize(s.Stdout, report, t)
	}
	return err
}

// whoIsBad says where to look for what did not end well.
func whoIsBad(t pipeline.Tally) string {
	const letters = "`consumer redrive --dry-run` lists the messages that cannot be read as rows"
	rows := t
	rows.DeadLettered = 0
	switch {
	case !rows.Bad():
		return letters
	case t.DeadLettered > 0:
		return "some rows did not end well: `consumer failures` lists them; " + letters
	}
	return "some rows did not end well: `consumer failures` lists them"
}

// whatIsLeft tells whoever interrupted the run what became of its rows.
func whatIsLeft(t pipeline.Tally) string {
	n := t.Open + t.Dropped
	if n == 0 {
		return "all rows that were taken are settled; the next run goes on with the queue"
	}
	return fmt.Sprintf("%d rows that were taken are not settled; they stay in the queue, "+
		"and the next run goes on with them", n)
}

func summarize(w io.Writer, r *results.Report, t pipeline.Tally) {
	took := r.FinishedAt.Sub(r.StartedAt).Round(time.Millisecond)
	fmt.Fprintf(w, "rows      %d received: %d onboarded", r.Rows.Received, r.Rows.Onboarded)
	if n := r.Rows.AlreadyOnboarded; n > 0 {
		fmt.Fprintf(w, " (%d of them were already)", n)
	}
	for _, part := range []struct {
		n    int64
		what string
	}{
		{r.Rows.Skipped, "skipped"}, {r.Rows.Conflict, "in conflict"}, {r.Rows.Refused, "refused"},
		{r.Rows.Rejected, "rejected by the partner"}, {r.Rows.Failed, "failed"}, {r.Rows.DeadLettered, "dead-lettered"},
		{t.Waiting, "waiting for the custodian"}, {t.Open + t.Dropped, "not settled"},
	} {
		if part.n > 0 {
			fmt.Fprintf(w, ", %d %s", part.n, part.what)
		}
	}
	fmt.Fprintf(w, "\nrequests  %d sent, %d throttled, %d retried; %d signatures\ntime      %s\n",
		r.Requests.Sent, r.Requests.Throttled, r.Requests.Retried, r.Signatures, took)
}

// limits are the decision table's settings.
func limits(c *config.Consumer) onboard.Limits {
	l := onboard.DefaultLimits()
	l.KeyTTL, l.ChallengeTTL = c.IdempotencyTTL, c.ChallengeTTL
	l.MaxAttempts, l.RetryMin, l.RetryMax = c.MaxAttempts, c.RetryMin, max(c.RetryMax, time.Millisecond)
	return l
}
