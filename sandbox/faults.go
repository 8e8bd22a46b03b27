package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/purser-onboard/purser/editdistance"
)

// Fault is the name of a fault, as in the flag, the control port and the history.
type Fault string

// Faults before the request is executed, or instead of it.
const (
	expiredToken Fault = "expired-token" // 401 for a valid token; never twice in a row for one subject
	throttle429  Fault = "throttle-429"  // 429 with Retry-After
	throttle503  Fault = "throttle-503"  // 503 with Retry-After
	dropBefore   Fault = "drop-before"   // the connection is closed, nothing was done
	htmlError    Fault = "html-error"    // 502 in HTML from a proxy, nothing was done
	redirect     Fault = "redirect"      // 302, 307 or 308 to a canary that records the request
	inFlight409  Fault = "in-flight-409" // "Idempotency-Key Concurrency Conflict", nothing was done
	unstored5xx  Fault = "unstored-5xx"  // 5xx, nothing was done, not stored under the key
)

// Faults of the execution of a request with an idempotency key.
const (
	stored5xx        Fault = "stored-5xx"         // 5xx, nothing was done, stored under the key
	stored5xxAfter   Fault = "stored-5xx-after"   // 5xx although it was done, stored under the key
	unstored5xxAfter Fault = "unstored-5xx-after" // 5xx although it was done, not stored
	refuseSignature  Fault = "refuse-signature"   // a valid wallet signature gets a 400, and there is a new challenge
	sign2xxUndone    Fault = "sign-2xx-undone"    // as sign-2xx, stored under the key, although nothing was done
	slow             Fault = "slow"               // SlowFor passes before it is answered, the key in flight
)

// Faults of the delivery of an answer.
const (
	dropAfter Fault = "drop-after" // it was done and stored, then the connection is closed
	truncated Fault = "truncated"  // the body ends before Content-Length
	malformed Fault = "malformed"  // a 2xx with an unusable body
	trickle   Fault = "trickle"    // the body comes byte by byte, Pause apart
)

// Faults of the form of a 2xx, as of an API that was changed or is not the documented one. Customers and stored answers
// do not change.
const (
	statusUnknown Fault = "status-unknown" // a customer, or each of a list, is shown in a status that is not documented
	statusCase    Fault = "status-case"    // a documented status in capitals, or with a capital
	sign2xx       Fault = "sign-2xx"       // a submission that was executed is answered 200, 201 or 202, body or not
	wrapped       Fault = "wrapped"        // a customer comes within "data" or "customer"
	renamed       Fault = "renamed"        // id, challenge or token comes under another name
	listPaged     Fault = "list-paged"     // the first half of the list, and an announcement of more
	listLink      Fault = "list-link"      // the list in up to three pages, joined by Link fields (RFC 8288)
	listNoList    Fault = "list-no-list"   // JSON that is not a list
)

// Hostile challenges, which a client must never sign.
const (
	challengeAddress   Fault = "challenge-address"   // another account's
	challengeDomain    Fault = "challenge-domain"    // for another domain
	challengeChain     Fault = "challenge-chain"     // for another chain
	challengeURI       Fault = "challenge-uri"       // for another site's URI
	challengeStale     Fault = "challenge-stale"     // issued longer ago than a challenge lives
	challengeNotSIWE   Fault = "challenge-not-siwe"  // not a sign-in message at all
	challengeHomograph Fault = "challenge-homograph" // a domain that looks right
	challengeTrailing  Fault = "challenge-trailing"  // a valid one with more text after it

	challengeStatement  Fault = "challenge-statement"  // one that states a transfer, or 7,000 bytes
	challengeURIQuery   Fault = "challenge-uri-query"  // the right URI with a query
	challengeExpiration Fault = "challenge-expiration" // one that never expires
	challengeNotBefore  Fault = "challenge-not-before" // in force only after it has expired
	challengeRequestID  Fault = "challenge-request-id" // with a request id
	challengeResources  Fault = "challenge-resources"  // with a resource
	challengeNonce      Fault = "challenge-nonce"      // with the nonce of one whose signature was accepted before
)

// Faults are the probability of each Fault, from 0 to 1, and their settings. Whether a fault occurs depends only on
// the seed, the fault, the operation, its subject (the account of a creation, the customer's id, the API key of a
// token) and the number of the attempt on that subject.
type Faults struct {
	ExpiredToken, Throttle429, Throttle503, DropBefore, HTMLError, Redirect, InFlight409, Unstored5xx float64
	Stored5xx, Stored5xxAfter, Unstored5xxAfter, RefuseSignature, Sign2xxUndone, Slow                 float64
	DropAfter, Truncated, Malformed, Trickle                                                          float64
	StatusUnknown, StatusCase, Sign2xx, Wrapped, Renamed, ListPaged, ListLink, ListNoList             float64

	ChallengeAddress, ChallengeDomain, ChallengeChain, ChallengeURI         float64
	ChallengeStale, ChallengeNotSIWE, ChallengeHomograph, ChallengeTrailing float64

	ChallengeStatement, ChallengeURIQuery, ChallengeExpiration, ChallengeNotBefore float64
	ChallengeRequestID, ChallengeResources, ChallengeNonce                         float64

	// Limit is how often a fault occurs for an operation on a subject; 0: no limit. With a limit every row can settle,
	// whatever the probabilities.
	Limit int
	// On restricts the faults to these operations; empty: token, create, list, read, challenge and sign. It may also
	// name put-credentials, put-signing and delete-signing. Hostile challenges are not restricted.
	On []Operation

	SlowFor    time.Duration // 0: 1s
	Pause      time.Duration // 0: 2ms
	RetryAfter time.Duration // of the throttling faults, in whole seconds; 0: 1s
}

// allFaults returns all faults in the order in which they are drawn: of faults that exclude each other the first
// occurs.
func allFaults() []Fault {
	return []Fault{
		expiredToken, throttle429, throttle503, dropBefore, htmlError, redirect, inFlight409, unstored5xx,
		stored5xx, stored5xxAfter, unstored5xxAfter, refuseSignature, sign2xxUndone, slow,
		dropAfter, truncated, malformed, statusUnknown, statusCase, sign2xx, wrapped, renamed,
		listPaged, listLink, listNoList, trickle,
		challengeAddress, challengeDomain, challengeChain, challengeURI,
		challengeStale, challengeNotSIWE, challengeHomograph, challengeTrailing,
		challengeStatement, challengeURIQuery, challengeExpiration, challengeNotBefore,
		challengeRequestID, challengeResources, challengeNonce,
	}
}

// probability returns the field of a fault, nil when there is no such fault.
func (f *Faults) probability(name Fault) *float64 {
	fields := []*float64{
		&f.ExpiredToken, &f.Throttle429, &f.Throttle503, &f.DropBefore, &f.HTMLError, &f.Redirect, &f.InFlight409,
		&f.Unstored5xx, &f.Stored5xx, &f.Stored5xxAfter, &f.Unstored5xxAfter, &f.RefuseSignature, &f.Sign2xxUndone, &f.Slow,
		&f.DropAfter, &f.Truncated, &f.Malformed, &f.StatusUnknown, &f.StatusCase, &f.Sign2xx, &f.Wrapped, &f.Renamed,
		&f.ListPaged, &f.ListLink, &f.ListNoList, &f.Trickle,
		&f.ChallengeAddress, &f.ChallengeDomain, &f.ChallengeChain, &f.ChallengeURI,
		&f.ChallengeStale, &f.ChallengeNotSIWE, &f.ChallengeHomograph, &f.ChallengeTrailing,
		&f.ChallengeStatement, &f.ChallengeURIQuery, &f.ChallengeExpiration, &f.ChallengeNotBefore,
		&f.ChallengeRequestID, &f.ChallengeResources, &f.ChallengeNonce,
	}
	if i := slices.Index(allFaults(), name); i >= 0 {
		return fields[i]
	}
	return nil
}

// ParseFaults parses the value of the flag, "drop-after=0.1,slow=0.05,limit=3,on=create+sign,slow-for=2s,pause=1ms,
// retry-after=1s". An empty value means no faults. An error quotes the part that is wrong.
func ParseFaults(text string) (Faults, error) {
	var f Faults
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		if !ok {
			return Faults{}, fmt.Errorf("fault %q: want name=probability", part)
		}
		if err := f.set(name, value); err != nil {
			return Faults{}, fmt.Errorf("fault %q: %w", part, err)
		}
	}
	if err := f.validate(); err != nil {
		return Faults{}, err
	}
	return f, nil
}

func (f *Faults) set(name, value string) (err error) {
	switch name {
	case "limit":
		f.Limit, err = strconv.Atoi(value)
	case "slow-for":
		f.SlowFor, err = time.ParseDuration(value)
	case "pause":
		f.Pause, err = time.ParseDuration(value)
	case "retry-after":
		f.RetryAfter, err = time.ParseDuration(value)
	case "on":
		for op := range strings.SplitSeq(value, "+") {
			f.On = append(f.On, Operation(op))
		}
	default:
		p := f.probability(Fault(name))
		if p == nil {
			return unknownFault(name)
		}
		*p, err = strconv.ParseFloat(value, 64)
	}
	return err
}

// unknownFault returns an error with the names of all faults and their settings, and which of them may have been meant.
func unknownFault(given string) error {
	known := []string{"limit", "on", "slow-for", "pause", "retry-after"}
	for _, name := range allFaults() {
		known = append(known, string(name))
	}
	distance := func(name string) int { return editdistance.Between(name, given) }
	meant := slices.MinFunc(known, func(a, b string) int { return distance(a) - distance(b) })
	problem := "unknown fault"
	if distance(meant) <= len(given)/2 {
		problem += ", did you mean " + meant + "?"
	}
	return fmt.Errorf("%s (want one of %s)", problem, strings.Join(known, ", "))
}

// validate returns an error for a probability below 0 or above 1, a negative limit or time, or an operation that has no
// faults.
func (f Faults) validate() error {
	for _, name := range allFaults() {
		if p := *f.probability(name); p < 0 || p > 1 || math.IsNaN(p) {
			return fmt.Errorf("fault %s: %v is not a probability from 0 to 1", name, p)
		}
	}
	if f.Limit < 0 || f.SlowFor < 0 || f.Pause < 0 || f.RetryAfter < 0 {
		return errors.New("limit, slow-for, pause and retry-after must not be negative")
	}
	for _, op := range f.On {
		if !op.faulty() && !op.setsUp() {
			return fmt.Errorf("on: operation %q has no faults", op)
		}
	}
	return nil
}

// String returns the form that ParseFaults reads, "" for no faults.
func (f Faults) String() string {
	var parts []string
	for _, name := range allFaults() {
		if p := *f.probability(name); p != 0 {
			parts = append(parts, string(name)+"="+strconv.FormatFloat(p, 'g', -1, 64))
		}
	}
	if f.Limit != 0 {
		parts = append(parts, "limit="+strconv.Itoa(f.Limit))
	}
	if len(f.On) > 0 {
		ops := make([]string, len(f.On))
		for i, op := range f.On {
			ops[i] = string(op)
		}
		parts = append(parts, "on="+strings.Join(ops, "+"))
	}
	for _, d := range []struct {
		name string
		d    time.Duration
	}{{"slow-for", f.SlowFor}, {"pause", f.Pause}, {"retry-after", f.RetryAfter}} {
		if d.d != 0 {
			parts = append(parts, d.name+"="+d.d.String())
		}
	}
	return strings.Join(parts, ",")
}

// MarshalJSON writes an object with the names of the flag,
// {"drop-after":0.1,"limit":3,"on":["create"],"slow-for":"2s"}.
func (f Faults) MarshalJSON() ([]byte, error) {
	out := make(map[string]any)
	for _, name := range allFaults() {
		if p := *f.probability(name); p != 0 {
			out[string(name)] = p
		}
	}
	if f.Limit != 0 {
		out["limit"] = f.Limit
	}
	if len(f.On) > 0 {
		out["on"] = f.On
	}
	for name, d := range map[string]time.Duration{"slow-for": f.SlowFor, "pause": f.Pause, "retry-after": f.RetryAfter} {
		if d != 0 {
			out[name] = d.String()
		}
	}
	return json.Marshal(out)
}

// UnmarshalJSON parses the output of MarshalJSON; faults that are not named are off. It fails as Validate does, and for
// unknown names.
func (f *Faults) UnmarshalJSON(data []byte) error {
	var in map[string]json.RawMessage
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	var next Faults
	for name, raw := range in {
		var err error
		var text string
		switch name {
		case "limit":
			err = json.Unmarshal(raw, &next.Limit)
		case "on":
			err = json.Unmarshal(raw, &next.On)
		case "slow-for", "pause", "retry-after":
			if err = json.Unmarshal(raw, &text); err == nil {
				err = next.set(name, text)
			}
		default:
			p := next.probability(Fault(name))
			if p == nil {
				return fmt.Errorf("fault %q: %w", name, unknownFault(name))
			}
			err = json.Unmarshal(raw, p)
		}
		if err != nil {
			return fmt.Errorf("fault %q: %w", name, err)
		}
	}
	if err := next.validate(); err != nil {
		return err
	}
	*f = next
	return nil
}
