// Package dispatch works on many rows at once. The Dispatcher takes batches of messages, has the ledger accept their
// rows, and gives each row to one goroutine at a time, which calls onboard.Worker.Step. A waiting row occupies no
// goroutine. A message is acknowledged when its row has settled.
package dispatch
