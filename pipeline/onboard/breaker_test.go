package onboard

import (
	"errors"
	"testing"

	"github.com/purser-onboard/purser/client"
)

// TestTroubleIsReportedOnce: isolated failures are not reported. Many are reported once, and once when they are over.
func TestTroubleIsReportedOnce(t *testing.T) {
	b := newBreaker(0, false)
	var reported []Trouble
	reset := &client.Error{Op: "test", Kind: client.NoAnswer, Err: errors.New("connection reset")}
	answer := func(n int, o outcome) {
		for range n {
			b.noteAnswer(&Task{}, result{outcome: o, err: reset}, func(t Trouble) { reported = append(reported, t) })
		}
	}
	for range 50 { // 1 in 100
		answer(99, created)
		answer(1, unknown)
	}
	if len(reported) != 0 {
		t.Errorf("got %+v for isolated failures, want nothing", reported)
	}
	for range 5 {
		answer(70, created)
		answer(30, unknown)
	}
	answer(300, created)
	if len(reported) != 2 || reported[0].Over || reported[0].Unusable != 30 || reported[0].Of != 100 || !reported[1].Over {
		t.Errorf("got %+v, want the trouble with 30 of 100, and its end", reported)
	}
}
