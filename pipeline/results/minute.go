package results

import "time"

// Minute is what a run did within a minute. The ledger keeps the minutes of a run, and the account of a night draws its
// throughput from them. The field names are a contract.
type Minute struct {
	At time.Time `json:"at"` // the minute's start, in UTC
	// Requests counts the requests to the partner by operation (create, submit, …) and by status: 2xx, 4xx, 409, 429,
	// 5xx, or error when there was no response. Counts of zero are absent.
	Requests map[string]map[string]int64 `json:"requests,omitempty"`
	// Settled counts the rows that reached a terminal stage, by stage. Counts of zero are absent.
	Settled           map[string]int64 `json:"settled,omitempty"`
	RateAllowed       float64          `json:"rateAllowed"` // requests per second that the rate limiter allowed, the mean
	RateUsed          float64          `json:"rateUsed"`    // requests per second that were sent, the mean
	Throttled         int64            `json:"throttled"`   // responses with 429, or with 503 and Retry-After
	Signatures        int64            `json:"signatures"`
	SignerErrors      int64            `json:"signerErrors"`
	OutageSeconds     float64          `json:"outageSeconds"`     // how long an outage was declared
	GateClosedSeconds float64          `json:"gateClosedSeconds"` // how long throttling held all requests back
}

// Latency is the distribution of an operation's durations in a run, estimated from the buckets of a histogram. The
// field names are a contract.
type Latency struct {
	// Operation is that of the requests to the partner (create, submit, …), or sign for the signer.
	Operation string  `json:"operation"`
	Count     int64   `json:"count"`
	P50       float64 `json:"p50"` // seconds: half of the durations were at most this long
	P95       float64 `json:"p95"`
	P99       float64 `json:"p99"`
}

// StageTime is the distribution of the time that rows spent in a stage before the next, estimated like a Latency. The
// field names are a contract.
type StageTime struct {
	Stage string  `json:"stage"` // planned, creating, …
	Count int64   `json:"count"`
	P50   float64 `json:"p50"` // seconds
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
}
