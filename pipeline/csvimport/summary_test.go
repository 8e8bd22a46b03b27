package csvimport

import (
	"fmt"
	"slices"
	"testing"

	"github.com/purser-onboard/purser/pipeline"
)

// TestCountReasons: rejects are counted by field and by what their reasons have in common, and in bounded memory.
func TestCountReasons(t *testing.T) {
	var s Summary
	for _, r := range []Reject{
		{Field: "address", Reason: "address has 39 hex digits, want 40"},
		{Field: "address", Reason: "address fails its EIP-55 checksum: a character was mistyped"},
		{Field: "address", Reason: "address has 41 hex digits, want 40"},
		{Field: "address", Reason: "address does not begin with 0x"},
		{Field: "chainId", Reason: `chainId "eip155:\"1" contradicts the address, which names chain 300`},
		{Field: "record", Reason: "a quoted field is not closed (lines 7-9)"},
		{Field: "externalId", Reason: "externalId has the unprintable character U+200B at byte 3"},
		{Field: "address", Reason: "address has 64 hex digits, want 40"},
		{Field: "chainId", Reason: "not a CAIP-2 chain id (want eip155:<chain>)"},
	} {
		s.Add(&r)
	}
	want := []pipeline.InvalidReason{
		{Field: "address", Reason: "address has N hex digits, want 40", Rows: 3},
		{Field: "address", Reason: "address does not begin with 0x", Rows: 1},
		{Field: "address", Reason: "address fails its EIP-55 checksum: a character was mistyped", Rows: 1},
		{Field: "chainId", Reason: "chainId … contradicts the address, which names chain N", Rows: 1},
		{Field: "chainId", Reason: "not a CAIP-2 chain id (want eip155:<chain>)", Rows: 1},
		{Field: "externalId", Reason: "externalId has the unprintable character U+200B at byte N", Rows: 1},
		{Field: "record", Reason: "a quoted field is not closed", Rows: 1},
	}
	if got := s.Reasons(); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	s = Summary{}
	for i := range 3 * mostReasons {
		s.Add(&Reject{Field: "record", Reason: "reason " + string(rune('a'+i%26)) + string(rune('a'+i/26))})
	}
	got := s.Reasons()
	if other := fmt.Sprint(got[0]); len(got) != mostReasons+1 || other != "{record other reasons 200}" {
		t.Errorf("got %d reasons, the first %s; want %d and 200 other reasons", len(got), other, mostReasons+1)
	}
}
