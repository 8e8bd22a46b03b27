// Package pipeline has the domain types of Purser: a row of an export and its account, the message that carries it
// through Kafka, the ledger's record of it with its stage and keys, and the interfaces to ledger and broker. It has no
// behaviour of its own and imports no other package of ours but printable.
//
// A row travels through the packages below: csvimport reads it from an export and publishes its message; dispatch takes
// the message and gives the row to a worker; onboard takes the row from stage to stage; results publishes its outcome.
package pipeline
