package pipeline

import (
	"context"
	"errors"
	"time"
)

// Customer is a customer in the partner's list.
type Customer struct {
	ID         string // a UUID
	ChainID    string // a CAIP-10 account id, in any case
	ExternalID string
	Status     string // as the partner writes it
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

// Admission is what Accept found about a row.
type Admission int

const (
	// Open: the row is new, restarted by a new import, or unfinished: it needs work.
	Open Admission = iota + 1
	// Settled: the row was terminal before this message came: skip it.
	Settled
	// Contradicted: the row contradicts an earlier one (same account with another externalId or the reverse) and has
	// just been recorded as conflict; Record.Reason names the other.
	Contradicted
)

// Acceptance answers one row of an Accept call. Of a Settled row only ID, Row, Stage, Class, Reason and CustomerID
// need be filled.
type Acceptance struct {
	Admission Admission
	Record    Record
	Previous  string // the class with which the row had ended, if this call has started it again
}

// ErrStale is returned by Ledger.Update when the stored row is no longer at the version the caller read: another caller
// moved it. Nothing was written.
var ErrStale = errors.New("ledger row changed since it was read")

// ErrNonceUsed is returned by Ledger.Update when the nonce in the record was used by another challenge. Nothing was
// written.
var ErrNonceUsed = errors.New("the challenge's nonce was used by another challenge")

// ErrFenced is returned for a change of a row whose partition does not, or no longer, belong to this consumer. Nothing
// was written, and nothing may be sent for the row: its messages go to the partition's owner.
var ErrFenced = errors.New("the row's partition belongs to another consumer")

// ErrChangelogRecreated: the ledger topic ends before the position of a ledger, so it was deleted and created again.
var ErrChangelogRecreated = errors.New("the ledger topic was recreated")

// Ledger is the durable memory of the run; package ledger implements it. All methods are safe for concurrent use.
// Methods that write return only when the change is durable; concurrent writes share an fsync (group commit).
type Ledger interface {
	// Accept records the rows of one batch, in order, in one transaction, and returns what to do with each. Calling it
	// again with the same rows changes nothing.
	Accept(ctx context.Context, rows []Row) ([]Acceptance, error)

	// Update stores next over the row with next.ID if that row is still at version next.Version, and returns the new
	// version. The keys in next (CreateKey, SubmitKey) are stored with it, older generations are kept. It returns ErrStale
	// if the version differs, and an error if the state machine does not allow the change of stage. A Nonce in next is
	// recorded permanently as the nonce of next.Challenge; ErrNonceUsed if another challenge or row has used it.
	Update(ctx context.Context, next Record) (version int64, err error)

	Directory
}

// Directory is the ledger's copy of the partner's customer list, which has no filter of its own (rule "409 is a
// question").
type Directory interface {
	// ReplaceDirectory stores a list whose reading started at begun: feed is called once and passes every customer on.
	// Memory is bounded; the earlier list stays in use until feed has returned without error.
	ReplaceDirectory(ctx context.Context, begun time.Time, feed func(add func(Customer) error) error) error
	// FindCustomers returns the listed customers that have the CAIP-10 account (in any case) or the externalId: none,
	// one, or two different ones.
	FindCustomers(ctx context.Context, chainID, externalID string) ([]Customer, error)
}

// Publisher writes messages to Kafka.
type Publisher interface {
	// Publish writes all messages to the topic and returns when every in-sync replica has them (acks=all). The key
	// determines the partition as in Java clients (murmur2). Order is kept within a partition. After an error some
	// messages may have been written; publishing them again is safe because the ledger recognises duplicates.
	Publish(ctx context.Context, topic string, messages []Message) error
}

// Handler processes the batches of a Queue.
type Handler interface {
	// Take is called with one batch at a time per partition, concurrently for several partitions, in order of offsets.
	// It does not wait for the rows; the queue bounds the unacknowledged messages. It returns early with ctx's error when
	// ctx ends. ack must be called once for each message whose row is durably settled, in any order, from any goroutine,
	// also after Take has returned. Messages that are not acknowledged are delivered again later.
	Take(ctx context.Context, batch []Message, ack func(Message)) error
	// Release is called when the partition is revoked or the run ends. It drops rows that no worker has, waits for rows
	// at work (bounded by ctx), and returns when ack will not be called again for the partition.
	Release(ctx context.Context, partition int)
}

// Queue delivers the work topic.
type Queue interface {
	// Run joins the group and delivers messages. It blocks until ctx ends (nil), the handler fails (its error, not
	// wrapped), or the broker is lost. Before it returns, it releases every partition and commits, for each, the offset
	// below which all messages are acknowledged.
	Run(ctx context.Context, h Handler) error
}
