package sandbox

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/purser-onboard/purser/printable"
)

// Status is a customer's status at the partner. [doc]
type Status string

// The statuses of a customer.
const (
	StatusInitiating Status = "initiating"
	StatusScreening  Status = "screening"
	StatusVerifying  Status = "verifying"
	StatusActive     Status = "active"
	StatusInactive   Status = "inactive"
	StatusRejected   Status = "rejected"
)

func (s Status) known() bool {
	switch s {
	case StatusInitiating, StatusScreening, StatusVerifying, StatusActive, StatusInactive, StatusRejected:
		return true
	}
	return false
}

// Customer is a customer with all that the API shows, and the challenges.
type Customer struct {
	ID         string      `json:"id"`
	ChainID    string      `json:"chainId"` // the CAIP-10 account id as it was sent
	ExternalID string      `json:"externalId"`
	Status     Status      `json:"status"`
	CreatedAt  time.Time   `json:"createdAt"`
	UpdatedAt  time.Time   `json:"updatedAt"`
	Given      bool        `json:"given,omitempty"` // added by Add, not created over the API
	Challenges []Challenge `json:"challenges,omitempty"`
}

// Challenge is a sign-in message issued to a customer.
type Challenge struct {
	Number   int       `json:"number"` // from 1; the last challenge is current
	IssuedAt time.Time `json:"issuedAt"`
	Hostile  Fault     `json:"hostile,omitempty"` // the fault that made it hostile
	Text     string    `json:"text"`
}

// customer is a customer of the register. id, account, external, created and given never change.
type customer struct {
	id, external string
	account      account
	created      time.Time
	given        bool

	mu         sync.Mutex
	status     Status
	updated    time.Time
	challenges []challenge // all ever issued, append-only; the last is current
}

// current returns the challenge that can be signed; its number is 0 when none was issued yet.
func (c *customer) current() challenge {
	if len(c.challenges) == 0 {
		return challenge{}
	}
	return c.challenges[len(c.challenges)-1]
}

// view is a customer as the API shows it. The times have milliseconds, as the vendor's do. [doc]
type view struct {
	ID         string `json:"id"`
	ChainID    string `json:"chainId"`
	ExternalID string `json:"externalId"`
	Status     Status `json:"status"`
	CreatedAt  string `json:"createdAt"`
	UpdatedAt  string `json:"updatedAt"`
	Challenge  string `json:"challenge,omitempty"`
}

const milli = "2006-01-02T15:04:05.000Z"

func (c *customer) view() view {
	c.mu.Lock()
	defer c.mu.Unlock()
	return view{
		ID: c.id, ChainID: c.account.text, ExternalID: c.external, Status: c.status,
		CreatedAt: c.created.UTC().Format(milli), UpdatedAt: c.updated.UTC().Format(milli),
	}
}

// register finds customers by id, account and externalId. Account and externalId are each unique. [doc]
type register struct {
	mu         sync.RWMutex
	byID       map[string]*customer
	byAccount  map[string]*customer // by the account in lower case [inferred]
	byExternal map[string]*customer
	order      []*customer // as they were created; append-only
}

func (g *register) init() {
	g.byID, g.byAccount, g.byExternal = map[string]*customer{}, map[string]*customer{}, map[string]*customer{}
}

// add adds the customer unless its account or externalId is taken, and returns the name of that field.
func (g *register) add(c *customer) (taken string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.byAccount[c.account.folded] != nil:
		return "chainId"
	case g.byExternal[c.external] != nil:
		return "externalId"
	}
	g.byID[c.id], g.byAccount[c.account.folded], g.byExternal[c.external] = c, c, c
	g.order = append(g.order, c)
	return ""
}

func (g *register) find(id string) *customer {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.byID[id]
}

// all returns every customer. The slice is not copied, but what it holds does not change.
func (g *register) all() []*customer {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.order[:len(g.order):len(g.order)]
}

func (s *Server) newCustomer(chainID, externalID string) (*customer, error) {
	acc, err := parseAccount(chainID)
	if err != nil {
		return nil, fmt.Errorf("chainId %w", err)
	}
	if err := checkExternalID(externalID); err != nil {
		return nil, fmt.Errorf("externalId %w", err)
	}
	now := s.now()
	return &customer{
		id:       s.seed.uuid("customer", acc.folded, externalID),
		external: externalID,
		account:  acc,
		created:  now,
		status:   StatusInitiating,
		updated:  now,
	}, nil
}

// create answers POST /customers.
func (x *exchange) create() (reply, *refusal) {
	f, err := decodeStrings(x.body, "chainId", "externalId")
	if err != nil {
		return reply{}, badRequest("%v", err)
	}
	c, err := x.s.newCustomer(f["chainId"], f["externalId"])
	if err != nil {
		return reply{}, badRequest("%v", err)
	}
	c.mu.Lock() // until it has a challenge
	defer c.mu.Unlock()
	if taken := x.st.customers.add(c); taken != "" {
		return reply{}, refuse(409, "customer_exists", "Customer already exists: %s is taken", taken)
	}
	ch := x.renew(c)
	x.entry.Created = true
	x.entry.CustomerID = c.id
	return x.s.created(c, ch), nil
}

// created returns the answer to a creation, the only one with a challenge. [doc] The caller holds c.mu.
func (s *Server) created(c *customer, ch challenge) reply {
	at := c.created.UTC().Format(milli)
	return jsonReply(201, view{
		ID: c.id, ChainID: c.account.text, ExternalID: c.external, Status: c.status, CreatedAt: at, UpdatedAt: at,
		Challenge: encodeChallenge(s.challengeText(c, ch)),
	})
}

// read answers GET /customers/{id}.
func (x *exchange) read() (reply, *refusal) {
	c := x.st.customers.find(x.id)
	if c == nil {
		return reply{}, noCustomer()
	}
	return jsonReply(200, c.view()), nil
}

// simulate answers PATCH /simulator/customers/{id}/verify and /reject.
func (x *exchange) simulate() (reply, *refusal) {
	c := x.st.customers.find(x.id)
	if c == nil {
		return reply{}, noCustomer()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := StatusActive
	allowed := c.status == StatusScreening || c.status == StatusVerifying || c.status == StatusInactive
	if x.op == OpReject {
		next = StatusRejected
		allowed = c.status != StatusRejected
	}
	if !allowed {
		return reply{}, refuse(409, "invalid_state", "customer is %s", c.status)
	}
	c.status, c.updated = next, x.s.now()
	return reply{status: 202}, nil
}

// Add adds a customer without a request, for a partner that has customers before a run. The customer has no challenge
// until its challenge is read. An error says which of account, externalId and status is invalid or taken.
func (s *Server) Add(chainID, externalID string, status Status) (Customer, error) {
	if !status.known() {
		return Customer{}, fmt.Errorf("status %q is unknown", status)
	}
	c, err := s.newCustomer(chainID, externalID)
	if err != nil {
		return Customer{}, err
	}
	c.status, c.given = status, true
	if taken := s.state.Load().customers.add(c); taken != "" {
		return Customer{}, fmt.Errorf("%s is taken", taken)
	}
	return s.dump(c, false), nil
}

// Restore adds a customer with its challenges, as Customers of a Server with the same seed and configuration returned
// it, so that a client can continue with it. An error says what is invalid, taken, or different under this seed.
// Hostile challenges cannot be restored.
func (s *Server) Restore(known Customer) error {
	c, err := s.newCustomer(known.ChainID, known.ExternalID)
	switch {
	case err != nil:
		return err
	case c.id != known.ID:
		return fmt.Errorf("customer %s has the id %s under this seed", known.ID, c.id)
	case !known.Status.known():
		return fmt.Errorf("status %q is unknown", known.Status)
	}
	c.status, c.created, c.updated, c.given = known.Status, known.CreatedAt, known.UpdatedAt, true
	for i, issued := range known.Challenges {
		ch := challenge{number: i + 1, issued: issued.IssuedAt, scheme: "http"}
		ch.domain, _, _ = strings.Cut(issued.Text, " ")
		if strings.Contains(issued.Text, "\nURI: https://") {
			ch.scheme = "https"
		}
		if text := s.challengeText(c, ch); text != issued.Text {
			return fmt.Errorf("challenge %d of customer %s is %q under this seed, want %q", ch.number, c.id, text, issued.Text)
		}
		c.challenges = append(c.challenges, ch)
	}
	if taken := s.state.Load().customers.add(c); taken != "" {
		return fmt.Errorf("%s is taken", taken)
	}
	return nil
}

// setStatus changes a customer's status, also in ways that the API does not allow.
func (s *Server) setStatus(id string, status Status) error {
	c := s.state.Load().customers.find(id)
	switch {
	case !status.known():
		return fmt.Errorf("status %q is unknown", status)
	case c == nil:
		return fmt.Errorf("no customer %s", printable.Quote(id, mostQuoted))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status, c.updated = status, s.now()
	return nil
}

// Customers returns all customers, oldest first, with their challenges.
func (s *Server) Customers() []Customer {
	all := s.state.Load().customers.all()
	out := make([]Customer, len(all))
	for i, c := range all {
		out[i] = s.dump(c, true)
	}
	return out
}

func (s *Server) dump(c *customer, challenges bool) Customer {
	c.mu.Lock()
	issued := c.challenges
	d := Customer{c.id, c.account.text, c.external, c.status, c.created, c.updated, c.given, nil}
	c.mu.Unlock()
	if challenges {
		for _, ch := range issued {
			d.Challenges = append(d.Challenges, Challenge{ch.number, ch.issued, ch.hostile, s.challengeText(c, ch)})
		}
	}
	return d
}
