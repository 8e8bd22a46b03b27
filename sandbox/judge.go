package sandbox

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// Rule is the name of an invariant of the client that the judge checks.
type Rule string

// The invariants. Each holds whatever faults occurred.
const (
	// OneCustomer: no account and no externalId belongs to two customers, or was created twice.
	OneCustomer Rule = "one-customer"
	// OnePayload: an idempotency key is never sent with two payloads.
	OnePayload Rule = "one-payload"
	// OpenKey: no account is created under a new key while an older key of the account is open and not expired. A key is
	// open until a complete answer to it was sent that says what became of the request: a 2xx, 400, 403, 404, 409 or 422,
	// or a 5xx without Retry-After; not a 401, a 400 for the request's signature, a 409 for a key in flight, a redirect,
	// 429, or 503 with Retry-After.
	OpenKey Rule = "open-key"
	// BlindSignature: no signature is over a hostile challenge, or over a text that was not issued to that customer.
	BlindSignature Rule = "blind-signature"
	// SignedAnew: every attempt has a request signature of its own.
	SignedAnew Rule = "signed-anew"
	// RateKept: no more requests than the declared rate allows.
	RateKept Rule = "rate"
	// NoRedirect: no credentials, key or body are sent to the target of a redirect.
	NoRedirect Rule = "no-redirect"
	// RowSettled: every expected row is in a terminal stage that agrees with the partner.
	RowSettled Rule = "row-settled"
	// NobodyElse: no customer exists without an expected row.
	NobodyElse Rule = "nobody-else"
)

// Tolerance is the judge's allowance above the declared rate. In any window of one or of ten seconds rate × (window +
// Jitter) + Burst requests, rounded up, may arrive: a bucket allows a burst, and the network may delay requests so that
// they arrive together. Arrivals are measured by Config.Now.
type Tolerance struct {
	Burst  int           // 0: a tenth of a second's requests, at least 2
	Jitter time.Duration // 0: 250ms
}

// evidence is the input of the judge.
type evidence struct {
	Seed      uint64
	Entries   []Entry // in the order of arrival
	Dropped   uint64  // older entries that the history no longer has
	Customers []Customer
	Leaks     []leak
	KeyTTL    time.Duration
	Rate      float64 // the client's declared requests a second; 0: not judged
	Tolerance Tolerance
	Expected  []Expected // nil: rows are not judged
}

// Violation is a broken invariant.
type Violation struct {
	Rule    Rule     `json:"rule"`
	Subject string   `json:"subject,omitempty"` // account, key, customer or row
	Seqs    []uint64 `json:"seqs,omitempty"`    // requests that prove it
	Detail  string   `json:"detail"`
}

// Verdict is the judge's result.
type Verdict struct {
	Seed       uint64      `json:"seed"` // repeats the run
	Requests   int         `json:"requests"`
	Customers  int         `json:"customers"`
	Rows       int         `json:"rows"`
	Complete   bool        `json:"complete"`   // false: the history is incomplete, and so may be the violations
	Violations []Violation `json:"violations"` // never null; at most a thousand of each rule
}

// judge returns the broken invariants. It depends on its argument alone.
func judge(e evidence) Verdict {
	v := Verdict{
		Seed: e.Seed, Requests: len(e.Entries), Customers: len(e.Customers), Rows: len(e.Expected),
		Complete: e.Dropped == 0, Violations: []Violation{},
	}
	for _, look := range []func(evidence) []Violation{
		oneCustomer, onePayload, openKeys, blindSignatures, signedAnew, rateKept, noRedirect, rowsSettled,
	} {
		perRule := make(map[Rule]int)
		for _, found := range look(e) {
			if perRule[found.Rule]++; perRule[found.Rule] <= 1000 {
				v.Violations = append(v.Violations, found)
			}
		}
	}
	return v
}

// Judge checks the invariants, the rate by Config.DeclaredRate. With a nil expected the rows are not judged.
func (s *Server) Judge(expected []Expected) Verdict {
	return s.judge(expected, s.cfg.DeclaredRate)
}

func (s *Server) judge(expected []Expected, rate float64) Verdict {
	st := s.state.Load()
	entries, dropped := st.history.entries()
	return judge(evidence{
		Seed: s.cfg.Seed, Entries: entries, Dropped: dropped, Customers: s.Customers(), Leaks: st.leaks.all(),
		KeyTTL: s.cfg.KeyTTL, Rate: rate, Tolerance: s.cfg.Tolerance, Expected: expected,
	})
}

func oneCustomer(e evidence) (out []Violation) {
	accounts, externals := make(map[string]string), make(map[string]string)
	for _, c := range e.Customers {
		for _, by := range []struct {
			seen map[string]string
			name string
		}{{accounts, foldAccount(c.ChainID)}, {externals, c.ExternalID}} {
			if other, twice := by.seen[by.name]; twice {
				out = append(out, Violation{OneCustomer, by.name, nil, "belongs to customers " + other + " and " + c.ID})
			}
			by.seen[by.name] = c.ID
		}
	}
	made := make(map[string]uint64)
	for _, r := range e.Entries {
		if !r.Created {
			continue
		}
		if first, twice := made[r.Account]; twice {
			out = append(out, Violation{OneCustomer, r.Account, []uint64{first, r.Seq}, "was created twice"})
		}
		made[r.Account] = r.Seq
	}
	return out
}

func onePayload(e evidence) (out []Violation) {
	type use struct {
		payload string
		seq     uint64
	}
	first := make(map[string]use)
	for _, r := range e.Entries {
		if r.Key == "" || r.Cut { // the part of a body that a killed client sent is not a payload
			continue
		}
		now := use{r.Method + " " + r.Path + " " + r.Digest, r.Seq}
		if was, again := first[r.Key]; !again {
			first[r.Key] = now
		} else if was.payload != now.payload {
			out = append(out, Violation{OnePayload, r.Key, []uint64{was.seq, r.Seq}, "the key was used with another payload"})
		}
	}
	return out
}

// closes reports whether the response settles the request.
func (e Entry) closes() bool {
	if !e.Complete || e.BadSignature || e.InFlight || e.Throttled {
		return false
	}
	switch e.Status {
	case 400, 403, 404, 409, 422:
		return true
	}
	return e.Status/100 == 2 || e.Status/100 == 5
}

func openKeys(e evidence) (out []Violation) {
	type keyLife struct {
		key    string
		first  Entry
		closed uint64 // number of the event at which it was closed, 0: never
	}
	lives := make(map[string][]*keyLife) // by account, in the order of first use
	find := func(r Entry) *keyLife {
		for _, l := range lives[r.Account] {
			if l.key == r.Key {
				return l
			}
		}
		return nil
	}
	for _, r := range e.Entries {
		if r.Op != OpCreate || r.Key == "" || r.Account == "" {
			continue
		}
		l := find(r)
		if l == nil {
			l = &keyLife{key: r.Key, first: r}
			lives[r.Account] = append(lives[r.Account], l)
		}
		if r.closes() && (l.closed == 0 || r.Answered < l.closed) {
			l.closed = r.Answered
		}
	}
	for _, account := range slices.Sorted(maps.Keys(lives)) {
		of := lives[account]
		for i, later := range of {
			for _, older := range of[:i] {
				open := older.closed == 0 || older.closed > later.first.Seq
				age := later.first.Time.Sub(older.first.Time)
				if open && age < e.KeyTTL {
					out = append(out, Violation{OpenKey, account, []uint64{older.first.Seq, later.first.Seq},
						fmt.Sprintf("created under key %s while %s, %s old, was open", later.key, older.key, age)})
				}
			}
		}
	}
	return out
}

func blindSignatures(e evidence) (out []Violation) {
	for _, r := range e.Entries {
		switch r.Signed {
		case signedHostile:
			out = append(out, Violation{BlindSignature, r.CustomerID, []uint64{r.Seq}, "signed over " + string(r.HostileAs)})
		case signedOther:
			out = append(out, Violation{BlindSignature, r.CustomerID, []uint64{r.Seq},
				"signed a text that was never issued to that customer, or with another account's key"})
		}
	}
	return out
}

func signedAnew(e evidence) (out []Violation) {
	seen := make(map[string]uint64, len(e.Entries))
	for _, r := range e.Entries {
		if r.SigHash == "" {
			continue
		}
		if first, again := seen[r.SigHash]; again {
			out = append(out, Violation{SignedAnew, r.Subject, []uint64{first, r.Seq}, "two attempts carry the same signature"})
		}
		seen[r.SigHash] = r.Seq
	}
	return out
}

func rateKept(e evidence) (out []Violation) {
	if e.Rate <= 0 {
		return nil
	}
	more := e.Tolerance
	more.Burst = cmp.Or(more.Burst, max(2, int(e.Rate/10)))
	more.Jitter = cmp.Or(more.Jitter, 250*time.Millisecond)
	arrivals := slices.Clone(e.Entries) // the numbers of concurrent arrivals may differ from the order of their times
	slices.SortStableFunc(arrivals, func(a, b Entry) int { return int(a.Elapsed - b.Elapsed) })
	for _, window := range []time.Duration{time.Second, 10 * time.Second} {
		allowed := int(math.Ceil(e.Rate*(window+more.Jitter).Seconds())) + more.Burst
		worst, first, last := 0, 0, 0
		from := 0
		for to := range arrivals {
			for arrivals[to].Elapsed-arrivals[from].Elapsed >= window {
				from++
			}
			if n := to - from + 1; n > worst {
				worst, first, last = n, from, to
			}
		}
		if worst > allowed {
			out = append(out, Violation{RateKept, window.String(), []uint64{arrivals[first].Seq, arrivals[last].Seq},
				fmt.Sprintf("%d requests in %s, at most %d are allowed at %v a second", worst, window, allowed, e.Rate)})
		}
	}
	return out
}

func noRedirect(e evidence) (out []Violation) {
	for _, l := range e.Leaks {
		if len(l.Carried) > 0 {
			detail := fmt.Sprintf("%s followed a redirect with %v", l.Method, l.Carried)
			out = append(out, Violation{NoRedirect, l.Path, nil, detail})
		}
	}
	return out
}
