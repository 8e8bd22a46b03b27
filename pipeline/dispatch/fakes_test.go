package dispatch

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/google/uuid"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/siwe"
)

// memoryLedger is the simplest Ledger that keeps the interface's promises, without a disk.
type memoryLedger struct {
	mu        sync.Mutex
	records   []pipeline.Record
	restarted map[string]bool   // row and import
	nonces    map[string]string // the row and challenge that used each
	list      []pipeline.Customer
	fail      error // returned by Update
	failAt    int   // Update fails from this call on, as if the process had died; 0: never
	updates   []pipeline.Record
}

func (l *memoryLedger) Accept(_ context.Context, rows []pipeline.Row) ([]pipeline.Acceptance, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []pipeline.Acceptance
	for _, row := range rows {
		out = append(out, l.accept(row))
	}
	return out, nil
}

func (l *memoryLedger) accept(row pipeline.Row) pipeline.Acceptance {
	previous := ""
	for i := range l.records {
		r := &l.records[i]
		if r.Account == row.Account && r.ExternalID == row.ExternalID {
			again := r.ImportID == row.ImportID || l.restarted[fmt.Sprint(r.ID, row.ImportID)]
			if r.Stage.Retryable() && !again {
				l.restarted[fmt.Sprint(r.ID, r.ImportID)] = true
				previous = r.Class
				r.Row, r.Stage, r.Class, r.Reason, r.Attempts, r.Refusals = row, pipeline.Planned, "", "", 0, 0
				r.Challenge, r.Signature = "", ""
				r.Version++
			}
			if r.Stage.Terminal() {
				return pipeline.Acceptance{Admission: pipeline.Settled, Record: *r}
			}
			return pipeline.Acceptance{Admission: pipeline.Open, Record: *r, Previous: previous}
		}
	}
	record := pipeline.Record{Row: row, ID: int64(len(l.records) + 1), Version: 1, Stage: pipeline.Planned}
	admission := pipeline.Open
	for _, r := range l.records {
		if r.Account == row.Account || r.ExternalID == row.ExternalID {
			record.Stage, record.Class, record.Reason = pipeline.Conflict, "duplicate", "contradicts "+r.Where()
			admission = pipeline.Contradicted
		}
	}
	l.records = append(l.records, record)
	return pipeline.Acceptance{Admission: admission, Record: record}
}

func (l *memoryLedger) Update(_ context.Context, next pipeline.Record) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return 0, l.fail
	}
	if l.failAt > 0 && len(l.updates)+1 >= l.failAt {
		l.fail = errors.New("crashed")
		return 0, l.fail
	}
	r := &l.records[next.ID-1]
	if r.Version != next.Version {
		return 0, pipeline.ErrStale
	}
	if !r.Stage.CanBecome(next.Stage) {
		return 0, fmt.Errorf("%s cannot become %s", r.Stage, next.Stage)
	}
	if next.Nonce != "" {
		use := fmt.Sprint(next.ID, next.Challenge)
		if used, ok := l.nonces[next.Nonce]; ok && used != use {
			return 0, pipeline.ErrNonceUsed
		}
		if l.nonces == nil {
			l.nonces = map[string]string{}
		}
		l.nonces[next.Nonce], next.Nonce = use, ""
	}
	next.Version++
	*r = next
	l.updates = append(l.updates, next)
	return next.Version, nil
}

func (l *memoryLedger) get(row pipeline.Row) pipeline.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		if r.Account == row.Account && r.ExternalID == row.ExternalID {
			return r
		}
	}
	return pipeline.Record{}
}

func (l *memoryLedger) ReplaceDirectory(_ context.Context, _ time.Time, feed func(func(pipeline.Customer) error) error) error {
	var list []pipeline.Customer
	if err := feed(func(c pipeline.Customer) error { list = append(list, c); return nil }); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = list
	return nil
}

func (l *memoryLedger) FindCustomers(_ context.Context, chainID, externalID string) ([]pipeline.Customer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []pipeline.Customer
	for _, c := range l.list {
		if strings.EqualFold(c.ChainID, chainID) || c.ExternalID == externalID {
			out = append(out, c)
		}
	}
	return out, nil
}

// call is a request that the partner saw.
type call struct {
	op   string // "create", "read", "challenge", "submit", "list"
	key  uuid.UUID
	body string
}

// fault is what happens to a request instead of, or after, its execution.
type fault struct {
	execute bool // execute the request first
	store   bool // remember the error under the key, as the answer to every repetition
	err     error
}

// memoryPartner is the partner with its rules on creation, keys and challenges, and the faults that a test sets.
type memoryPartner struct {
	mu        sync.Mutex
	now       func() time.Time
	customers []client.Customer
	challenge map[string]string // customer id to text
	stored    map[uuid.UUID]any
	calls     []call
	seen      map[string]int
	// faults gives the n-th (from 1) call of an operation its fault.
	faults func(op string, n int) *fault
	// created is the status of a new customer.
	created client.Status
	// text changes the challenge that is issued.
	text func(string) string
	// before is called with each request as it arrives, answered with each request and the error that it is answered with.
	before   func(call)
	answered func(call, error)
}

func newMemoryPartner(now func() time.Time) *memoryPartner {
	return &memoryPartner{
		now: now, created: client.StatusInitiating,
		challenge: map[string]string{}, stored: map[uuid.UUID]any{}, seen: map[string]int{},
		faults: func(string, int) *fault { return nil },
		text:   func(s string) string { return s },
		before: func(call) {}, answered: func(call, error) {},
	}
}

func (p *memoryPartner) do(c call, execute func() (any, error)) (answer any, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.answered(c, err) }()
	p.calls = append(p.calls, c)
	p.before(c)
	p.seen[c.op]++
	f := p.faults(c.op, p.seen[c.op])
	if f != nil && !f.execute {
		if _, known := p.stored[c.key]; f.store && !known {
			p.stored[c.key] = f.err
		}
		return nil, f.err
	}
	if answer, ok := p.stored[c.key]; ok && c.key != uuid.Nil {
		if f != nil {
			return nil, f.err
		}
		if err, bad := answer.(error); bad {
			return nil, err
		}
		return answer, nil
	}
	answer, err = execute()
	if c.key != uuid.Nil {
		p.stored[c.key] = answer
		if err != nil {
			p.stored[c.key] = err
		}
	}
	if f != nil {
		if f.store && c.key != uuid.Nil {
			p.stored[c.key] = f.err
		}
		return nil, f.err
	}
	return answer, err
}

func status(code int, kind client.Kind) error {
	return &client.Error{Op: "test", Kind: kind, Status: code, Message: http.StatusText(code)}
}

func (p *memoryPartner) CreateCustomer(_ context.Context, key uuid.UUID, body []byte) (client.Customer, error) {
	answer, err := p.do(call{"create", key, string(body)}, func() (any, error) {
		var in struct{ ChainID, ExternalID string }
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, status(400, client.Invalid)
		}
		for _, c := range p.customers {
			if strings.EqualFold(c.ChainID, in.ChainID) || c.ExternalID == in.ExternalID {
				return nil, status(409, client.Conflicting)
			}
		}
		c := client.Customer{ID: uuid.NewString(), ChainID: in.ChainID, ExternalID: in.ExternalID, Status: p.created}
		p.customers = append(p.customers, c)
		p.issue(c)
		c.Challenge = base64.StdEncoding.EncodeToString([]byte(p.challenge[c.ID]))
		return c, nil
	})
	if err != nil {
		return client.Customer{}, err
	}
	return answer.(client.Customer), nil
}

func (p *memoryPartner) issue(c client.Customer) {
	account, err := pipeline.ParseAccount(c.ChainID)
	if err != nil {
		panic(err)
	}
	m := siwe.Message{Domain: "partner.test", Address: account.Address, URI: "https://partner.test", Version: "1",
		ChainID: account.Chain, Nonce: strings.ReplaceAll(uuid.NewString(), "-", ""), IssuedAt: p.now()}
	p.challenge[c.ID] = p.text(m.String())
}

func (p *memoryPartner) find(id string) *client.Customer {
	for i := range p.customers {
		if p.customers[i].ID == id {
			return &p.customers[i]
		}
	}
	return nil
}

func (p *memoryPartner) Customer(_ context.Context, id string) (client.Customer, error) {
	answer, err := p.do(call{op: "read"}, func() (any, error) {
		if c := p.find(id); c != nil {
			return *c, nil
		}
		return nil, status(404, client.NotFound)
	})
	if err != nil {
		return client.Customer{}, err
	}
	return answer.(client.Customer), nil
}

func (p *memoryPartner) Challenge(_ context.Context, id string) (string, error) {
	answer, err := p.do(call{op: "challenge"}, func() (any, error) {
		c := p.find(id)
		if c == nil || c.Status != client.StatusInitiating {
			return nil, status(404, client.NotFound)
		}
		p.issue(*c)
		return base64.StdEncoding.EncodeToString([]byte(p.challenge[id])), nil
	})
	if err != nil {
		return "", err
	}
	return answer.(string), nil
}

func (p *memoryPartner) SubmitSignature(_ context.Context, id string, key uuid.UUID, body []byte) error {
	_, err := p.do(call{"submit", key, string(body)}, func() (any, error) {
		c := p.find(id)
		if c == nil {
			return nil, status(404, client.NotFound)
		}
		var in struct{ OwnerID, Signature string }
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, status(400, client.Invalid)
		}
		text, err := base64.StdEncoding.DecodeString(in.Signature)
		if err != nil {
			return nil, status(400, client.Invalid)
		}
		raw := common.FromHex(string(text))
		if len(raw) != 65 || c.Status != client.StatusInitiating {
			return nil, status(400, client.Invalid)
		}
		raw[64] -= 27
		hash := signer.MessageHash([]byte(p.challenge[id]))
		public, err := crypto.SigToPub(hash[:], raw)
		account, accountErr := pipeline.ParseAccount(c.ChainID)
		if err != nil || accountErr != nil || crypto.PubkeyToAddress(*public) != account.Address {
			p.issue(*c)
			return nil, status(400, client.Invalid)
		}
		c.Status = client.StatusScreening
		return struct{}{}, nil
	})
	return err
}

func (p *memoryPartner) Customers(_ context.Context, yield func(client.Customer) error) (time.Duration, error) {
	begun := time.Now()
	answer, err := p.do(call{op: "list"}, func() (any, error) {
		return append([]client.Customer(nil), p.customers...), nil
	})
	if err != nil {
		return time.Since(begun), err
	}
	for _, c := range answer.([]client.Customer) {
		if err := yield(c); err != nil {
			return time.Since(begun), err
		}
	}
	return time.Since(begun), nil
}

// probe succeeds unless a fault is set for the operation "probe".
func (p *memoryPartner) probe(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen["probe"]++
	if f := p.faults("probe", p.seen["probe"]); f != nil {
		return f.err
	}
	return nil
}

func (p *memoryPartner) of(op string) []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []call
	for _, c := range p.calls {
		if c.op == op {
			out = append(out, c)
		}
	}
	return out
}

// deadLetters is a Publisher that keeps what it is given.
type deadLetters struct{ published []pipeline.Message }

func (d *deadLetters) Publish(_ context.Context, _ string, m []pipeline.Message) error {
	d.published = append(d.published, m...)
	return nil
}

var errDropped = &client.Error{Op: "test", Kind: client.NoAnswer, Err: errors.New("connection reset")}
