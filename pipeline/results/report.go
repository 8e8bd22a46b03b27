package results

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
)

// Report is what a run of the consumer leaves for scripts (`--report`). The field names are a contract.
type Report struct {
	Run        string         `json:"run"`   // the run's id, a UUID of version 7
	State      State          `json:"state"` // "running" until the run has ended
	StartedAt  time.Time      `json:"startedAt"`
	FinishedAt time.Time      `json:"finishedAt"` // of a run that has not ended, startedAt
	Rows       ReportRows     `json:"rows"`
	Requests   ReportRequests `json:"requests"`
	Signatures int64          `json:"signatures"` // signatures made, not those sent
	Exit       int            `json:"exit"`       // the exit code; 1 of a run that has not ended
	Reason     string         `json:"reason"`     // why the run could not finish; empty otherwise
	// Alive says of a run that has not ended whether its process is there. It is absent from the file of --report: a
	// process that was killed cannot say so.
	Alive *bool `json:"alive,omitempty"`
	// Progress is how far a run that has not ended has come, or had when its process was killed. It is absent from the
	// file of --report, and in the first seconds.
	Progress *Progress `json:"progress,omitempty"`
	// Cause says of some runs with the exit code 1 or 2 why they could not finish.
	Cause Cause `json:"cause,omitempty"`
	// Export is the file or pattern, with an absolute path, that `purser night` could not read.
	Export string `json:"export,omitempty"`
	// Repeats is the id of an earlier run: its rows are still bad, or its dead letters were not put back, and this run
	// ends with 3 for them. Of several, it is the latest; Reason names all.
	Repeats string `json:"repeats,omitempty"`
	// RepeatedDeadLetters are those of the runs that Reason names, as far as they were not put back.
	RepeatedDeadLetters int64 `json:"repeatedDeadLetters,omitempty"`
	// Imports are those whose rows the run handled, the latest first, at most 100.
	Imports []ReportImport `json:"imports,omitempty"`
	Balance *Balance       `json:"balance,omitempty"` // absent until the run has ended
	// Latencies are those of the operations that occurred, and of the signer. Latencies and Stages are absent until the
	// run has ended.
	Latencies []Latency   `json:"latencies,omitempty"`
	Stages    []StageTime `json:"stages,omitempty"`
	// Settings are the effective settings by the names of their flags. NotShown stands for those that may be secrets or
	// name the files of secrets.
	Settings map[string]string `json:"settings,omitempty"`
}

// State says whether the run of a report has ended.
type State string

// The states of a report.
const (
	Running State = "running" // the run is in progress, or its process was killed
	Ended   State = "ended"
)

// Cause is why a run could not finish.
type Cause string

// The causes that a report tells apart.
const (
	CauseInterrupted Cause = "interrupted" // by a signal
	CauseImport      Cause = "import"      // the import of `purser night` failed
)

// Begun is the report of a run that has just begun, and stays that of one whose process is killed.
func Begun(run string, at time.Time) Report {
	return Report{
		Run: run, State: Running, StartedAt: at, FinishedAt: at, Exit: 1,
		Reason: "the run has not ended: it is in progress, or its process was killed",
	}
}

// Seen returns the report of a run that has not ended for a reader who knows whether its process is there.
func (r Report) Seen(alive bool) Report {
	r.Alive, r.Reason = &alive, "the run has no end: its process was killed, or could not record it"
	if alive {
		r.Reason = "the run is in progress"
	}
	return r
}

// Standing says how a run that has not ended stands, as far as the reader knows.
func (r Report) Standing() string { return pipeline.Standing(r.Alive) }

// Counts are the row counts of a run, of one that has not ended as of its latest progress.
func (r Report) Counts() ReportRows {
	if r.Progress != nil {
		return r.Progress.Rows
	}
	return r.Rows
}

// ReportRows counts messages and rows. Received is the sum of the others but AlreadyOnboarded, unless the run could
// not finish or left rows to a custodian.
type ReportRows struct {
	Received         int64 `json:"received"` // messages taken
	Skipped          int64 `json:"skipped"`  // messages whose row was terminal already, or is settled by another message
	Onboarded        int64 `json:"onboarded"`
	AlreadyOnboarded int64 `json:"alreadyOnboarded"` // the part of onboarded that was found past initiating
	Conflict         int64 `json:"conflict"`
	Refused          int64 `json:"refused"`
	Rejected         int64 `json:"rejected"`
	Failed           int64 `json:"failed"`
	DeadLettered     int64 `json:"deadLettered"`
}

// ReportRequests counts requests to the partner.
type ReportRequests struct {
	Sent      int64 `json:"sent"`      // all attempts, those for tokens too
	Throttled int64 `json:"throttled"` // answered 429, or 503 with Retry-After
	Retried   int64 `json:"retried"`   // sent again under the same key, or again with a fresh token
}

// RowsOf returns the row counts of a run as the report shows them.
func RowsOf(t pipeline.Tally) ReportRows {
	return ReportRows{
		Received: t.Received, Skipped: t.Skipped,
		Onboarded: t.Onboarded, AlreadyOnboarded: t.AlreadyOnboarded,
		Conflict: t.Conflict, Refused: t.Refused, Rejected: t.Rejected, Failed: t.Failed,
		DeadLettered: t.DeadLettered,
	}
}

// maxReason bounds the reason of a report, which may quote several errors.
const maxReason = 4 << 10

// JSON returns the report as indented JSON with a line feed at its end. The texts are made printable.
func (r Report) JSON() []byte {
	r.Reason, r.Export = printable.Line(r.Reason, maxReason), printable.Line(r.Export, maxReason)
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		panic(err) // numbers, strings and times always marshal
	}
	return append(raw, '\n')
}

// IsReport reports whether a file that begins so may be a Report, of this version or another one, or one that jq has
// formatted. An object that holds reports, as `consumer runs` prints, is none.
func IsReport(head []byte) bool {
	missing := map[any]bool{"run": true, "rows": true, "requests": true} // they come early, sorted behind the imports
	members := json.NewDecoder(bytes.NewReader(head))
	if begin, err := members.Token(); err != nil || begin != json.Delim('{') {
		return false
	}
	for len(missing) > 0 {
		name, err := members.Token()
		if err != nil || name == json.Delim('}') {
			return false
		}
		delete(missing, name)
		if err := members.Decode(new(json.RawMessage)); err != nil {
			return len(missing) == 0 // the head ends in this member
		}
	}
	return true
}
