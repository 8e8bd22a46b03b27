package consumecmd

import (
	"log/slog"
	"time"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/loopback"
	"github.com/purser-onboard/purser/pipeline/dispatch"
	"github.com/purser-onboard/purser/pipeline/onboard"
)

// warnOfTrouble warns of many unusable answers or throttling, and logs its end. The client logs a single failure at
// level debug.
func warnOfTrouble(t onboard.Trouble, log *slog.Logger) {
	switch {
	case t.Throttled && t.Over:
		log.Warn("the partner stopped throttling")
	case t.Throttled:
		log.Warn("the partner is throttling: all workers wait, and the rate is lowered", "answer", t.Cause)
	case t.Over:
		log.Warn("the partner's responses are usable again", "unusable", t.Unusable, "of", t.Of)
	default:
		log.Warn("many of the partner's responses are unusable; repeating the requests under the same keys",
			"unusable", t.Unusable, "of", t.Of, "latest", t.Cause)
	}
}

// warnOfPolls warns that the custodian gives no usable response.
func warnOfPolls(p onboard.PollTrouble, limit time.Duration, log *slog.Logger) {
	log.Warn("no usable response from the custodian; its rows wait", "row", p.Row.Where(), "transaction", p.ExternalTxID,
		"failed", p.Failed, "failed_of_all_rows", p.OfAllRows, "waits_at_most", limit, "setting", "--signer-wait",
		"error", p.Cause)
}

// warnOfOutage logs the start and the end of an outage.
func warnOfOutage(cause error, wait time.Duration, log *slog.Logger) {
	if cause == nil {
		log.Warn("partner available again; the run continues")
		return
	}
	log.Warn("partner unavailable; probing only", "probe_every", dispatch.ProbeInterval, "halts_after", wait,
		"setting", "--outage-wait", "error", cause)
}

// warnOfStall names the first row of a partition that makes no progress, and what it waits for.
func warnOfStall(s broker.Stall, d *dispatch.Dispatcher, log *slog.Logger) {
	what := []any{
		"partition", s.Partition, "offset", s.Offset, "for", s.For.Round(time.Second), "unsettled", s.Outstanding,
		"nothing_more_is_read", s.Full,
	}
	if row, doing, ok := d.Holding(s.Partition, s.Offset); ok {
		what = append(what, "first_row", row.Where(), "account", row.Account.String(), "stage", row.Stage, "doing", doing,
			"because", row.Reason)
	}
	log.Warn("a partition makes no progress", what...)
}

// warnOfEmbedded says that a run at a partner that is not on this machine, and so may be the real one, trusts its queue
// to the embedded broker.
func warnOfEmbedded(c *config.Consumer, host string, log *slog.Logger) {
	if !c.Embedded() || loopback.Is(host) {
		return
	}
	log.Warn("using the embedded broker, which was written for tests: one copy, and a failing disk can lose "+
		"queued rows without an error; no settled row is lost, and importing the files again is safe", "setting", "--brokers",
		"see", "docs/kafka.md#the-embedded-broker")
}

func warnOfSkew(log *slog.Logger, s client.Stats) {
	if skew := s.ClockSkew; skew.Abs() > 5*time.Second {
		log.Warn("this machine's clock differs from the partner's; request signatures carry the time, so set it by NTP",
			"ahead", skew.Round(time.Second))
	}
}
