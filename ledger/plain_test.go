package ledger

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/purser-onboard/purser/pipeline"
)

// drawSnapshot is a record with any texts, numbers and times, valid or not.
func drawSnapshot(t *rapid.T) *snapshot {
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "a", "<&>\u2028\"\\/\b\f\n\r\t\x00\x7f", "ü€𝄞"}))
	number := rapid.OneOf(rapid.Int64Range(-1, 12), rapid.Int64())
	moment := rapid.Custom(func(t *rapid.T) stamp {
		return stamp{time.UnixMicro(rapid.Int64Range(0, 4e15).Draw(t, "micros")).UTC()}
	})
	optional := rapid.Custom(func(t *rapid.T) *stamp {
		at := moment.Draw(t, "at")
		return rapid.SampledFrom([]*stamp{nil, &at}).Draw(t, "moment")
	})
	digest := rapid.Custom(func(t *rapid.T) (d hexDigest) {
		copy(d[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest"))
		return d
	})
	s := &snapshot{
		V: int(number.Draw(t, "v")), Version: number.Draw(t, "version"), HasClaims: rapid.Bool().Draw(t, "claims"),
		ChallengeAt: optional.Draw(t, "challengeAt"), Refusals: int(number.Draw(t, "refusals")),
		Attempts: int(number.Draw(t, "attempts")), Already: rapid.Bool().Draw(t, "already"),
		Unpublished: rapid.Bool().Draw(t, "unpublished"), Line: int(number.Draw(t, "line")),
		Imports: rapid.SliceOfN(text, 0, 2).Draw(t, "imports"), Nonces: rapid.SliceOfN(digest, 0, 2).Draw(t, "nonces"),
		AcceptedAt: moment.Draw(t, "acceptedAt"), UpdatedAt: moment.Draw(t, "updatedAt"),
	}
	for _, into := range []*string{&s.APIHost, &s.APIKeyID, &s.APIPath, &s.ChainID, &s.ExternalID, &s.Stage, &s.Class,
		&s.Reason, &s.CustomerID, &s.Status, &s.Challenge, &s.TxID, &s.Signature, &s.ImportID, &s.File} {
		*into = text.Draw(t, "text")
	}
	for _, into := range []**int{&s.CreateGeneration, &s.SubmitGeneration} {
		if n := int(number.Draw(t, "generation")); n > 0 {
			*into = &n
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "keys") {
		s.Keys = append(s.Keys, snapshotKey{
			Operation: pipeline.Operation(text.Draw(t, "operation")), Generation: int(number.Draw(t, "generation")),
			ID: uuid.NewSHA1(uuid.Nil, []byte(text.Draw(t, "id"))), Digest: digest.Draw(t, "digest"),
			FirstSent: optional.Draw(t, "firstSent"), LastSent: optional.Draw(t, "lastSent"),
			Outcome: pipeline.KeyState(text.Draw(t, "outcome")),
		})
	}
	for range rapid.IntRange(0, 2).Draw(t, "keyrings") {
		s.Earlier = append(s.Earlier, snapshotKeyring{text.Draw(t, "host"), text.Draw(t, "key")})
	}
	return s
}

// TestPlainRecords: what this program writes is read without package json, except numbers of 19 digits, and with the
// same result.
func TestPlainRecords(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		value, err := json.Marshal(drawSnapshot(rt))
		if err != nil {
			rt.Fatal(err)
		}
		wantAsJSON(rt, value, !hasLongNumber(value))
	})
	for n := range 3 {
		wantAsJSON(t, goodSnapshot(n).message(t).Value, true)
	}
}

func hasLongNumber(value []byte) bool {
	digits := 0
	for _, c := range value {
		if digits++; c < '0' || c > '9' {
			digits = 0
		}
		if digits == 19 {
			return true
		}
	}
	return false
}

// wantAsJSON checks that readPlain reads a record as package json does, or not at all; plain: it must.
func wantAsJSON(t interface {
	Errorf(format string, args ...any)
}, value []byte, plain bool) {
	got, ok := readPlain(value)
	if plain && !ok {
		t.Errorf("got %s not read as a plain record, want it read", value)
	}
	if !ok {
		return
	}
	if want, err := readJSON(value); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %+v, want as package json reads it, %+v, %v", value, got, want, err)
	}
}

// TestOtherSpellings: each change of a record is read as package json reads it. Most are left to it.
func TestOtherSpellings(t *testing.T) {
	value := string(goodSnapshot(1).message(t).Value)
	for _, change := range [][2]string{
		{`{`, `{ `},
		{`}`, `} `},
		{`"v":2`, `"v":2,"v":3`},
		{`"v":2`, `"v":2.0`},
		{`"v":2`, `"v":02`},
		{`"v":2`, `"v":-0`},
		{`"v":2`, `"v":1234567890123456789`},
		{`"v":2`, `"v":null`},
		{`"v":2`, `"V":2`},
		{`"v":2,`, ``},
		{`"version":5`, `"version":-`},
		{`"claims":true`, `"claims":null`},
		{`"claims":true`, `"claims":1`},
		{`"claims":true`, `"claims":true,"customerId":null`},
		{`sign\nthis`, `sign\u000athis`},
		{`sign\nthis`, `sign\ud834\udd1ethis`},
		{`sign\nthis`, `sign\ud834this`},
		{`sign\nthis`, `sign\xthis`},
		{`sign\nthis`, `sign\u00`},
		{`sign\nthis`, "sign\nthis"},
		{`sign\nthis`, "sign\xffthis"},
		{`sign\nthis`, `sign\`},
		{`2026-`, `2026\u002d`},
		{`2026-`, `20026-`},
		{`T22:00:00Z`, `T22:00:00+02:00`},
		{`T22:00:00Z`, `T22:00:00.123456789Z`},
		{`T22:00:00Z`, `T22:00:00,5Z`},
		{`T22:00:00Z`, `T24:00:00Z`},
		{`"keys":[`, `"keys":[null,`},
		{`"id":"`, `"id":"urn:uuid:`},
		{`"id":"`, `"id":"{`},
		{`"digest":"`, `"digest":"\u0030`},
		{`"digest":"`, `"digest":"0`},
		{`"acceptedAt"`, `"nonces":[],"acceptedAt"`},
		{`"acceptedAt"`, `"earlierImports":["a"],"acceptedAt"`},
		{`"acceptedAt"`, `"unknown":1,"acceptedAt"`},
	} {
		other := strings.Replace(value, change[0], change[1], 1)
		if other == value {
			t.Errorf("%s is not in the record", change[0])
		}
		wantAsJSON(t, []byte(other), false)
	}
	for n := range value {
		wantAsJSON(t, []byte(value[:n]), false)
	}
}
