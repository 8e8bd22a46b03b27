package onboard

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
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

// TestSignerThrottlesAtOneStep: keys that the signer has had in between end its throttling of such questions, and say
// nothing of its signatures.
func TestSignerThrottlesAtOneStep(t *testing.T) {
	for stage, want := range map[pipeline.Stage]bool{pipeline.Planned: false, pipeline.Signing: true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBreaker(0, false)
			task := &Task{Record: pipeline.Record{Stage: stage}}
			for range 3 {
				b.take(task, result{outcome: throttled, err: errors.New("slow down")})
				time.Sleep(throttleLimit * 3 / 4)
				b.prove(stepKey)
			}
			if got := b.signerThrottledOut(); got != want {
				t.Errorf("throttled in %s: got %t, want %t", stage, got, want)
			}
		})
	}
}

// TestSignerThrottlesForLongerThanTheLimit: a row that waits longer than throttleLimit between two attempts shows that
// the signer throttles on; another row, that nothing was asked of the signer in between.
func TestSignerThrottlesForLongerThanTheLimit(t *testing.T) {
	for delays, want := range map[int]bool{1: false, 2: true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBreaker(0, false)
			throttles := result{outcome: throttled, err: errors.New("slow down")}
			b.take(&Task{Record: pipeline.Record{Stage: pipeline.Signing}, delays: 1}, throttles)
			time.Sleep(throttleLimit * 2)
			b.take(&Task{Record: pipeline.Record{Stage: pipeline.Signing}, delays: delays}, throttles)
			if got := b.signerThrottledOut(); got != want {
				t.Errorf("throttled %d times: got %t, want %t", delays, got, want)
			}
		})
	}
}
