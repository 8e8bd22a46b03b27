// Package ledger is the durable memory of a run: which row of the export has come how far, under which idempotency
// keys requests were sent for it, and which customers the partner lists. It is one SQLite file, opened by one process
// at a time and bound to one environment.
//
// Everything that is written goes through one goroutine. Calls that meet there share a transaction and its fsync
// (group commit), so many workers cost the disk little more than one; a call returns when its change is durable:
// write-ahead log, synchronous=FULL. Reading has connections of its own and waits for nobody.
//
// # What a file promises
//
// A process killed at any moment leaves a ledger that opens and holds every change that was acknowledged. A full disk
// fails the calls that needed room with ErrDiskFull and leaves the ledger as it was; the process can go on once there
// is room. A ledger that is lost altogether costs time and nothing else: keys are derived, and customers that exist are
// found at the partner.
//
// # Claims
//
// A row is known by its pair (account, externalId). The first row with an account, and the first with an externalId,
// claims it; a later row that contradicts a claim is stored as conflict and names the other. A claim is kept for good,
// except by a row that ended failed or in conflict without a customer: it gives way when another import states it
// differently, because then the export was corrected.
package ledger
