package consumecmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/queue"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/lockfile"
	"github.com/purser-onboard/purser/messageauth"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/signer"
)

// firstRows is how many of the queue's rows are looked at by check.
const firstRows = 100

// checklist prints the outcome of each check, or collects them for a JSON document, and remembers whether one failed.
type checklist struct {
	w       io.Writer // nil: they are collected
	hints   func(string) string
	explain func(error) error
	checks  []checkResult
	failed  int
	patient bool // all failures may pass: something could not be reached
}

// checkResult is the outcome of a check. The field names are a contract.
type checkResult struct {
	Check  string `json:"check"`
	Result string `json:"result"` // ok, warn or FAIL
	Text   string `json:"text"`
}

func (l *checklist) say(what, line string, err error) {
	if err != nil {
		l.failed++
		l.patient = l.patient && unreachable(err)
		l.add(checkResult{what, "FAIL", console.Line(l.explain(err))})
		return
	}
	l.add(checkResult{what, "ok", line})
}

// warn prints what works and yet may not be meant.
func (l *checklist) warn(what, line string) { l.add(checkResult{what, "warn", line}) }

func (l *checklist) add(c checkResult) {
	c.Text = printable.Line(l.hints(c.Text), mostOfLine)
	l.checks = append(l.checks, c)
	if l.w != nil {
		fmt.Fprintf(l.w, "%-5s %-9s %s\n", c.Result, c.Check, c.Text)
	}
}

// check tests everything that a run needs, without touching a customer and without a signature (rule "A wrong set-up
// halts the run").
func check(ctx context.Context, c *config.Consumer, form config.Output, s Streams) error {
	list := &checklist{w: s.Stdout, hints: console.NewScreen(s.Stderr).Hints, explain: c.Explain, patient: true}
	if form.JSON() {
		list.w = nil
	}
	err := checkAll(ctx, list, c, s)
	if form.JSON() && len(list.checks) > 0 {
		document := struct {
			Checks []checkResult `json:"checks"`
			Failed int           `json:"failed"`
		}{list.checks, list.failed}
		if e := console.WriteJSON(s.Stdout, document); e != nil {
			return errors.Join(err, e)
		}
	}
	return err
}

func checkAll(ctx context.Context, list *checklist, c *config.Consumer, s Streams) error {
	log := console.NewLogger(s.Stderr, c.LogFormat, c.LogLevel)
	p, err := openPartner(c, s.Getenv, log, nil)
	if err != nil {
		return err
	}
	defer p.client.Close()
	checkPartner(ctx, list, c, p)
	if c.AnyStatement {
		list.warn("challenge", "--challenge-statement any: any text that the partner puts into a challenge is signed with "+
			"the customers' keys; set the expected text")
	}
	backend, err := openSigner(ctx, c, p.base, s.Getenv, func(text string) { list.warn("signer", text) })
	if err != nil {
		list.say("signer", "", err)
	} else {
		line, err := backend.Check(ctx)
		list.say("signer", line, err)
	}
	checkLedger(ctx, list, c, p)
	if c.LedgerTopic != "" {
		if _, err := c.LedgerTopicKeys(); err != nil {
			list.say("topic-key", "", err)
		}
	}
	keys, err := c.MessageKeys()
	if err != nil {
		list.say("messages", "", err)
	}
	first, line, err := checkBroker(ctx, c, s)
	if keys != nil {
		first = checkAuthentic(list, keys, first)
	}
	list.say("broker", line, err)
	if backend != nil {
		if len(first) > 0 {
			checkKeys(ctx, list, backend, first)
		}
		if err := backend.Close(); err != nil {
			list.say("signer", "", err)
		}
	}
	switch {
	case list.failed > 0 && ctx.Err() != nil: // what failed was cut short
		return console.Coded(console.ExitUnfinished, context.Cause(ctx))
	case list.failed > 0 && list.patient:
		return console.Coded(console.ExitUnfinished, fmt.Errorf("%d of the checks failed", list.failed))
	case list.failed > 0:
		return console.Coded(console.ExitUsage, fmt.Errorf("%d of the checks failed", list.failed))
	}
	return nil
}

// unreachable reports whether the error says that something was not there, rather than that a setting is wrong.
func unreachable(err error) bool {
	var partner *client.Error
	if errors.As(err, &partner) {
		return partner.Passing()
	}
	var gone *broker.UnreachableError
	var locked *broker.LockedError
	return errors.Is(err, signer.ErrUnusable) && mayCome(err) || errors.Is(err, broker.ErrBrokerLost) ||
		errors.As(err, &gone) && !broker.SetUp(err) || errors.As(err, &locked)
}

func checkPartner(ctx context.Context, list *checklist, c *config.Consumer, p *partner) {
	result, err := p.client.Check(ctx)
	if err != nil {
		if found := findSignature(ctx, c, p, err); found != "" {
			result.Advice = found
		}
		if result.Advice != "" {
			err = fmt.Errorf("%w; %s", err, result.Advice)
		}
		list.say("partner", "", err)
		if skew := p.client.Stats().ClockSkew; skew.Abs() > 5*time.Second {
			checkClock(list, skew)
		}
		return
	}
	list.say("partner", fmt.Sprintf("%s: token and request signature accepted in %v",
		c.APIURL, result.Latency.Round(time.Millisecond)), nil)
	checkClock(list, result.ClockSkew)
}

func checkClock(list *checklist, skew time.Duration) {
	list.say("clock", fmt.Sprintf("within %v of the partner's", skew.Abs().Round(time.Second)+time.Second),
		checkSkew(skew))
}

func checkLedger(ctx context.Context, list *checklist, c *config.Consumer, p *partner) {
	schema, err := readLedger(ctx, c, p)
	if err == nil && schema.Have < schema.Known {
		list.warn("ledger", fmt.Sprintf("%s has schema %d, of an earlier version; the next run migrates it to schema %d, "+
			"which the earlier version does not open: to keep the way back, make a backup before "+
			"(`consumer ledger backup FILE`)", c.Ledger, schema.Have, schema.Known))
		return
	}
	list.say("ledger", c.Ledger, err)
}

// readLedger returns the schema of the run's ledger, or what a run could not use it for.
func readLedger(ctx context.Context, c *config.Consumer, p *partner) (schema ledger.Schema, err error) {
	path, err := lockfile.Resolve(c.Ledger)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return schema, nil // the first run makes it
	case err != nil:
		return schema, err
	}
	if err := lockfile.CheckDir(filepath.Dir(path)); err != nil {
		return schema, err
	}
	have, schema, err := ledger.Identify(ctx, path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, ledger.ErrEmpty):
		return schema, nil // the first run makes it
	case err != nil:
		return schema, err
	}
	have.APIHost = canonicalHost(p.base)(have.APIHost)
	if want := environment(c, p.base); !have.Matches(want) {
		return schema, &ledger.EnvironmentError{Path: c.Ledger, Ledger: have, Given: want}
	}
	return schema, nil
}

// checkBroker also returns the queue's first messages.
func checkBroker(
	ctx context.Context, c *config.Consumer, s Streams,
) (first []pipeline.Message, line string, err error) {
	now := c.Queue
	now.BrokerWait = 0 // brokers that are away are reported at once
	q, err := queue.Open(ctx, now, console.NewLogger(s.Stderr, c.LogFormat, c.LogLevel), withLedgers(c)...)
	if err != nil {
		return nil, "", err
	}
	defer closing(&err, "broker", q.Close)
	if err := q.CheckTopics(ctx, topics(c)...); err != nil {
		return nil, "", err
	}
	if c.LedgerTopic != "" {
		if _, err := q.CheckLedgerTopic(ctx, c.Topic, c.LedgerTopic); err != nil {
			return nil, "", err
		}
	}
	lag, err := q.Lag(ctx, c.Topic, c.Group)
	if err != nil {
		return nil, "", err
	}
	for _, p := range lag {
		if p.Committed > p.End {
			return nil, "", &broker.AheadError{
				Topic: c.Topic, Group: c.Group, Partition: p.Partition, Committed: p.Committed, End: p.End,
			}
		}
	}
	if first, err = q.Peek(ctx, c.Topic, c.Group, firstRows); err != nil {
		return nil, "", err
	}
	name := "embedded"
	if !c.Embedded() {
		name = strings.Join(c.Brokers, ",")
	}
	n := messages(lag)
	return first, fmt.Sprintf("%s: %s has %s for group %s", name, c.Topic,
		printable.Count(n, "message", "messages"), c.Group), nil
}

// checkAuthentic returns those of the queue's first messages that are authentic. That none is points at the wrong key.
func checkAuthentic(list *checklist, keys *messageauth.Keys, first []pipeline.Message) []pipeline.Message {
	authentic := make([]pipeline.Message, 0, len(first))
	var problem error
	for _, m := range first {
		if err := keys.Verify(m); err != nil {
			problem = err
			continue
		}
		authentic = append(authentic, m)
	}
	line := fmt.Sprintf("%d of the queue's first %s authentic", len(authentic),
		printable.Count(len(first), "message is", "messages are"))
	switch {
	case problem != nil && len(authentic) == 0:
		list.say("messages", "", fmt.Errorf("--message-key-file: none of the queue's first messages is authentic: %w",
			problem))
	case problem != nil:
		list.warn("messages", line+": "+problem.Error())
	case len(first) > 0:
		list.say("messages", line, nil)
	}
	return authentic
}

// shownKeys is how many of the keys that cannot be used are named.
const shownKeys = 10

// checkKeys counts the accounts of the queue's first rows that the signer can sign for, and says why it cannot for the
// others. Those are their rows' failures and not the run's; none at all points at the wrong signer.
func checkKeys(ctx context.Context, list *checklist, backend signer.Backend, first []pipeline.Message) {
	rows, keys := 0, 0
	var unusable []string
	for _, m := range first {
		row, err := pipeline.ParseMessage(m.Value)
		if err != nil {
			continue // it becomes a dead letter, unless the ledger has its row
		}
		rows++
		err = backend.HasKey(ctx, row.Account.Address)
		switch {
		case err == nil:
			keys++
		case errors.Is(err, signer.ErrNoKey), errors.Is(err, signer.ErrMismatch), errors.Is(err, signer.ErrDeclined):
			unusable = append(unusable, fmt.Sprintf("%s: %v", row.Where(), err))
		default:
			list.say("keys", "", err)
			return
		}
	}
	line := fmt.Sprintf("the signer has a key for %d of the queue's first %s", keys, printable.Count(rows, "row", "rows"))
	var err error
	if rows > 0 && keys == 0 {
		err = errors.New("the signer has a key for none of the queue's first rows")
	}
	list.say("keys", line, err)
	for i, text := range unusable {
		if i == shownKeys {
			list.warn("keys", fmt.Sprintf("rows without a usable key: %d more", len(unusable)-i))
			break
		}
		list.warn("keys", text)
	}
}
