// Package results reports the outcomes of rows: the outbox relay publishes an event for each settled row, the report
// counts a run, and Reconcile compares the ledger with the partner's list.
package results
