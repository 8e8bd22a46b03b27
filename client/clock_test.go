package client

import (
	"net/http"
	"testing"
	"time"
)

// dated is the header of an answer that was written at this time.
func dated(at time.Time) http.Header {
	return http.Header{"Date": {at.UTC().Format(http.TimeFormat)}}
}

// TestCreatedIsNeverAhead goes through clocks and delays: whatever they are, a signature must not be created in the
// partner's future, nor long in its past.
func TestCreatedIsNeverAhead(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, ahead := range []time.Duration{0, 700 * time.Millisecond, -700 * time.Millisecond, time.Hour, -26 * time.Hour} {
		for _, took := range []time.Duration{0, 300 * time.Millisecond, 20 * time.Second} {
			for _, fraction := range []time.Duration{0, 400 * time.Millisecond, 999 * time.Millisecond} {
				partner := start.Add(fraction)
				local := func() time.Time { return partner.Add(ahead) }
				c := NewClock(local, createdMargin)
				sent := local()
				partner = partner.Add(took)
				c.see(dated(partner), sent, local())
				partner = partner.Add(90 * time.Minute)
				if got, age := c.Created(), partner.Sub(c.Created()); age < createdMargin || age > createdMargin+time.Second {
					t.Errorf("ahead %v, took %v, fraction %v: got created %v at %v, an age of %v, want %v to %v",
						ahead, took, fraction, got, partner, age, createdMargin, createdMargin+time.Second)
				}
			}
		}
	}
}

func TestCreatedWithoutDate(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := NewClock(func() time.Time { return now }, createdMargin)
	c.see(http.Header{}, now, now)
	c.see(http.Header{"Date": {"yesterday"}}, now, now)
	cached := dated(now.Add(-time.Hour))
	cached.Set("Age", "3600")
	c.see(cached, now, now)
	if got, want := c.Created(), now.Add(-createdMargin); !got.Equal(want) {
		t.Errorf("got created %v, want %v", got, want)
	}
}

// TestClockThatWasSet: an answer that contradicts what was known replaces it, and a restart forgets even what does not.
func TestClockThatWasSet(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := NewClock(func() time.Time { return now }, createdMargin)
	c.see(dated(now), now, now)
	c.see(dated(now.Add(-time.Hour)), now, now)
	if got, want := c.Created(), now.Add(-time.Hour-createdMargin); !got.Equal(want) {
		t.Errorf("after the partner's clock went back: got created %v, want %v", got, want)
	}
	c.see(dated(now), now, now)
	slow := now.Add(-10 * time.Second)
	c.restart(dated(slow), slow, now)
	if got, want := c.Created(), slow.Add(-createdMargin); !got.Equal(want) {
		t.Errorf("after a restart: got created %v, want %v", got, want)
	}
	c.restart(http.Header{}, now, now)
	if got, want := c.Created(), slow.Add(-createdMargin); !got.Equal(want) {
		t.Errorf("after an answer without Date: got created %v, want %v", got, want)
	}
}
