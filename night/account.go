package night

import (
	"encoding/json"
	"time"

	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/results"
)

// Limits of an account's lists. Whatever the size of the run, the page stays below a megabyte.
const (
	MaxExamples  = 10 // of a class and stage
	MaxFailures  = 60 // classes and stages
	MaxInvalid   = 60 // files, fields and reasons
	MaxHistory   = 7  // runs
	MaxImports   = 50
	MaxCustodian = 50
	MaxLetters   = 20
	MaxIncidents = 60
	MaxPartition = 200
	maxText      = 1 << 10 // bytes of a text from outside
)

// Account is all that the page, the text and the JSON show. The field names of the JSON are a contract. A list that is
// nil was not recorded or could not be read; an empty one was, and there is nothing in it.
type Account struct {
	MadeAt  time.Time `json:"madeAt"`
	Program string    `json:"program"` // name and version of what made the account
	Ledger  string    `json:"ledger"`  // path
	API     string    `json:"api"`
	Masked  bool      `json:"masked"` // ids and addresses are

	Verdict Verdict `json:"verdict"` // by Conclude
	Todo    []Step  `json:"todo"`    // by Conclude

	Runs    []Run                  `json:"runs"` // that the account is about, the latest first
	Imports []results.ReportImport `json:"imports"`
	Balance []Sum                  `json:"balance"` // by Conclude
	History []Run                  `json:"history"` // the latest runs of the ledger, the latest first

	Failures   []Failure        `json:"failures"`
	Dismissed  int64            `json:"dismissed"` // rows that ended badly and are left out, because they were dismissed
	Invalid    []Invalid        `json:"invalid"`
	RejectFile string           `json:"rejectFile,omitempty"` // that has each invalid row of the latest import
	Rate       float64          `json:"rate"`                 // --rate, requests per second; 0: not recorded
	Minutes    []results.Minute `json:"minutes"`
	// Of the latest run:
	Latencies []results.Latency   `json:"latencies"`
	Stages    []results.StageTime `json:"stages"` // how long rows were in a stage

	Left      Left       `json:"left"`
	Incidents []Incident `json:"incidents"` // by Conclude
	Settings  []Setting  `json:"settings"`

	consume string // the consumer's program, by Conclude
}

// Run is a run of the consumer as the ledger remembers it.
type Run struct {
	Report  results.Report `json:"report"`
	Program string         `json:"program"`
	Host    string         `json:"host"`
	Drain   bool           `json:"drain"`
}

// Failure is what became of the rows that ended badly with one class at one stage.
type Failure struct {
	Class    string         `json:"class"`
	Stage    pipeline.Stage `json:"stage"`
	Rows     int64          `json:"rows"`  // of these runs
	Total    int64          `json:"total"` // of the whole ledger, now
	Advice   string         `json:"advice"`
	Runbook  string         `json:"runbook"` // where more is said
	Examples []Example      `json:"examples"`
}

// Example is a row that ended badly.
type Example struct {
	File       string `json:"file"`
	Line       int    `json:"line"`
	ExternalID string `json:"externalId"`
	Account    string `json:"account"`
	Reason     string `json:"reason"`
}

// Invalid is how many rows of a file were invalid for one reason.
type Invalid struct {
	File   string `json:"file"`
	Field  string `json:"field"`
	Reason string `json:"reason"`
	Rows   int64  `json:"rows"`
}

// Left is what the runs have left.
type Left struct {
	Open        int64       `json:"open"`        // unsettled rows of the ledger, those at the custodian included
	Unpublished int64       `json:"unpublished"` // settled rows whose event is not published
	Waiting     int64       `json:"waiting"`     // rows that wait for the custodian
	Custodian   []Waiting   `json:"custodian"`   // the oldest of them
	Stages      []Unsettled `json:"stages"`      // the rows that are not settled
	Lag         []Partition `json:"lag"`
	Letters     []Letter    `json:"deadLetters"`
	LetterCount int64       `json:"deadLetterCount"`
	Unread      bool        `json:"unread,omitempty"` // the run has not ended: none of this was read
	// QueueProblem says why Lag and Letters are nil.
	QueueProblem string `json:"queueProblem,omitempty"`
}

// Unsettled is how many rows are at a stage that is not terminal.
type Unsettled struct {
	Stage  pipeline.Stage `json:"stage"`
	Rows   int64          `json:"rows"`
	Reason string         `json:"reason"` // what the row that changed last is struggling with
}

// Waiting is a row that waits for the custodian.
type Waiting struct {
	File        string    `json:"file"`
	Line        int       `json:"line"`
	ExternalID  string    `json:"externalId"`
	Account     string    `json:"account"`
	Transaction string    `json:"transaction"`
	Since       time.Time `json:"since"`
}

// Partition is how far the group is behind in a partition of the queue.
type Partition struct {
	Partition int   `json:"partition"`
	Lag       int64 `json:"lag"`
}

// Letter is a kind of dead letter that was not put back.
type Letter struct {
	Class   string `json:"class"`
	Count   int64  `json:"count"`
	Example string `json:"example"` // the reason of the latest
}

// Incident is a time in which the night was out of the ordinary.
type Incident struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"` // zero: it has no end
	Kind string    `json:"kind"`
	What string    `json:"what"`
}

// Setting is an effective setting of the latest run, without secrets.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Step is something to do now.
type Step struct {
	Text     string   `json:"text"`
	Commands []string `json:"commands,omitempty"`
}

// Sum is an equation of the balance: the total is the sum of its parts, or rows are missing.
type Sum struct {
	Name       string `json:"name"`
	Of         string `json:"of"` // what the total counts
	Total      int64  `json:"total"`
	Parts      []Part `json:"parts"`
	Difference int64  `json:"difference"` // total less parts; 0: it adds up
	// Unknown says why there is no equation; Total is 0 and Parts is empty then.
	Unknown string `json:"unknown,omitempty"`
}

// Part is a part of a sum.
type Part struct {
	Name string `json:"name"`
	N    int64  `json:"n"`
}

// JSON returns the account as indented JSON with a line feed at its end.
func (a *Account) JSON() ([]byte, error) {
	raw, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(raw, '\n'), nil
}

// Rows are the rows of the account's runs together.
func (a *Account) Rows() (sum results.ReportRows) {
	for _, r := range a.Runs {
		n := r.Report.Rows
		sum.Received += n.Received
		sum.Skipped += n.Skipped
		sum.Onboarded += n.Onboarded
		sum.AlreadyOnboarded += n.AlreadyOnboarded
		sum.Conflict += n.Conflict
		sum.Refused += n.Refused
		sum.Rejected += n.Rejected
		sum.Failed += n.Failed
		sum.DeadLettered += n.DeadLettered
	}
	return sum
}

// KnowsFailures reports whether the rows that ended badly were read.
func (a *Account) KnowsFailures() bool { return a.Failures != nil }

// Ended reports whether the run came to its end.
func (r Run) Ended() bool { return r.Report.State == results.Ended }

// alive reports whether the run is known to be in progress.
func (r Run) alive() bool { return !r.Ended() && r.Report.Alive != nil && *r.Report.Alive }

// over reports whether the run is known to be in progress no more.
func (r Run) over() bool { return r.Ended() || r.Report.Alive != nil && !*r.Report.Alive }

// End is how a run without an end is listed.
func (r Run) End() string {
	switch {
	case r.alive():
		return "running"
	case r.over():
		return "killed"
	}
	return "no end"
}

// Took is how long the run took; 0 if it has no end.
func (r Run) Took() time.Duration {
	if !r.Ended() {
		return 0
	}
	return r.Report.FinishedAt.Sub(r.Report.StartedAt)
}
