package night_test

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/purser-onboard/purser/night"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/results"
)

// began is when the runs of the fixtures begin.
var began = time.Date(2026, 11, 26, 2, 15, 0, 0, time.UTC)

var commands = night.Commands{
	Ledger: " --config /etc/purser/purser.yaml --data-dir /srv/purser/purser-data",
	Queue:  " --config /etc/purser/purser.yaml --data-dir /srv/purser/purser-data",

	Importer: " --config /etc/purser/purser.yaml --data-dir /srv/purser/purser-data",
}

func runID(n int) string { return fmt.Sprintf("0199f7c2-4a10-7b3c-8d%02d-5e6f708192%02d", n, n) }

func ended(n int, began time.Time, took time.Duration, exit int, rows results.ReportRows) night.Run {
	return night.Run{
		Program: "purser 0.3.0", Host: "batch-1.bank.example", Drain: true,
		Report: results.Report{
			Run: runID(n), State: results.Ended, StartedAt: began, FinishedAt: began.Add(took), Rows: rows, Exit: exit,
		},
	}
}

func account(runs ...night.Run) *night.Account {
	return &night.Account{
		MadeAt: began.Add(4*time.Hour + 45*time.Minute), Program: "purser 0.3.0", API: "https://api.offblocks.example/v1",
		Ledger: "/srv/purser/purser-data/ledger.db", Masked: true, Runs: runs, Failures: []night.Failure{},
	}
}

// imported is an import of files, of whose lines some are lost.
func imported(lost, rows, invalid, neither int64, files ...string) []results.ReportImport {
	i := pipeline.Import{
		ID: "0199f7bf-0000-7000-8000-000000000001", Program: "purser 0.3.0", Host: "batch-1.bank.example", StartedAt: began,
		EndedAt: began.Add(time.Minute), ImportCounts: pipeline.ImportCounts{
			Lines: rows + invalid + neither + lost, Rows: rows + invalid, Published: rows, PublishedLines: rows, Invalid: invalid,
			InvalidLines: invalid, Header: neither, Neither: neither,
		},
	}
	for _, name := range files {
		i.Files = append(i.Files, pipeline.ImportFile{Name: name})
	}
	return []results.ReportImport{{ID: i.ID, Received: rows, Importer: &i}}
}

// goodNight: all rows onboarded.
func goodNight() *night.Account {
	a := account(ended(40, began, 34*time.Minute, 0, results.ReportRows{Received: 12_000, Onboarded: 12_000}))
	a.History = []night.Run{a.Runs[0]}
	for i := 1; i < 7; i++ {
		n := int64(11_000 + 150*i)
		a.History = append(a.History,
			ended(40-i, began.AddDate(0, 0, -i), 32*time.Minute, 0, results.ReportRows{Received: n, Onboarded: n}))
	}
	a.Imports = imported(0, 12_000, 0, 1, "customers-2026-11-25.csv")
	a.Imports[0].Outcome = results.ImportOutcome{Rows: 12_000, Onboarded: 12_000}
	a.Invalid = []night.Invalid{}
	a.Rate, a.Minutes = 20, minutes(34, 20, nil)
	a.Latencies, a.Stages = latencies(), stageTimes()
	a.Left.Lag = []night.Partition{{0, 0}, {1, 0}}
	a.Left.Letters = []night.Letter{}
	a.Settings = settings()
	a.Conclude(commands)
	return a
}

// badNight: an outage, throttling, a signer that fails at times, rows that ended badly in many ways, invalid rows, rows
// at the custodian, dead letters.
func badNight() *night.Account {
	rows := results.ReportRows{
		Received: 48_210 + 12, Skipped: 1_204, Onboarded: 44_871, AlreadyOnboarded: 12, Conflict: 36, Refused: 214,
		Rejected: 71, Failed: 1_791, DeadLettered: 23,
	}
	a := account(ended(41, began, 3*time.Hour+12*time.Minute, 3, rows))
	a.Runs[0].Report.Requests = results.ReportRequests{Sent: 190_201, Throttled: 4_410, Retried: 9_120}
	a.Runs[0].Report.Balance = &results.Balance{Received: results.ReceivedBalance{Returned: 12}}
	a.History = []night.Run{a.Runs[0],
		ended(40, began.AddDate(0, 0, -1), 34*time.Minute, 0, results.ReportRows{Received: 12_000, Onboarded: 12_000}),
		ended(39, began.AddDate(0, 0, -2), 21*time.Minute, 2, results.ReportRows{Received: 9_000, Onboarded: 4_300, Failed: 5}),
		{Program: "purser 0.3.0", Host: "batch-1", Report: results.Begun(runID(38), began.AddDate(0, 0, -3))},
		ended(37, began.AddDate(0, 0, -4), 31*time.Minute, 3, results.ReportRows{
			Received: 11_000, Onboarded: 10_950, Conflict: 10, Refused: 40}),
		ended(36, began.AddDate(0, 0, -5), 30*time.Minute, 0, results.ReportRows{Received: 10_500, Onboarded: 10_500}),
		ended(35, began.AddDate(0, 0, -6), 2*time.Minute, 0, results.ReportRows{Received: 3_100, Skipped: 3_100}),
	}
	a.Imports = imported(0, 48_187, 211, 4, "customers-2026-11-25.csv", "backlog.csv.gz")
	a.Imports[0].Earlier = 1_204
	a.Imports[0].Outcome = results.ImportOutcome{
		Rows: 46_983, Open: 12, Onboarded: 44_859, Conflict: 36, Refused: 214, Rejected: 71, Failed: 1_791,
	}
	reasons := map[string]string{
		"no-key": "the signer has no key of the account", "challenge": "domain is evil.example, want api.offblocks.example",
		"server-error": "POST /customers: 500 after 12 attempts: internal error", "": "the partner's status is rejected",
		"taken":          `customer 0199…4f2a has account eip155:300:0x9F8e…77A1 and externalId "cu…81"`,
		"no-answer":      "POST /customers: no response within 30s (attempt 12)",
		"invalid":        "POST /customers: 400: chainId is not supported for this programme",
		"signer-error":   "pkcs11: CKR_DEVICE_ERROR",
		"signature-code": "400",
	}
	for _, f := range []struct {
		class string
		stage pipeline.Stage
		n     int64
	}{
		{"no-answer", pipeline.Failed, 902}, {"server-error", pipeline.Failed, 611}, {"challenge", pipeline.Refused, 214},
		{"no-key", pipeline.Failed, 190}, {"signer-error", pipeline.Failed, 80}, {"", pipeline.Rejected, 71},
		{"taken", pipeline.Conflict, 36}, {"invalid", pipeline.Failed, 8},
	} {
		failure := night.Failure{Class: f.class, Stage: f.stage, Rows: f.n, Total: f.n + f.n/10,
			Advice: "Check the cause, then import the rows again.", Runbook: "docs/runbook.md#" + f.class}
		for i := range int(min(f.n, night.MaxExamples)) {
			failure.Examples = append(failure.Examples, night.Example{
				File: "customers-2026-11-25.csv", Line: 17 + 311*i + int(f.n), ExternalID: "cu…" + fmt.Sprint(11+i),
				Account: "eip155:300:0x4315…26" + fmt.Sprint(10+i), Reason: reasons[f.class],
			})
		}
		a.Failures = append(a.Failures, failure)
	}
	a.RejectFile = "/srv/purser/purser-data/rejects.csv"
	a.Invalid = []night.Invalid{
		{"customers-2026-11-25.csv", "address", "address fails its EIP-55 checksum: a character was mistyped or its case changed", 142},
		{"customers-2026-11-25.csv", "externalId", "externalId is empty", 61},
		{"backlog.csv.gz", "record", "the record has 2 fields, the header 3", 8},
	}
	a.Rate = 20
	a.Minutes = minutes(192, 20, func(i int, m *results.Minute) {
		switch {
		case i >= 48 && i < 66: // throttled, and the rate lowered
			m.RateAllowed = 20 - float64(min(i-47, 12))
			m.RateUsed = m.RateAllowed * 0.9
			m.Throttled = int64(180 + 10*(i%5))
			m.GateClosedSeconds = float64(8 + i%7)
		case i >= 66 && i < 78:
			m.RateAllowed = 8 + float64(i-66)
			m.RateUsed = m.RateAllowed * 0.95
		case i >= 110 && i < 119: // an outage
			m.RateUsed, m.OutageSeconds = 0.2, 60
		case i >= 150 && i < 156:
			m.SignerErrors, m.RateUsed = 14, 9
		}
	})
	a.Latencies, a.Stages = latencies(), stageTimes()
	a.Left = night.Left{Open: 12, Unpublished: 3, Waiting: 12, LetterCount: 23,
		Letters: []night.Letter{
			{"syntax", 21, "the message is not JSON: invalid character 'a' looking for beginning of value"},
			{"partition", 2, "wrong partition: want 3, got 1: another key than the account (CAIP-10)"}},
		Lag: []night.Partition{{0, 0}, {1, 9}, {2, 0}, {3, 3}},
	}
	for i := range 12 {
		a.Left.Custodian = append(a.Left.Custodian, night.Waiting{
			File: "customers-2026-11-25.csv", Line: 4004 + 7*i, ExternalID: "cu…" + fmt.Sprint(51+i), Account: "eip155:300:0x77ab…01" + fmt.Sprint(10+i),
			Transaction: "6b1f…90" + fmt.Sprint(10+i), Since: began.Add(time.Duration(20+3*i) * time.Minute)})
	}
	a.Settings = settings()
	a.Conclude(commands)
	return a
}

// neverEnded: its process was killed. Nothing is recorded but the run.
func neverEnded() *night.Account {
	a := account(night.Run{Program: "purser 0.3.0", Host: "batch-1.bank.example", Drain: true, Report: results.Begun(runID(42), began)})
	a.History = append(a.Runs, goodNight().History...)[:7]
	a.Left.Open = 37
	a.Left.QueueProblem = "another process has the embedded broker open"
	a.Conclude(commands)
	return a
}

// halted: a setting is wrong.
func halted() *night.Account {
	a := account(ended(43, began, 12*time.Second, 2, results.ReportRows{Received: 40, Failed: 5}))
	a.Runs[0].Report.Balance = &results.Balance{Received: results.ReceivedBalance{Returned: 35}}
	a.Runs[0].Report.Reason = "halted: 5 consecutive rows ended with no-key (customers.csv:2, customers.csv:3, customers.csv:4, " +
		"customers.csv:5, customers.csv:6): the signer has no key of the account; no row has passed this step in this run; " +
		"check --signer: it has no key of these accounts"
	a.History = a.Runs
	a.Failures = []night.Failure{{Class: "no-key", Stage: pipeline.Failed, Rows: 5, Total: 5, Advice: "Check --signer.",
		Runbook: "docs/runbook.md#no-key"}}
	a.Conclude(commands)
	return a
}

// repeated: the queue was empty, and an earlier run has left dead letters.
func repeated() *night.Account {
	a := account(ended(46, began, 3*time.Second, 3, results.ReportRows{}))
	a.Runs[0].Report.Repeats, a.Runs[0].Report.RepeatedDeadLetters = runID(45), 5
	a.Runs[0].Report.Reason = "the queue is empty, but run " + runID(45) + " left 5 dead letters"
	a.History = a.Runs
	a.Conclude(commands)
	return a
}

// unread: the export of `purser night` could not be read.
func unread() *night.Account {
	a := account(ended(47, began, 3*time.Second, 2, results.ReportRows{}))
	r := &a.Runs[0].Report
	r.Cause, r.Export, r.Reason = results.CauseImport, "/srv/nosuch.csv", "stat nosuch.csv: no such file or directory"
	a.History = a.Runs
	c := commands
	c.Export = " /srv/nosuch.csv"
	a.Conclude(c)
	return a
}

// interrupted: by a signal.
func interrupted() *night.Account {
	a := account(ended(48, began, 12*time.Second, 1, results.ReportRows{Received: 300, Onboarded: 73}))
	r := &a.Runs[0].Report
	r.Cause, r.Reason = results.CauseInterrupted, "interrupted by terminated"
	r.Balance = &results.Balance{Received: results.ReceivedBalance{Returned: 227}}
	a.History = a.Runs
	a.Conclude(commands)
	return a
}

// resumed: what an interrupted run gave back was received again, and the process of a run between was killed.
func resumed() *night.Account {
	a := account(
		ended(50, began.Add(time.Hour), time.Minute, 0, results.ReportRows{Received: 227, Onboarded: 227}),
		night.Run{Program: "purser 0.3.0", Host: "batch-1", Drain: true,
			Report: results.Begun(runID(49), began.Add(time.Minute))},
		interrupted().Runs[0],
	)
	a.History = a.Runs
	a.Conclude(commands)
	return a
}

// emptyNight: the queue was empty.
func emptyNight() *night.Account {
	a := account(ended(44, began, 3*time.Second, 0, results.ReportRows{}))
	a.History = a.Runs
	a.Conclude(commands)
	return a
}

// noRun: the ledger has none.
func noRun() *night.Account {
	a := account()
	a.Conclude(commands)
	return a
}

// lostRows: the balance does not add up.
func lostRows() *night.Account {
	a := account(ended(45, began, time.Hour, 0, results.ReportRows{Received: 1000, Onboarded: 997}))
	a.History = a.Runs
	a.Imports = imported(2, 998, 0, 1, "customers.csv")
	a.Conclude(commands)
	return a
}

// hostileText is what no page, terminal or log should take literally.
const hostileText = "\x1b[2J</style></code><script>alert(1)</script><img src=x onerror=alert(2)>\u202etxt.exe\"' onload=a {{.}}\n--><!--"

// hostileNight has that text wherever text from outside can be.
func hostileNight() *night.Account {
	a := badNight()
	r := &a.Runs[0]
	r.Host, r.Program, r.Report.Reason, r.Report.Run = hostileText, hostileText, hostileText, hostileText
	a.API, a.Ledger, a.Program, a.RejectFile = hostileText, hostileText, hostileText, hostileText
	a.History[0] = *r
	a.Imports[0].Importer.Files[0].Name, a.Imports[0].Importer.Reason, a.Imports[0].Importer.Exit = hostileText, hostileText, 1
	for i := range a.Failures {
		f := &a.Failures[i]
		f.Class, f.Advice, f.Runbook = hostileText+f.Class, hostileText, hostileText
		for j := range f.Examples {
			f.Examples[j] = night.Example{hostileText, 1, hostileText, hostileText, strings.Repeat(hostileText, 300)}
		}
	}
	for i := range a.Invalid {
		a.Invalid[i].File, a.Invalid[i].Field, a.Invalid[i].Reason = hostileText, hostileText, hostileText
	}
	for i := range a.Latencies {
		a.Latencies[i].Operation = hostileText
	}
	for i := range a.Left.Custodian {
		w := &a.Left.Custodian[i]
		w.File, w.ExternalID, w.Account, w.Transaction = hostileText, hostileText, hostileText, hostileText
	}
	for i := range a.Left.Letters {
		a.Left.Letters[i].Class, a.Left.Letters[i].Example = hostileText, hostileText
	}
	a.Left.QueueProblem = hostileText
	for i := range a.Settings {
		a.Settings[i] = night.Setting{hostileText, hostileText}
	}
	a.Conclude(night.Commands{Ledger: " " + hostileText, Queue: " " + hostileText, Importer: " " + hostileText})
	return a
}

// hugeNight is a run of a million rows with all that an account lists at its bounds.
func hugeNight() *night.Account {
	a := badNight()
	a.Runs[0].Report.Rows = results.ReportRows{Received: 1_000_000, Onboarded: 600_000, Failed: 400_000}
	a.Runs[0].Report.FinishedAt = began.Add(55 * time.Hour)
	a.History[0] = a.Runs[0]
	a.Minutes = minutes(55*60, 20, func(i int, m *results.Minute) {
		m.Throttled, m.OutageSeconds = int64(i%9/8), float64(i%23/22)
	})
	text := strings.Repeat("the partner's answer was longer than a reason should be ", 8)
	a.Failures = nil
	for i := range night.MaxFailures {
		f := night.Failure{Class: fmt.Sprint("class-", i), Stage: pipeline.Failed, Rows: 1000, Total: 1000, Advice: text[:200]}
		for j := range night.MaxExamples {
			f.Examples = append(f.Examples, night.Example{"customers.csv", j, "cu…11", "eip155:300:0x4315…2691", text})
		}
		a.Failures = append(a.Failures, f)
	}
	a.Invalid = nil
	for i := range night.MaxInvalid {
		a.Invalid = append(a.Invalid, night.Invalid{fmt.Sprint("file-", i), "address", text, 1000})
	}
	a.Left.Lag = nil
	for i := range 500 {
		a.Left.Lag = append(a.Left.Lag, night.Partition{i, 5})
	}
	a.Conclude(commands)
	return a
}

// minutes are those of a run that sends as fast as it may.
func minutes(n int, rate float64, change func(i int, m *results.Minute)) []results.Minute {
	list := make([]results.Minute, n)
	for i := range list {
		m := &list[i]
		m.At = began.Add(time.Duration(i) * time.Minute)
		m.RateAllowed = rate
		m.RateUsed = rate * (0.93 + 0.05*math.Sin(float64(i)/3))
		if change != nil {
			change(i, m)
		}
		sent := int64(m.RateUsed * 60)
		m.Requests = map[string]map[string]int64{"create": {"2xx": sent / 3}, "challenge": {"2xx": sent / 3}, "submit": {"2xx": sent - 2*(sent/3)}}
		m.Settled = map[string]int64{"onboarded": sent / 3}
		m.Signatures = sent / 3
	}
	return list
}

func latencies() []results.Latency {
	return []results.Latency{
		latency("create", 48_000, 0.112, 0.41, 2.8), latency("challenge", 47_100, 0.048, 0.19, 0.92), latency("submit", 46_000, 0.141, 0.63, 11.4),
		latency("find", 1_900, 0.061, 0.22, 0.71), latency("token", 4, 0.09, 0.1, 0.1), latency("sign", 47_000, 0.0042, 0.0093, 0.31),
	}
}

func latency(operation string, count int64, p50, p95, p99 float64) results.Latency {
	return results.Latency{Operation: operation, Count: count, P50: p50, P95: p95, P99: p99}
}

func stageTimes() []results.StageTime {
	return []results.StageTime{
		{Stage: "planned", Count: 48_000, P50: 41, P95: 310, P99: 900},
		{Stage: "creating", Count: 47_900, P50: 0.2, P95: 1.1, P99: 63},
		{Stage: "challenged", Count: 47_100, P50: 0.1, P95: 0.6, P99: 2},
		{Stage: "signing", Count: 46_800, P50: 0.01, P95: 0.02, P99: 0.4},
		{Stage: "submitting", Count: 46_100, P50: 0.2, P95: 1.4, P99: 41},
	}
}

func settings() []night.Setting {
	return []night.Setting{
		{"--api-url", "https://api.offblocks.example/v1"}, {"--concurrency", "32"}, {"--group", "purser"},
		{"--max-attempts", "12"}, {"--outage-wait", "2m0s"}, {"--rate", "20"}, {"--signer", "pkcs11:token=customers"},
		{"--topic", "onboarding.customers"},
	}
}
