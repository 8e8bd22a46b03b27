package metrics

import (
	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
)

// Now is a run at one moment.
type Now struct {
	Tally    pipeline.Tally
	Client   client.Stats
	Limiter  client.RateLimiterState
	Assigned bool  // the run has partitions
	Left     int64 // messages in its partitions that are not settled
	Outage   bool  // the partner is unavailable and only probed
}

// Now returns the run as it is. It is the zero Now before Watch.
func (m *Metrics) Now() Now {
	r := m.read()
	now := Now{
		Tally: r.tally, Client: r.client, Limiter: r.limiter, Assigned: len(r.positions) > 0, Outage: r.outage,
	}
	for _, p := range r.positions {
		now.Left += p.Left
	}
	return now
}
