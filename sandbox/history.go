package sandbox

import (
	"encoding/json"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Entry is a request in the history. It contains no secret and no token.
//
// Seq and Answered number the same sequence of events: if an answer's number is smaller than a request's Seq, it was
// sent before that request arrived.
type Entry struct {
	Seq      uint64        `json:"seq"`
	Time     time.Time     `json:"time"`              // arrival, by the sandbox's clock
	Elapsed  time.Duration `json:"elapsed"`           // arrival, nanoseconds since the start on the unshifted clock
	Method   string        `json:"method"`            //
	Path     string        `json:"path"`              // escaped, at most 200 bytes
	Op       Operation     `json:"operation"`         // empty: no such endpoint
	APIKey   string        `json:"apiKey,omitempty"`  // of a token issued here, also of an expired one
	KeyID    string        `json:"keyId,omitempty"`   // of a signature that verified
	Key      string        `json:"key,omitempty"`     // the Idempotency-Key as it was sent
	Digest   string        `json:"digest,omitempty"`  // SHA-256 of the body in hex, empty without a body
	SigHash  string        `json:"sigHash,omitempty"` // SHA-256 of Signature-Input and Signature, shortened
	Subject  string        `json:"subject,omitempty"` // what the attempt is counted by; empty: refused before
	Attempt  int           `json:"attempt,omitempty"` // on the subject, from 1
	Replayed bool          `json:"replayed,omitempty"`
	Cut      bool          `json:"cut,omitempty"` // the body ended before its length: the client was gone

	Account    string `json:"account,omitempty"`    // of a creation: the chainId in lower case
	ExternalID string `json:"externalId,omitempty"` // of a creation
	CustomerID string `json:"customerId,omitempty"` // from the path, or of the customer that was created
	Created    bool   `json:"created,omitempty"`    // this request created the customer, whatever the answer

	// Signed is what a submitted wallet signature is over; empty when there is no signature or no such customer.
	Signed Signed `json:"signed,omitempty"`
	// HostileAs is the fault behind the challenge when Signed is signedHostile.
	HostileAs Fault `json:"hostileAs,omitempty"`

	Faults       []Fault `json:"faults,omitempty"`       // that occurred
	Outcome      int     `json:"outcome,omitempty"`      // the status before faults of the delivery
	Status       int     `json:"status,omitempty"`       // the status that was sent; 0: none
	Reason       string  `json:"reason,omitempty"`       // of a refusal
	BadSignature bool    `json:"badSignature,omitempty"` // refused because of the request's signature
	InFlight     bool    `json:"inFlight,omitempty"`     // answered 409: another request with the key was in progress
	Throttled    bool    `json:"throttled,omitempty"`    // answered with Retry-After
	Answered     uint64  `json:"answered,omitempty"`     // number of the event of sending the answer; 0: none yet
	Complete     bool    `json:"complete,omitempty"`     // a usable answer was written to the connection completely
}

// Signed is what a submitted signature is over.
type Signed string

// What a submitted signature can be over.
const (
	signedOwn     Signed = "own"     // an honest challenge issued to that customer, by its account
	signedHostile Signed = "hostile" // a hostile challenge issued to that customer, by its account
	signedOther   Signed = "other"   // nothing that was ever issued to that customer, or not by its account
)

func (e *Entry) note(f Fault) {
	if !slices.Contains(e.Faults, f) {
		e.Faults = append(e.Faults, f)
	}
}

// history keeps the latest requests. An entry is replaced, never changed, so that a reader holds the lock only while it
// copies the pointers.
type history struct {
	events atomic.Uint64

	mu      sync.Mutex
	limit   int
	ring    []*record
	oldest  int // index of the oldest when the ring is full
	dropped uint64
	stats   Stats

	logMu sync.Mutex
	log   io.Writer
	logEr error
}

type record struct{ entry atomic.Pointer[Entry] }

// Stats are counts since the start or the last reset.
type Stats struct {
	Requests  uint64               `json:"requests"`
	Complete  uint64               `json:"complete"`
	Created   uint64               `json:"created"`
	ByOp      map[Operation]uint64 `json:"byOperation"`
	ByStatus  map[int]uint64       `json:"byStatus"` // 0: the connection was closed
	ByFault   map[Fault]uint64     `json:"byFault"`
	Dropped   uint64               `json:"dropped"`   // requests that the history no longer has
	Customers int                  `json:"customers"` //
	Log       string               `json:"log,omitempty"`
}

func (h *history) init(limit int, log io.Writer) {
	h.limit, h.log = limit, log
	h.stats = Stats{ByOp: map[Operation]uint64{}, ByStatus: map[int]uint64{}, ByFault: map[Fault]uint64{}}
}

// arrive numbers the request and adds it to the history as unanswered.
func (h *history) arrive(e *Entry) *record {
	r := &record{}
	h.mu.Lock()
	defer h.mu.Unlock()
	e.Seq = h.events.Add(1)
	first := *e
	r.entry.Store(&first)
	h.stats.Requests++
	if len(h.ring) < h.limit {
		h.ring = append(h.ring, r)
		return r
	}
	h.ring[h.oldest] = r
	h.oldest = (h.oldest + 1) % h.limit
	h.dropped++
	return r
}

// finish replaces the entry of a request. It is called before the answer is sent, so that a client that has the answer
// finds it in the history, and again if it could not be sent.
func (h *history) finish(r *record, e Entry, again bool) {
	e.Faults = slices.Clone(e.Faults)
	r.entry.Store(&e)
	if !again {
		h.count(e)
	}
	if h.log == nil {
		return
	}
	line, err := json.Marshal(e)
	if err != nil {
		panic("sandbox: " + err.Error()) // a type of this package, which cannot fail
	}
	h.logMu.Lock()
	defer h.logMu.Unlock()
	if _, err := h.log.Write(append(line, '\n')); err != nil && h.logEr == nil {
		h.logEr = err
	}
}

func (h *history) count(e Entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stats.ByOp[e.Op]++
	h.stats.ByStatus[e.Status]++
	for _, f := range e.Faults {
		h.stats.ByFault[f]++
	}
	if e.Complete {
		h.stats.Complete++
	}
	if e.Created {
		h.stats.Created++
	}
}

// records returns the requests that are kept, in the order of arrival, and how many older ones were dropped.
func (h *history) records() ([]*record, uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]*record, 0, len(h.ring))
	out = append(out, h.ring[h.oldest:]...)
	return append(out, h.ring[:h.oldest]...), h.dropped
}

func (h *history) entries() ([]Entry, uint64) {
	records, dropped := h.records()
	out := make([]Entry, len(records))
	for i, r := range records {
		out[i] = *r.entry.Load()
	}
	return out, dropped
}

// History returns the requests that are kept, in the order of arrival; those not answered yet have Answered 0.
func (s *Server) History() []Entry {
	entries, _ := s.state.Load().history.entries()
	return entries
}

// Stats returns the counts since the start or the last reset.
func (s *Server) Stats() Stats {
	st := s.state.Load()
	h := &st.history
	h.mu.Lock()
	out := h.stats
	out.ByOp, out.ByStatus, out.ByFault = maps.Clone(out.ByOp), maps.Clone(out.ByStatus), maps.Clone(out.ByFault)
	out.Dropped = h.dropped
	h.mu.Unlock()
	h.logMu.Lock()
	if h.logEr != nil {
		out.Log = "history log: " + h.logEr.Error()
	}
	h.logMu.Unlock()
	out.Customers = len(st.customers.all())
	return out
}
