// Package onboard takes one row from stage to stage. Worker.Step performs the row's next action (create, look up, read,
// fetch, check, sign, submit), turns what came of it into an outcome, asks the decision table (cell, decide) what the
// row becomes, and stores that before anything else happens. The breaker halts a run whose rows fail for a shared
// cause.
//
// Where to read: worker.go has the steps in their order; create.go, lookup.go, challenge.go, sign.go and submit.go one
// action each; table.go the decisions; breaker.go what rows have in common.
package onboard
