// Package pipeline is the domain of Purser: rows, stages, the decision table, the importer's loop and the worker's
// loop. It declares the narrow interfaces it needs of the ledger, the broker and the partner API, and knows none of
// their implementations.
package pipeline
