package client

import "time"

// Operation is a kind of request.
type Operation string

// The operations.
const (
	Create      Operation = "create"      // POST /customers
	Find        Operation = "find"        // GET /customers/{id}
	Challenge   Operation = "challenge"   // GET /customers/{id}/challenge
	Submit      Operation = "submit"      // POST /customers/{id}/challenge/sign
	Token       Operation = "token"       // POST /auth/token
	List        Operation = "list"        // GET /customers
	Probe       Operation = "probe"       // GET /customers/{id} of a random id
	Credentials Operation = "credentials" // changes to the registered key or the API secret
)

// Operations lists every operation.
func Operations() []Operation {
	return []Operation{Create, Find, Challenge, Submit, Token, List, Probe, Credentials}
}

// Observer observes a Client. Its methods are called by many goroutines at once and must not block.
type Observer interface {
	// Waited is called when an attempt has passed the rate limiter, with how long it waited there, in the queue of all
	// workers included.
	Waited(time.Duration)
	// Began is called just before an attempt is sent. Ended follows, once.
	Began(Operation)
	// Ended is called when the answer was read, with its status, or when there is none, with 0; took is the time since
	// Began.
	Ended(op Operation, status int, took time.Duration)
}

// unobserved is the Observer of a client without one.
type unobserved struct{}

func (unobserved) Waited(time.Duration)                {}
func (unobserved) Began(Operation)                     {}
func (unobserved) Ended(Operation, int, time.Duration) {}
