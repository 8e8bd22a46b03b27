package client

import (
	"math"
	"testing"
	"time"

	"golang.org/x/time/rate"
	"pgregory.net/rapid"
)

// inForceSince is a rate in force, and since when.
type inForceSince struct {
	at   time.Time
	rate float64
}

// highest returns the highest rate that was in force between two moments.
func highest(changes []inForceSince, from, to time.Time) (most float64) {
	for i, c := range changes {
		if !c.at.After(to) && (i+1 == len(changes) || !changes[i+1].at.Before(from)) {
			most = max(most, c.rate)
		}
	}
	return most
}

// TestRateLimiterModel lets attempts pass by a clock of its own, with pauses, late timers, throttling and changes of
// the rate. Each attempt passes after few waits, and in no second more than the highest rate in force, rounded up, and one
// more of slots.
func TestRateLimiterModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 1, 1, 0, 0, 0, rapid.IntRange(0, 999_999_999).Draw(t, "begin"), time.UTC)
		rates := rapid.OneOf(rapid.Float64Range(0.2, 10), rapid.Float64Range(40, 60), rapid.Float64Range(60, 400))
		l := &RateLimiter{fraction: 1, changed: make(chan struct{}), bucket: rate.NewLimiter(0, 0)}
		l.configure(now, rates.Draw(t, "rate"))
		changes := []inForceSince{{now, l.inForce()}}
		var passed []time.Time
		slots := 0
		note := func() {
			if r := l.inForce(); r != changes[len(changes)-1].rate {
				changes = append(changes, inForceSince{now, r})
			}
		}
		attempt := func(late time.Duration) {
			for range 6 {
				wait, _, _ := l.try(now)
				note()
				switch {
				case wait == 0:
					passed = append(passed, now)
					return
				case wait == math.MaxInt64 && l.configured == 0:
					return
				case wait < 0 || wait == math.MaxInt64:
					t.Fatalf("got a wait of %v, want the next attempt's time at %v/s", wait, l.inForce())
				}
				now = now.Add(wait + late)
			}
			t.Fatalf("got no attempt after 6 waits, want one at %v/s", l.inForce())
		}
		milliseconds := func(t *rapid.T, most int) time.Duration {
			return time.Duration(rapid.IntRange(0, 1000*most).Draw(t, "microseconds")) * time.Microsecond
		}
		t.Repeat(map[string]func(*rapid.T){
			"attempts": func(t *rapid.T) {
				late := milliseconds(t, 1)
				for range rapid.IntRange(1, 300).Draw(t, "n") {
					attempt(late)
				}
			},
			"pause":     func(t *rapid.T) { now = now.Add(milliseconds(t, 1500)) },
			"throttled": func(t *rapid.T) { l.throttle(now, l.closings, milliseconds(t, 1500)) },
			"rate": func(t *rapid.T) {
				l.slotted = false
				l.configure(now, rates.Draw(t, "rate"))
			},
			"share": func(t *rapid.T) {
				slots = 1
				l.slotted, l.phase = true, rapid.Float64Range(0, 0.999).Draw(t, "phase")
				l.configure(now, rates.Draw(t, "rate"))
			},
			"none": func(*rapid.T) { l.configure(now, 0) },
			"": func(t *rapid.T) {
				note()
				first := 0
				for last, to := range passed {
					for to.Sub(passed[first]) >= time.Second {
						first++
					}
					most := int(math.Ceil(highest(changes, passed[first], to))) + slots
					if n := last - first + 1; n > most {
						t.Fatalf("got %d attempts within %v, want at most %d", n, to.Sub(passed[first]), most)
					}
				}
			},
		})
	})
}
