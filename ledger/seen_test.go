package ledger

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"testing"
)

// TestSeenForgetsNothing: a record with an account that was there is known.
func TestSeenForgetsNothing(t *testing.T) {
	s := seen{seed: maphash.MakeSeed()}
	const records = 200_000
	for n := range records {
		s.any(&snapshot{ChainID: fmt.Sprint("a", n), ExternalID: fmt.Sprint(n)})
	}
	for n := range records {
		if !s.any(&snapshot{ChainID: fmt.Sprint("a", n), ExternalID: fmt.Sprint("new", n)}) {
			t.Fatalf("record %d: got a new account, want it known", n)
		}
	}
}

// TestSeenMistakesFew: so few that a fill of millions of different rows does not end before its last record.
func TestSeenMistakesFew(t *testing.T) {
	var s seen
	random := rand.New(rand.NewPCG(1, 2))
	const texts = 1_000_000
	mistaken := 0
	for range texts {
		if s.add(random.Uint64()) {
			mistaken++
		}
	}
	if mistaken > texts/4000 {
		t.Errorf("got %d of %d new texts taken for known ones, want at most one in 4,000", mistaken, texts)
	}
}
