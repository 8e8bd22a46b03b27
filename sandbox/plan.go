package sandbox

import (
	"cmp"
	"slices"
	"strconv"
	"time"
)

// faultTable is Faults prepared for drawing.
type faultTable struct {
	Faults
	early, execution, delivery, hostile []chanceOf
}

type chanceOf struct {
	fault Fault
	p     float64
}

func (f Faults) table() *faultTable {
	f.SlowFor = cmp.Or(f.SlowFor, time.Second)
	f.Pause = cmp.Or(f.Pause, 2*time.Millisecond)
	f.RetryAfter = cmp.Or(f.RetryAfter, time.Second)
	t := &faultTable{Faults: f}
	for i, name := range allFaults() {
		p := *f.probability(name)
		if p == 0 {
			continue
		}
		switch c := (chanceOf{name, p}); {
		case i < slices.Index(allFaults(), stored5xx):
			t.early = append(t.early, c)
		case i < slices.Index(allFaults(), dropAfter):
			t.execution = append(t.execution, c)
		case i < slices.Index(allFaults(), challengeAddress):
			t.delivery = append(t.delivery, c)
		default:
			t.hostile = append(t.hostile, c)
		}
	}
	return t
}

// plan has the faults drawn for a request. A drawn fault counts against the limit when it is used.
type plan struct {
	table     *faultTable
	execution []Fault // of which slow can occur with any other
	delivery  []Fault
}

// faulty reports whether the operation has faults when Faults.On is empty. The simulator and the requests about
// credentials have none.
func (op Operation) faulty() bool {
	switch op {
	case OpToken, OpCreate, OpList, OpRead, OpChallenge, OpSign:
		return true
	}
	return false
}

// drawEarly makes the plan of this attempt and returns the early fault that occurs, "" for none.
func (x *exchange) drawEarly() Fault {
	t := x.s.faults.Load()
	if len(t.On) == 0 && !x.op.faulty() || len(t.On) > 0 && !slices.Contains(t.On, x.op) {
		x.plan.table = x.s.calm
		return ""
	}
	x.plan.table = t
	for _, c := range t.early {
		switch {
		case c.fault == expiredToken && x.op == OpToken, c.fault == inFlight409 && !x.op.keyed():
			continue
		case c.fault == expiredToken && x.drawn(c, x.attempt-1):
			continue // a second 401 would look like a wrong set-up (docs/rules.md, "A wrong set-up halts the run")
		}
		if x.drawn(c, x.attempt) && x.plan.use(x, c.fault) {
			return c.fault
		}
	}
	for _, c := range t.execution {
		if x.drawn(c, x.attempt) {
			x.plan.execution = append(x.plan.execution, c.fault)
		}
	}
	for _, c := range t.delivery {
		if x.drawn(c, x.attempt) {
			x.plan.delivery = append(x.plan.delivery, c.fault)
		}
	}
	return ""
}

func (x *exchange) drawn(c chanceOf, attempt int) bool {
	if attempt < 1 {
		return false
	}
	return x.s.seed.chance("fault", string(c.fault), string(x.op), x.subject, strconv.Itoa(attempt)) < c.p
}

// use reports whether the fault was drawn and may occur once more, and if so notes that it did.
func (p *plan) use(x *exchange, f Fault) bool {
	early := slices.ContainsFunc(p.table.early, func(c chanceOf) bool { return c.fault == f })
	if !early && !slices.Contains(p.execution, f) && !slices.Contains(p.delivery, f) {
		return false
	}
	if p.table.Limit > 0 && !x.st.attempts.take(p.table.Limit, "struck", string(f), string(x.op), x.subject) {
		return false
	}
	x.entry.note(f)
	return true
}

// useOne uses the first of several faults that may occur, and returns it, or "".
func (p *plan) useOne(x *exchange, faults ...Fault) Fault {
	for _, f := range faults {
		if p.use(x, f) {
			return f
		}
	}
	return ""
}

// early returns the answer of an early fault.
func (x *exchange) early(f Fault) reply {
	t := x.plan.table
	coin := x.s.seed.pick(60, "coin", string(f), string(x.op), x.subject, strconv.Itoa(x.attempt))
	switch f {
	case expiredToken:
		return x.render(unauthorized("token expired"))
	case throttle429, throttle503:
		status := 429
		if f == throttle503 {
			status = 503
		}
		r := x.render(refuse(status, "throttled", "too many requests"))
		r.retryAfter = retryAfter(x.s.now(), t.RetryAfter, coin%2 == 1)
		return r
	case dropBefore:
		return reply{cut: true}
	case htmlError:
		return refuse(502, "bad_gateway", "upstream connect error").in(ShapeHTML)
	case redirect:
		return reply{status: []int{302, 307, 308}[coin%3], location: x.s.canaryURL(x.entry.Seq)}
	case inFlight409:
		return x.render(x.concurrency())
	}
	return x.render(x.serverError(coin))
}

func (x *exchange) concurrency() *refusal {
	f := refuse(409, "idempotency_key_in_flight", "another request with this Idempotency-Key is being processed")
	f.inFlight = true
	return f
}

func (x *exchange) serverError(coin int) *refusal {
	status := []int{500, 500, 502, 503, 504}[coin%5] // 503 without Retry-After is not throttling
	return refuse(status, "internal_error", "internal error")
}
