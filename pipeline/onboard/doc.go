// Package onboard takes one row from stage to stage. Worker.Step performs the row's next action (create, look up, read,
// fetch, check, sign, submit), turns the result into an outcome, looks up the next stage and action in the decision
// table (cell, decide), and stores them before anything else happens. The breaker halts a run whose rows fail for a
// shared cause.
//
// The files in the order of a step: worker.go (Step), next.go (which action is due), create.go, lookup.go with list.go,
// challenge.go, sign.go with custody.go, and submit.go (the actions), outcome.go (their results), decide.go and
// table.go (the decision), breaker.go and halt.go (whether the run continues).
package onboard
