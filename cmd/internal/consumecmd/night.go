package consumecmd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/importlog"
	"github.com/purser-onboard/purser/cmd/internal/queue"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/night"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/printable"
)

// reportNight prints the account of a night: of one run, or of the latest ones.
func reportNight(ctx context.Context, c *config.ConsumerCommands, s Streams) (err error) {
	book, err := openReader(ctx, &c.Consumer)
	if err != nil {
		return err
	}
	defer closing(&err, "ledger", book.Close)
	var chosen []ledger.Run
	if c.Account.Run != "" && c.Account.Run != "last" {
		run, err := findRun(ctx, book, c.Account.Run)
		if err != nil {
			return err
		}
		chosen = []ledger.Run{run}
	} else if chosen, err = book.Runs(ctx, c.Account.Last); err != nil {
		return err
	}
	d := drawer{c: &c.Consumer, book: book, unmask: c.Account.Unmask, now: time.Now(),
		log: console.NewLogger(s.Stderr, c.LogFormat, c.LogLevel), screen: console.NewScreen(s.Stderr)}
	a, err := d.draw(ctx, chosen)
	if err != nil {
		return err
	}
	d.readQueue(ctx, a)
	a.Conclude(d.commands(a))
	var out []byte
	switch c.Account.Format {
	case "html":
		out, err = a.HTML()
	case "json":
		out, err = a.JSON()
	default:
		out = a.Text()
	}
	if err != nil {
		return err
	}
	_, err = s.Stdout.Write(out)
	return err
}

// beginPage writes the page at the start of a run.
func (r *run) beginPage() error {
	page, err := r.drawPage(r.soft, false)
	if err == nil {
		err = r.writePage(page, reportFile.begin)
	}
	if err != nil {
		r.page = reportFile{} // the end would fail alike
		return console.Unusable(err)
	}
	return nil
}

// drawPage draws up the account of this run for its page, if there is to be one. Before the run has ended, it is that
// of a run without an end.
func (r *run) drawPage(ctx context.Context, ended bool) (*night.Account, error) {
	if r.page.path == "" {
		return nil, nil
	}
	d := drawer{c: r.c, book: r.ledger, now: time.Now(), log: r.log, screen: r.screen, brief: !ended}
	all, err := r.ledger.Runs(ctx, night.MaxHistory)
	if err != nil {
		return nil, err
	}
	a, err := d.draw(ctx, slices.DeleteFunc(all, func(other ledger.Run) bool { return other.ID != r.id }))
	if err != nil {
		return nil, err
	}
	switch {
	case !ended:
	case r.queue == nil:
		a.Left.QueueProblem = "the run ended before it was opened"
	default:
		ctx, cancel := context.WithTimeout(ctx, queueWait)
		defer cancel()
		if err := d.queued(ctx, r.queue, a); err != nil {
			a.Left.QueueProblem = console.Line(err)
		}
	}
	return a, nil
}

// writePage writes the page of an account, if there is one, with the exit code and the reason that the run's report has
// by now.
func (r *run) writePage(a *night.Account, write func(reportFile, []byte) error) error {
	if a == nil {
		return nil
	}
	for _, list := range [][]night.Run{a.Runs, a.History} {
		for i := range list {
			report := &list[i].Report
			if report.Run != r.report.Run {
				continue
			}
			report.Exit, report.Reason = r.report.Exit, maskReason(r.report)
			if r.report.State == results.Ended { // a full disk may have kept the ledger from it
				report.State, report.FinishedAt, report.Rows = r.report.State, r.report.FinishedAt, r.report.Rows
				report.Alive, report.Progress = nil, nil
			}
		}
	}
	d := drawer{c: r.c, screen: r.screen}
	a.Conclude(d.commands(a))
	page, err := a.HTML()
	if err != nil {
		return err
	}
	return write(r.page, page)
}

// nightBook is what an account is drawn up from.
type nightBook interface {
	Path() string
	Environment(ctx context.Context) (ledger.Environment, error)
	Runs(ctx context.Context, n int) ([]ledger.Run, error)
	Minutes(ctx context.Context, run uuid.UUID) ([]ledger.Minute, error)
	StagesByImport(ctx context.Context, ids []string) (map[string]map[pipeline.Stage]int64, error)
	Counts(ctx context.Context) ([]ledger.Count, error)
	BadEnds(ctx context.Context, from, to time.Time, n int) ([]ledger.BadEnd, error)
	AtCustodian(ctx context.Context, n int) (int64, []pipeline.Record, error)
	UnpublishedCount(ctx context.Context) (int64, error)
}

// drawer draws up the account of a night.
type drawer struct {
	c      *config.Consumer
	book   nightBook
	unmask bool
	brief  bool // the rows are left out, because they are not what they will be
	now    time.Time
	log    *slog.Logger
	screen *console.Screen
}

// draw reads runs and rows from the ledger, and the importers' records.
func (d *drawer) draw(ctx context.Context, chosen []ledger.Run) (*night.Account, error) {
	environment, err := d.book.Environment(ctx)
	if err != nil {
		return nil, err
	}
	a := &night.Account{
		MadeAt: d.now.UTC(), Program: config.Program(), Ledger: d.book.Path(), API: environment.API(),
		Masked: !d.unmask,
	}
	if a.Runs, err = d.runs(chosen); err != nil {
		return nil, err
	}
	d.latest(a)
	history, err := d.book.Runs(ctx, night.MaxHistory)
	if err != nil {
		return nil, err
	}
	if a.History, err = d.runs(history); err != nil {
		return nil, err
	}
	for i := range a.History {
		report := &a.History[i].Report
		report.Rows = report.Counts()
		// What the list does not show.
		report.Imports, report.Latencies, report.Stages, report.Settings = nil, nil, nil, nil
	}
	reads := []func(context.Context, *night.Account) error{d.imports, d.minutes, d.failures, d.left}
	if d.brief {
		a.Left.Unread = true
		reads = nil
	}
	for _, read := range reads {
		if err := read(ctx, a); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (d *drawer) runs(list []ledger.Run) ([]night.Run, error) {
	runs := make([]night.Run, 0, len(list))
	for _, r := range list {
		read := reportOf
		if d.brief && r.Running { // the page of this run cannot know what becomes of it
			read = storedReport
		}
		report, err := read(r)
		if err != nil {
			return nil, err
		}
		if !d.unmask {
			report.Reason = maskReason(report)
		}
		runs = append(runs, night.Run{Report: report, Program: r.Program, Host: r.Host, Drain: r.Drain})
	}
	return runs, nil
}

// maskReason masks the reason of a run, but for the ids of the runs that it repeats.
func maskReason(report results.Report) string {
	if report.Repeats == "" {
		return night.MaskText(report.Reason)
	}
	masked, end := "", 0
	for _, at := range leftByRun.FindAllStringIndex(report.Reason, -1) {
		masked += night.MaskText(report.Reason[end:at[0]]) + report.Reason[at[0]:at[1]]
		end = at[1]
	}
	return masked + night.MaskText(report.Reason[end:])
}

// leftByRun is the beginning of what remains.String says.
var leftByRun = regexp.MustCompile(`run [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12} of `)

// latest adds the parts about the latest run.
func (d *drawer) latest(a *night.Account) {
	if len(a.Runs) == 0 {
		return
	}
	report := a.Runs[0].Report
	a.Latencies, a.Stages = report.Latencies, report.Stages
	for _, name := range slices.Sorted(maps.Keys(report.Settings)) {
		a.Settings = append(a.Settings, night.Setting{Name: "--" + name, Value: report.Settings[name]})
	}
	if rate, err := strconv.ParseFloat(report.Settings["rate"], 64); err == nil {
		a.Rate = rate
	}
}

// imports are those whose rows the runs handled, and those that began in the same night without a row coming here: an
// import that failed explains an empty run.
func (d *drawer) imports(ctx context.Context, a *night.Account) error {
	seen := map[string]bool{}
	for _, r := range a.Runs { // of an import in several runs, the latest outcome
		for _, i := range r.Report.Imports {
			if !seen[i.ID] {
				seen[i.ID] = true
				a.Imports = append(a.Imports, i)
			}
		}
	}
	recorded, err := importlog.In(d.c.DataDir).All(d.c.Topic)
	if err != nil {
		d.log.Warn("cannot read all of the importer's records", "error", err)
	}
	from, to := d.window(a)
	for n := range a.Imports { // an import that was in progress at the end of a run may have ended since
		at := slices.IndexFunc(recorded, func(i pipeline.Import) bool { return i.ID == a.Imports[n].ID })
		if at >= 0 {
			i := recorded[at]
			a.Imports[n].Importer = &i
		}
	}
	for _, i := range recorded {
		if !seen[i.ID] && i.StartedAt.After(from.Add(-tonight)) && i.StartedAt.Before(to) {
			a.Imports = append(a.Imports, results.ReportImport{ID: i.ID, Importer: &i})
		}
	}
	a.Imports = a.Imports[:min(len(a.Imports), night.MaxImports)]
	ids := make([]string, len(a.Imports))
	for n, i := range a.Imports {
		ids[n] = i.ID
	}
	stages, err := d.book.StagesByImport(ctx, ids)
	if err != nil {
		return err
	}
	runs, err := d.book.Runs(ctx, mostRuns)
	if err != nil {
		return err
	}
	sighted, err := sightOf(runs)
	if err != nil {
		return err
	}
	for n := range a.Imports {
		a.Imports[n].Outcome = results.OutcomeOf(stages[ids[n]])
		a.Imports[n].NotSeen = sighted.notSeen(a.Imports[n].Importer, a.Imports[n].Outcome)
		if m := a.Imports[n].Importer; m != nil {
			m.Reason = d.maskText(m.Reason)
		}
	}
	for _, i := range a.Imports {
		if i.Importer == nil || a.ImportedLater(*i.Importer) {
			continue
		}
		if a.Invalid == nil {
			a.Invalid = []night.Invalid{}
		}
		for _, f := range i.Importer.Files {
			for _, r := range f.Reasons {
				a.Invalid = append(a.Invalid, night.Invalid{File: f.Name, Field: r.Field, Reason: r.Reason, Rows: r.Rows})
			}
		}
	}
	slices.SortStableFunc(a.Invalid, func(x, y night.Invalid) int { return cmp.Compare(y.Rows, x.Rows) })
	a.Invalid = a.Invalid[:min(len(a.Invalid), night.MaxInvalid)]
	if path := filepath.Join(absolute(d.c.DataDir), "rejects.csv"); len(a.Invalid) > 0 {
		if _, err := os.Stat(path); err == nil {
			a.RejectFile = path
		}
	}
	return nil
}

// tonight is how long before a run an import may have begun to be of the same night.
const tonight = 12 * time.Hour

// window is the time of the account's runs. A run without an end lasts until now.
func (d *drawer) window(a *night.Account) (from, to time.Time) {
	from, to = d.now, d.now
	for i, r := range a.Runs {
		if r.Report.StartedAt.Before(from) {
			from = r.Report.StartedAt
		}
		if i == 0 && r.Ended() {
			to = r.Report.FinishedAt
		}
	}
	return from, to
}

func (d *drawer) minutes(ctx context.Context, a *night.Account) error {
	for _, r := range a.Runs {
		id, err := uuid.Parse(r.Report.Run)
		if err != nil {
			return err
		}
		stored, err := d.book.Minutes(ctx, id)
		if err != nil {
			return err
		}
		for _, m := range stored {
			var minute results.Minute
			if err := json.Unmarshal([]byte(m.Data), &minute); err != nil {
				return fmt.Errorf("minute %s of run %s in the ledger cannot be read: %w",
					m.At.Format(time.RFC3339), r.Report.Run, err)
			}
			minute.At = m.At
			a.Minutes = append(a.Minutes, minute)
		}
	}
	return nil
}

func (d *drawer) failures(ctx context.Context, a *night.Account) error {
	from, to := d.window(a)
	ends, err := d.book.BadEnds(ctx, from, to, night.MaxExamples)
	if err != nil {
		return err
	}
	a.Failures = []night.Failure{}
	for _, e := range ends[:min(len(ends), night.MaxFailures)] {
		class := onboard.ClassOf(e.Class, e.Stage)
		f := night.Failure{
			Class: e.Class, Stage: e.Stage, Rows: e.Since, Total: e.Total, Advice: d.screen.Hints(class.Advice()),
			Runbook: class.Runbook(),
		}
		for _, r := range e.Examples {
			f.Examples = append(f.Examples, night.Example{
				File: r.File, Line: r.Line, ExternalID: d.mask(r.ExternalID), Account: d.mask(r.Account.String()),
				Reason: d.maskText(r.Reason, r.ExternalID),
			})
		}
		a.Failures = append(a.Failures, f)
	}
	return nil
}

func (d *drawer) left(ctx context.Context, a *night.Account) error {
	counts, err := d.book.Counts(ctx)
	if err != nil {
		return err
	}
	for _, n := range counts {
		a.Dismissed += n.Dismissed
		if n.Stage.Terminal() {
			continue
		}
		a.Left.Open += n.Rows
		a.Left.Stages = append(a.Left.Stages, night.Unsettled{Stage: n.Stage, Rows: n.Rows, Reason: d.maskText(n.Reason)})
	}
	if a.Left.Unpublished, err = d.book.UnpublishedCount(ctx); err != nil {
		return err
	}
	var waiting []pipeline.Record
	if a.Left.Waiting, waiting, err = d.book.AtCustodian(ctx, night.MaxCustodian); err != nil {
		return err
	}
	for _, r := range waiting {
		a.Left.Custodian = append(a.Left.Custodian, night.Waiting{
			File: r.File, Line: r.Line, ExternalID: d.mask(r.ExternalID), Account: d.mask(r.Account.String()),
			Transaction: r.ExternalTxID, Since: r.ChallengeAt,
		})
	}
	return nil
}

func (d *drawer) mask(id string) string {
	if d.unmask {
		return id
	}
	return night.Mask(id)
}

// maskText masks what may be customer data in a text, and the known ids.
func (d *drawer) maskText(text string, ids ...string) string {
	if d.unmask {
		return text
	}
	return night.MaskText(text, ids...)
}

// queueWait is how long an account waits for the brokers.
const queueWait = 10 * time.Second

// readQueue opens the queue and adds what is in it. The embedded broker is not opened: meanwhile no importer and no
// consumer could begin.
func (d *drawer) readQueue(ctx context.Context, a *night.Account) {
	if d.c.Embedded() {
		a.Left.QueueProblem = "a report does not open the embedded broker, because that would block importers and " +
			"consumers; the page of a run's --report-html shows the queue"
		return
	}
	ctx, cancel := context.WithTimeout(ctx, queueWait)
	defer cancel()
	settings := d.c.Queue
	settings.BrokerWait, settings.CreateTopics = 0, false
	q, err := queue.Open(ctx, settings, slog.New(slog.DiscardHandler), topics(d.c)...)
	if err == nil {
		err = errors.Join(d.queued(ctx, q, a), q.Close())
	}
	if err != nil {
		a.Left.QueueProblem = console.Line(err)
	}
}

// enough is how many dead letters are read.
const enough = 10_000

var errEnough = errors.New("enough")

// queued adds the messages in the queue, and the dead letters that no redrive has put back.
func (d *drawer) queued(ctx context.Context, q *queue.Queue, a *night.Account) error {
	lag, err := q.Lag(ctx, d.c.Topic, d.c.Group)
	if err != nil {
		return err
	}
	letters, err := q.Lag(ctx, d.c.DeadLetterTopic, redriveGroup(d.c))
	if err != nil {
		return err
	}
	a.Left.LetterCount = messages(letters)
	kinds := map[string]*night.Letter{}
	if a.Left.LetterCount > 0 {
		read := 0
		_, err = q.Scan(ctx, d.c.DeadLetterTopic, redriveGroup(d.c), func(m pipeline.Message) error {
			if read++; read > enough {
				return errEnough
			}
			class := m.Header(pipeline.HeaderClass)
			k := kinds[class]
			if k == nil && len(kinds) == night.MaxLetters {
				return nil
			}
			if k == nil {
				k = &night.Letter{Class: class}
				kinds[class] = k
			}
			k.Count++
			k.Example = d.maskText(m.Header(pipeline.HeaderReason))
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return err
		}
	}
	a.Left.Lag, a.Left.Letters = []night.Partition{}, []night.Letter{}
	for _, l := range lag {
		a.Left.Lag = append(a.Left.Lag, night.Partition{Partition: l.Partition, Lag: l.Lag()})
	}
	for _, k := range kinds {
		a.Left.Letters = append(a.Left.Letters, *k)
	}
	slices.SortFunc(a.Left.Letters, func(x, y night.Letter) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), cmp.Compare(x.Class, y.Class))
	})
	return nil
}

// messages is how many messages a group has in front of it.
func messages(lag []broker.PartitionLag) (n int64) {
	for _, l := range lag {
		n += l.Lag()
	}
	return n
}

// commands are the arguments by which the account's commands find ledger and queue, wherever they are run.
func (d *drawer) commands(a *night.Account) night.Commands {
	var common, own strings.Builder
	add := func(to *strings.Builder, flag, value string) {
		fmt.Fprintf(to, " %s %s", flag, printable.ShellWord(value))
	}
	if file := string(d.c.Config); file != "" {
		add(&common, "--config", absolute(kong.ExpandPath(file)))
	}
	add(&common, "--data-dir", absolute(d.c.DataDir))
	if absolute(d.c.Ledger) != filepath.Join(absolute(d.c.DataDir), "ledger.db") {
		add(&own, "--ledger", absolute(d.c.Ledger))
	}
	c := night.Commands{Ledger: common.String() + own.String()}
	if !d.c.Embedded() {
		add(&common, "--brokers", strings.Join(d.c.Brokers, ","))
		add(&common, "--topic", d.c.Topic)
		add(&common, "--dead-letter-topic", d.c.DeadLetterTopic)
		add(&own, "--group", d.c.Group)
	}
	if program := d.screen.Program(); program != "" {
		c.Consume, c.Import = program, program+" import"
	}
	c.Queue, c.Importer = common.String()+own.String(), common.String()
	if len(a.Runs) > 0 && a.Runs[0].Report.Export != "" {
		c.Export = " " + printable.ShellWord(a.Runs[0].Report.Export)
	}
	return c
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
