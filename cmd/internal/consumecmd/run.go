package consumecmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/queue"
	"github.com/purser-onboard/purser/cmd/internal/tracing/rowtrace"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/messageauth"
	"github.com/purser-onboard/purser/metrics"
	"github.com/purser-onboard/purser/night"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/dispatch"
	"github.com/purser-onboard/purser/pipeline/onboard"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/signer"
)

// run is one run of the consumer: what it has opened, in this order, and how it is stopped. It is the broker's
// Membership: what becomes of the partitions concerns the ledger, the rate, and the rows under way.
type run struct {
	id         uuid.UUID
	c          *config.Consumer
	drain      bool
	soft, hard context.Context // end with the first and the second signal
	screen     *console.Screen
	log        *slog.Logger
	report     results.Report
	started    time.Time // as report.StartedAt, by the monotonic clock
	to         reportFile
	page       reportFile // --report-html
	metrics    *metrics.Metrics
	traces     *rowtrace.Tracer // nil: nothing is traced
	textfile   *textfile        // --metrics-textfile; nil: none, or not begun
	recorder   *recorder        // nil: not begun
	begun      bool             // it has the ledger, and is recorded there
	remembered int              // the exit code that the ledger has of it; -1: none
	feed       Feed             // nil: nothing is imported
	imported   Import           // what feed returned

	partner    *partner
	signer     signer.Backend
	ledger     *ledger.Ledger
	queue      *queue.Queue
	consumer   *broker.Consumer
	follower   *following // of the ledger topic
	dispatcher *dispatch.Dispatcher
	close      []closer // what was opened, in the order of opening

	taking     context.Context // ends with a soft stop or a halt: no more messages are taken then
	stopTaking context.CancelCauseFunc

	// Around the dispatcher, from open on.
	share   *share    // this consumer's part of the rate
	events  *events   // publishes results
	dropped *dropping // clears challenges and signatures of settled rows
}

type closer struct {
	name  string
	close func() error
}

// consume is the command `run`. A run begins when it has the ledger; one that ends before that leaves the report of an
// earlier run as it is. The run is closed before its report is written, so that the report covers everything.
func consume(soft, hard context.Context, c *config.Consumer, drain bool, feed Feed, s Streams) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("generate a run id: %w", err)
	}
	screen := console.NewScreen(s.Stderr)
	r := &run{
		id: id, c: c, drain: drain, feed: feed, soft: soft, hard: hard,
		screen: screen, log: console.NewLogger(screen, c.LogFormat, c.LogLevel),
		report: results.Begun(id.String(), time.Now().UTC()), started: pipeline.Monotonic(), remembered: -1,
		to:   openReport("--report", c.Report, id.String(), fileKind{"a report", results.IsReport}, s),
		page: openReport("--report-html", c.ReportHTML, id.String(), fileKind{"a page of a night", night.IsPage}, s),
	}
	r.report.Settings = c.Settings
	r.metrics = metrics.New(metrics.Options{
		Version: config.Version, Signer: schemeOf(c.Signer), Started: r.report.StartedAt, Now: time.Now,
	})
	r.taking, r.stopTaking = context.WithCancelCause(soft)
	tell, err := r.notifier()
	if err != nil {
		return err
	}
	stopTraces, err := r.trace(s)
	if err != nil {
		return err
	}
	defer stopTraces()
	tell.Begin(hard, begunNotice(&r.report))
	var done ended
	cause := r.open(s.Getenv)
	if cause == nil {
		done, cause = r.work()
	}
	cause = c.Explain(interrupted(soft, cause))
	if !r.begun {
		err := r.shut(cause)
		_ = r.judge(done, err) // for its counts; the error has its code
		tell.End(hard, r.endedNotice(done.tally, err))()
		return err
	}
	done.take(r.imported)
	last := context.WithoutCancel(hard)
	if r.recorder != nil {
		measured(&r.report, r.recorder.end(last, time.Now()))
	}
	r.account(last, done, r.drain && cause == nil)
	err = r.judge(done, cause)
	kept := r.remember(done)
	page, drawn := r.drawPage(last, true) // while ledger and queue are open
	if e := r.shut(kept); e != nil {
		err = r.judge(done, errors.Join(cause, e))
	}
	err = r.output(done, page, drawn, err, s)
	r.endMetrics(err, cause)
	tell.End(hard, r.endedNotice(done.tally, err))()
	return err
}

// output writes report, page and summary, and returns the error of a run that has ended with err. The end is recorded
// by then, for the reader of the summary may keep it waiting. If an output cannot be written, the exit code may be
// another one: ledger, report and page are corrected.
func (r *run) output(done ended, page *night.Account, drawn, err error, s Streams) error {
	failed := r.to.end(r.report.JSON())
	if failed != nil {
		r.to = reportFile{} // the correction would fail alike
	}
	if drawn == nil {
		drawn = r.writePage(page, reportFile.end)
	}
	if drawn != nil {
		failed, page = errors.Join(failed, drawn), nil
	}
	if !r.c.Quiet || err != nil || failed != nil {
		out := Summaries(r.c, s)
		r.listWaiting(out, done.waiting)
		summarize(out, &r.report, done.tally)
		r.summarizeImport(out)
	}
	err = console.Output(s.Stdout).Result(console.Worse(err, failed))
	exit := console.Code(err)
	if exit == r.report.Exit && (exit == r.remembered || r.remembered < 0) {
		return err
	}
	r.report.Exit, r.report.Reason = exit, r.screen.Hints(console.Line(err))
	for _, e := range []error{
		r.rememberAgain(done), r.to.correct(r.report.JSON()), r.writePage(page, reportFile.correct),
	} {
		if e != nil {
			r.log.Error("cannot correct the exit code of the run", "exit", exit, "error", e)
		}
	}
	return err
}

// begin records the run in the ledger and in its report, both without an end.
func (r *run) begin() error {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	err = r.ledger.BeginRun(r.soft, ledger.Run{
		ID: r.id, Program: config.Program(), Host: host, Drain: r.drain, StartedAt: r.report.StartedAt,
		Report: string(r.report.JSON()),
	})
	if err != nil {
		return err
	}
	r.begun = true
	r.log.Info("the run started", "run", r.id, "drain", r.drain)
	if err := r.to.begin(r.report.JSON()); err != nil {
		r.to = reportFile{} // the end would fail alike
		return console.Unusable(err)
	}
	if err := r.beginPage(); err != nil {
		return err
	}
	r.to.hold(roomForReport)
	r.page.hold(roomForPage)
	return r.beginTextfile()
}

// The room that is held for the end, in bytes. Few reports and pages are larger.
const (
	roomForReport = 64 << 10
	roomForPage   = 256 << 10
)

// remember records the end of the run in the ledger, also after a hard stop.
func (r *run) remember(done ended) error {
	bad := done.bad
	if done.left != nil {
		bad = append(bad, done.left.rows...)
	}
	err := r.ledger.EndRun(context.WithoutCancel(r.hard), r.id, ledger.RunEnd{
		At: r.report.FinishedAt, Exit: r.report.Exit, Report: string(r.report.JSON()), Bad: bad,
	})
	if err == nil {
		r.remembered = r.report.Exit
	}
	return err
}

// rememberAgain corrects the end of the run in the ledger, which was closed, if it was recorded.
func (r *run) rememberAgain(done ended) (err error) {
	if r.remembered < 0 {
		return nil
	}
	r.ledger, err = openLedger(context.WithoutCancel(r.hard), r.c, r.partner, nil, r.metrics.Committed, r.log)
	if err != nil {
		return err
	}
	defer closing(&err, "ledger", r.ledger.Close)
	return r.remember(done)
}

// opened notes that something was opened, to be closed when the run ends.
func (r *run) opened(name string, end func() error) { r.close = append(r.close, closer{name, end}) }

// shut closes what was opened, the last first, and joins what goes wrong to err.
func (r *run) shut(err error) error {
	r.stopTaking(nil)
	for i := len(r.close) - 1; i >= 0; i-- {
		closing(&err, r.close[i].name, r.close[i].close)
	}
	return err
}

// open opens all that a run needs and checks that it fits together. Nothing is sent for a row yet.
func (r *run) open(getenv func(string) string) (err error) {
	if err := r.c.CheckRun(getenv); err != nil {
		return err
	}
	outputs := []reportFile{r.to, r.page, {flag: "--metrics-textfile", path: r.c.MetricsTextfile}}
	for i, f := range outputs {
		if other := slices.IndexFunc(outputs[:i], f.same); other >= 0 {
			return &config.Error{Setting: f.flag, Problem: "names the same file as " + outputs[other].flag}
		}
	}
	if err := r.serveMetrics(); err != nil {
		return err
	}
	keys, err := r.c.MessageKeys()
	if err != nil {
		return err
	}
	if r.partner, err = openPartner(r.c, getenv, r.log, r.metrics, r.traced); err != nil {
		return err
	}
	r.opened("connections", func() error { r.partner.client.Close(); return nil })
	warnOfEmbedded(r.c, r.partner.base.Hostname(), r.log)
	if r.signer, err = r.openSigner(getenv); err != nil {
		return err
	}
	r.opened("signer", r.signer.Close)
	hook := crashHook(getenv)
	if r.ledger, err = openLedger(r.soft, r.c, r.partner, hook, r.metrics.Committed, r.log); err != nil {
		return err
	}
	r.opened("ledger", r.ledger.Close)
	context.AfterFunc(r.hard, r.ledger.Abandon)
	for _, f := range []reportFile{r.to, r.page} { // now the ledger's directory exists
		if f.path != "" && f.stream == nil && ledger.OwnFile(r.c.Ledger, f.path) {
			return &config.Error{Setting: f.flag, Value: f.path, Problem: "is a file of the ledger and would overwrite it"}
		}
		if err := f.replaces(); err != nil {
			return err
		}
	}
	if err := r.textfileReplaces(); err != nil {
		return err
	}
	if err := r.begin(); err != nil {
		return err
	}
	if err := r.takeImport(); err != nil {
		return err
	}
	if r.queue, err = queue.Serve(r.soft, r.c.Queue, r.log, withLedgers(r.c)...); err != nil {
		return err
	}
	r.opened("broker", r.queue.Close)
	if err := r.queue.CheckTopics(r.soft, topics(r.c)...); err != nil {
		return err
	}
	if r.consumer, err = r.queue.Consumer(r.c, r.drain, r); err != nil {
		return console.Coded(console.ExitUsage, err)
	}
	r.follower = &following{ledger: r.ledger, c: r.c, log: r.log}
	home, err := r.follower.follow(r.soft, r.queue, r.consumer)
	if err != nil {
		return err
	}
	worker, err := r.newWorker(hook)
	if err != nil {
		return err
	}
	if r.dispatcher, err = r.newDispatcher(worker, home, keys); err != nil {
		return err
	}
	r.watch()
	shown := &progressRecorder{
		progress: progress{taking: r.taking, now: r.metrics.Now}, report: r.report, log: r.log,
		put: func(ctx context.Context, report string) error { return r.ledger.PutReport(ctx, r.id, report) },
	}
	r.recorder = &recorder{
		run: r.id, snapshot: r.metrics.Snapshot, put: r.ledger.PutMinute, progress: shown.record, log: r.log,
	}
	r.recorder.start(context.WithoutCancel(r.hard))
	return nil
}

// openSigner opens the signer. If that takes long, it logs that it is waiting.
func (r *run) openSigner(getenv func(string) string) (signer.Backend, error) {
	const patience = 10 * time.Second
	slow := time.AfterFunc(patience, func() {
		r.log.Warn("still waiting for the signer's response", "for", patience, "setting", "--signer")
	})
	defer slow.Stop()
	return openSigner(r.soft, r.c, r.partner.base, getenv, func(warning string) {
		r.log.Warn(warning, "setting", "--signer")
	})
}

func (r *run) newWorker(hook func(string)) (*onboard.Worker, error) {
	aliases, err := earlierHosts(r.soft, r.ledger, r.c)
	if err != nil {
		return nil, err
	}
	o := onboard.Options{
		API: r.partner.client, Ledger: r.traces.Ledger(r.ledger),
		Signer:  r.traces.Signer(r.signer, signer.Scheme(r.c.Signer)),
		Keyring: pipeline.Keyring{APIHost: r.partner.base.Host, APIKeyID: r.c.APIKey}, Aliases: aliases,
		Limits: limits(r.c), Encoding: encoding(r.c), Policy: r.partner.policy(r.c),
		CheckClock: r.partner.checkClock,
		ListPause:  r.c.ListPause, Now: time.Now, Hook: hook,
		HaltAfter: r.c.HaltAfter, Probes: true,
		SignerCheck: func(ctx context.Context) error {
			_, err := r.signer.Check(ctx)
			return err
		},
		OnSigner: r.metrics.Signed, OnStage: r.metrics.Moved,
		OnTrouble:     func(t onboard.Trouble) { warnOfTrouble(t, r.log) },
		OnPollTrouble: func(p onboard.PollTrouble) { warnOfPolls(p, r.c.SignerWait, r.log) },
		OnPartialList: func(cause error) {
			r.log.Warn("the partner's customer list is incomplete; unlisted customers are not treated as absent", "cause", cause)
		},
		OnStale: func(row pipeline.Row, id string, cause error) {
			r.log.Warn("cannot cancel an obsolete signing request: a person may still be asked to approve it",
				"row", row.Where(), "transaction", id, "error", cause)
		},
		OnList: func(n int, took time.Duration) {
			r.log.Debug("read the partner's customer list", "customers", n, "took", took.Round(time.Millisecond))
		},
	}
	if !r.drain { // in a drain, a row whose polls fail is left to the next run like one that waits
		o.PollLimit = r.c.SignerWait
	}
	return onboard.New(o)
}

func (r *run) newDispatcher(
	worker *onboard.Worker, home func(pipeline.Account) int, keys *messageauth.Keys,
) (*dispatch.Dispatcher, error) {
	o := dispatch.Options{
		Worker: worker, DeadLetters: r.queue.DeadLetters(), DeadLetterTopic: r.c.DeadLetterTopic,
		Concurrency: r.c.Concurrency, SignerConcurrency: r.c.SignerConcurrency, Defer: r.consumer.Defer, Logger: r.log,
		Home: home, Known: r.ledger.Has, Authenticate: authenticate(keys, r.log),
		OnHalt:     func(cause error) { r.stopTaking(cause) },
		Probe:      r.partner.probe,
		OutageWait: r.c.OutageWait,
		OnOutage: func(cause error) {
			r.metrics.Outage(cause != nil)
			warnOfOutage(cause, r.c.OutageWait, r.log)
		},
		OnSettled: func(pipeline.Record) { r.events.wake() },
		Trace:     r.traces.Rows(),
	}
	if r.drain {
		o.SignerWait = r.c.SignerWait
	}
	if r.c.SignerRate > 0 {
		limiter := client.NewRateLimiter(r.c.SignerRate)
		context.AfterFunc(r.taking, limiter.Stop)
		o.SignerPace = limiter.Wait
	}
	return dispatch.New(o)
}

// authenticate returns what verifies messages. Without keys every message is taken, and the first one that is signed is
// reported: the setting may have been forgotten here.
func authenticate(keys *messageauth.Keys, log *slog.Logger) func(pipeline.Message) error {
	if keys != nil {
		return keys.Verify
	}
	var once sync.Once
	return func(m pipeline.Message) error {
		if m.Header(messageauth.HeaderKeyID) != "" {
			once.Do(func() {
				log.Warn("messages are signed but not verified: --message-key-file is not set", "setting", "--message-key-file")
			})
		}
		return nil
	}
}

// Assigned implements broker.Membership.
func (r *run) Assigned(partitions []int, of int) {
	r.follower.rows = of
	r.dispatcher.Assigned()
	r.share.assigned(partitions, of)
}

// Restore implements broker.Membership.
func (r *run) Restore(ctx context.Context, partitions []int) error {
	restored, err := r.follower.restore(ctx, partitions)
	if restored {
		r.events.wake()
		r.dropped.wake()
	}
	return err
}

// Lease implements broker.Membership: nothing is sent for rows that may be another consumer's by now.
func (r *run) Lease(until time.Time) { r.partner.limiter.Until(until) }

// Stalled implements broker.Membership.
func (r *run) Stalled(s broker.Stall) { warnOfStall(s, r.dispatcher, r.log) }

// ended is the input for a run's report.
type ended struct {
	tally   pipeline.Tally
	stats   client.Stats
	waiting []pipeline.Record // rows left to the custodian
	bad     []int64           // rows that ended badly, by their ids in the ledger
	imports map[string]pipeline.ImportTally
	left    *leftover // of earlier runs; nil: nothing
}

// work takes messages until the queue is drained, a signal comes, or the run halts. The queue calls share,
// share calls events, and events calls the dispatcher. First the queue's Run ends, which has then released and
// committed everything; then the workers stop; then what is left of the results is published.
func (r *run) work() (ended, error) {
	r.dropped = dropSigned(r.taking, r.ledger, r.log)
	from := results.Origin{
		Source: results.Source(r.partner.base.Host, r.partner.base.EscapedPath()), Run: r.id.String(),
	}
	r.events = publishEvents(r.taking, r.hard, r.c, from, r.queue, r.ledger, r.dispatcher, r.log)
	// A worker that waits for its turn in the rate has sent nothing: the stop does not wait for it.
	stopLimiter := context.AfterFunc(r.taking, r.partner.limiter.Stop)
	defer stopLimiter()
	r.dispatcher.Start(r.hard)
	shown := &progress{taking: r.taking, now: r.metrics.Now}
	display := console.StartProgress(r.screen, r.c.Progress, func(at time.Time) []console.Field {
		return fieldsOf(shown.measure(at))
	})
	r.share = newShare(r.events, r.partner.limiter, r.c.Rate, r.log)
	err := r.consumer.Run(r.taking, r.share)
	display.Stop()
	r.dispatcher.Close()
	if err != nil {
		r.stopTaking(err) // what ended the run does not let its results be published either, for long
	}
	if e := r.dropped.end(); err == nil {
		err = e
	}
	if e := r.events.end(r.hard); err == nil {
		err = e
	}
	done := ended{
		tally: r.dispatcher.Tally(), stats: r.partner.client.Stats(), waiting: r.dispatcher.Waiting(),
		bad: r.dispatcher.Bad(), imports: r.dispatcher.Imports(),
	}
	if cause := context.Cause(r.taking); r.taking.Err() != nil &&
		(err == nil || errors.As(cause, new(*onboard.HaltError))) {
		err = cause // what halted the run comes before what failed because of it
	}
	warnOfSkew(r.log, done.stats)
	if err == nil {
		err = unanswered(r.hard, r.signer, done.waiting)
	}
	if err == nil && r.drain {
		err = r.stranded(done.tally)
	}
	if err == nil && r.drain {
		done.left, err = r.leftovers(r.hard, done.tally, done.bad)
	}
	return done, classify(r.c, err)
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

// topics returns the topics that a run needs.
func topics(c *config.Consumer) []string {
	names := []string{c.Topic, c.DeadLetterTopic}
	if c.ResultsTopic != "" {
		names = append(names, c.ResultsTopic)
	}
	return names
}

// withLedgers are topics and the ledger topic, if there is one.
func withLedgers(c *config.Consumer) []string {
	names := topics(c)
	if c.LedgerTopic != "" {
		names = append(names, c.LedgerTopic)
	}
	return names
}

func closing(err *error, what string, end func() error) {
	if e := end(); e != nil {
		*err = errors.Join(*err, fmt.Errorf("close %s: %w", what, e))
	}
}

func openLedger(
	ctx context.Context, c *config.Consumer, p *partner, hook func(string), watch func(int, time.Duration),
	log *slog.Logger,
) (*ledger.Ledger, error) {
	book, err := ledger.Open(ctx, ledger.Options{
		Path: c.Ledger, Environment: environment(c, p.base), CanonicalHost: canonicalHost(p.base), Now: time.Now,
		Program: config.Program(), Changelog: c.LedgerTopic, Logger: log, Hook: hook,
		OnCommit: watch, DropSigned: c.Retain == "none",
	})
	return book, console.Unusable(coded(err))
}

// limits are the decision table's settings.
func limits(c *config.Consumer) onboard.Limits {
	l := onboard.DefaultLimits()
	l.KeyTTL, l.ChallengeTTL = c.IdempotencyTTL, c.ChallengeTTL
	l.MaxAttempts, l.RetryMin, l.RetryMax = c.MaxAttempts, c.RetryMin, max(c.RetryMax, time.Millisecond)
	return l
}
