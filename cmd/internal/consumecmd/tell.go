package consumecmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/notify"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
	"github.com/purser-onboard/purser/pipeline/results"
	"github.com/purser-onboard/purser/printable"
)

// notifier returns the notifier of the run; nil if none is configured.
func (r *run) notifier() (*notify.Notifier, error) {
	ping, webhook, err := r.c.Targets()
	if err != nil {
		return nil, err
	}
	return notify.New(notify.Options{
		Ping: ping, Webhook: webhook, Run: r.id.String(), UserAgent: "purser/" + config.Version,
		OnFailure: func(setting string, err error) {
			r.log.Warn("cannot deliver a notification of the run", "setting", setting, "error", err)
		},
	}), nil
}

// webhookEvent is what --webhook-url gets. The field names are a contract. It holds no text from outside: no customer's
// data can be among it.
type webhookEvent struct {
	Text       string                  `json:"text"` // for people, as chat systems show it
	Program    string                  `json:"program"`
	Run        string                  `json:"run"`
	State      results.State           `json:"state"`
	StartedAt  time.Time               `json:"startedAt"`
	FinishedAt *time.Time              `json:"finishedAt,omitempty"`
	Exit       *int                    `json:"exit,omitempty"`
	Reason     string                  `json:"reason"`
	Rows       *results.ReportRows     `json:"rows,omitempty"`
	Requests   *results.ReportRequests `json:"requests,omitempty"`
	Signatures *int64                  `json:"signatures,omitempty"`
}

// begunNotice returns the notice of the start of a run.
func begunNotice(r *results.Report) notify.Notice {
	e := webhookEvent{
		Text:    fmt.Sprintf("purser run %s has begun", r.Run),
		Program: config.Program(), Run: r.Run, State: results.Running, StartedAt: r.StartedAt,
	}
	return notice(e, e.Text+"\n")
}

// endedNotice returns the notice of the end of the run.
func (r *run) endedNotice(t pipeline.Tally, err error) notify.Notice {
	n := endedNotice(&r.report, t, err, r.begun)
	n.Text = r.screen.Hints(n.Text)
	return n
}

func endedNotice(r *results.Report, t pipeline.Tally, err error, recorded bool) notify.Notice {
	exit := console.Code(err)
	e := webhookEvent{
		Program: config.Program(), Run: r.Run, State: results.Ended, StartedAt: r.StartedAt,
		FinishedAt: &r.FinishedAt, Exit: &exit, Reason: publicReason(r, t, err),
		Rows: &r.Rows, Requests: &r.Requests, Signatures: &r.Signatures,
	}
	why := ""
	if e.Reason != "" {
		why = " (" + e.Reason + ")"
	}
	e.Text = fmt.Sprintf("purser run %s has ended with exit code %d%s: %s received, %d onboarded, %d skipped",
		r.Run, exit, why, printable.Count(r.Rows.Received, "row", "rows"), r.Rows.Onboarded, r.Rows.Skipped)
	var b strings.Builder
	b.WriteString(e.Text + "\n\n")
	summarize(&b, r, t)
	if recorded { // in the ledger
		fmt.Fprintf(&b, "\n`consumer status --run %s` prints the report.\n", r.Run)
	}
	n := notice(e, b.String())
	n.Exit = exit
	return n
}

func notice(e webhookEvent, text string) notify.Notice {
	raw, err := json.Marshal(e)
	if err != nil {
		panic(err) // numbers, strings and times always marshal
	}
	return notify.Notice{Text: text, JSON: raw}
}

// rowsEndedBadly is the reason for exit code 3 of rows and dead letters.
const rowsEndedBadly = "some rows ended badly"

// publicReason returns why a run ended with its exit code, without untrusted text: the report's reason may name rows
// and quote the partner.
func publicReason(r *results.Report, t pipeline.Tally, err error) string {
	exit := console.Code(err)
	var halt *onboard.HaltError
	var setting *config.Error
	switch {
	case exit == console.ExitWell:
		return ""
	case exit == console.ExitRowsBad && (t.BadRows+t.DeadLettered > 0 || r.Repeats != ""):
		return rowsEndedBadly
	case exit == console.ExitRowsBad && t.Waiting > 0:
		return "some rows are waiting for the custodian"
	case exit == console.ExitRowsBad:
		return "an export has invalid rows or no rows"
	case errors.As(err, new(*console.OutputError)):
		return "an output cannot be written"
	case errors.Is(err, console.ErrInterrupted):
		return "interrupted"
	case errors.As(err, &halt):
		return "halted: " + string(halt.Class)
	case errors.As(err, &setting):
		return "a setting cannot be used: " + setting.Setting
	case errors.Is(err, broker.ErrBrokerLost):
		return "the brokers cannot be reached"
	case exit == console.ExitUsage:
		return "the set-up must be fixed"
	}
	return "could not finish"
}
