// Package pipeline has the nouns of Purser: a row of an export and its account, the message that carries it through
// Kafka, the record that the ledger keeps of it with its stage and keys, and the ports by which the packages below it
// reach ledger and broker. Nothing here acts, and nothing of ours is imported but printable.
//
// A row travels through the packages below: csvimport reads it from an export and publishes its message; dispatch takes
// the message and gives the row to a worker; onboard takes the row from stage to stage; results publishes what became
// of it.
package pipeline
