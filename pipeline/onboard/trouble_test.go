package onboard

import (
	"errors"
	"testing"

	"github.com/purser-onboard/purser/client"
)

// TestTroubleIsToldOnce: failures that stand alone are not told of, many of them once, and once that it is over.
func TestTroubleIsToldOnce(t *testing.T) {
	b := newBreaker(0, false)
	var told []Trouble
	answer := func(n int, o Outcome) {
		for range n {
			b.noteAnswer(&Task{}, result{outcome: o, err: &client.Error{Op: "test", Kind: client.NoAnswer, Err: errors.New("connection reset")}}, func(t Trouble) { told = append(told, t) })
		}
	}
	for range 50 { // one in a hundred
		answer(99, Created)
		answer(1, Unknown)
	}
	if len(told) != 0 {
		t.Errorf("got %+v for isolated failures, want nothing", told)
	}
	for range 5 {
		answer(70, Created)
		answer(30, Unknown)
	}
	answer(300, Created)
	if len(told) != 2 || told[0].Over || told[0].Unusable != 30 || told[0].Of != 100 || !told[1].Over {
		t.Errorf("got %+v, want the trouble once, with its counts, and once its end", told)
	}
}
