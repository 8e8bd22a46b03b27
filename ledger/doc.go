// Package ledger stores the state of every row (its stage and the idempotency keys under which requests were sent for
// it), the partner's customer list, and the record of runs and imports. It is a single SQLite file, opened by one
// process at a time and bound to one environment.
//
// A single goroutine does all writing. Concurrent calls share a transaction and its fsync (group commit), so many
// workers cost the disk little more than a single worker. A call returns when its change is durable (write-ahead log,
// synchronous=FULL). Reads use their own connections and do not wait for writes.
//
// # Durability
//
// A process killed at any moment leaves a ledger that opens and contains every acknowledged change. If the disk is
// full, the calls that need space fail and the ledger stays unchanged; they succeed again once there is space. Losing a
// ledger costs time only: keys are derived, and existing customers are found at the partner.
//
// # Claims
//
// A row is identified by its pair (account, externalId). The first row with an account claims the account, the first
// row with an externalId claims the externalId. A later row that contradicts a claim is stored as conflict, with a
// reason that names the first row. Claims are permanent, except those of a row that ended failed or in conflict without
// a customer: they pass to a contradicting row of another import, because the export was then corrected.
package ledger
