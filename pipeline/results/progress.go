package results

import "time"

// Progress is how far a run has come, as it records it every 5 seconds if something has changed.
type Progress struct {
	At    time.Time `json:"at"`
	Doing Doing     `json:"doing"`
	// Settled counts the messages that are settled, and Left those in the queue that are not; Left is absent while the
	// run has no partitions.
	Settled int64  `json:"settled"`
	Left    *int64 `json:"left,omitempty"`
	// Rows are the counts so far; Received counts those under way, too.
	Rows      ReportRows `json:"rows"`
	Throttled int64      `json:"throttled"` // requests
	// Rates are per second, over the latest 10 seconds. AllowedRate is below Rate while the partner throttles.
	RequestRate float64 `json:"requestRate"`
	RowRate     float64 `json:"rowRate"`
	AllowedRate float64 `json:"allowedRate"`
	Rate        float64 `json:"rate"` // --rate, or this consumer's share of it
	// SecondsLeft is how long the rest takes at RowRate; absent if that cannot be said.
	SecondsLeft float64 `json:"secondsLeft,omitempty"`
	// Throttle is for how many more seconds no request is sent, because the partner said so.
	Throttle float64 `json:"throttleSeconds,omitempty"`
}

// Doing is what a run does or waits for.
type Doing string

// What a run does.
const (
	Working              Doing = "working"
	WaitingForPartitions Doing = "waiting for partitions"
	WaitingForRows       Doing = "waiting for rows"
	ThrottledBy          Doing = "throttled" // by the partner, for Throttle
	InOutage             Doing = "outage"    // the partner is unavailable, and only probed
	Stopping             Doing = "stopping"
)
