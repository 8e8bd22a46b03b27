// Package onboard takes one row from stage to stage. Worker.Step performs the row's next action (create, look up, read,
// fetch, check, sign, submit), turns what came of it into an outcome, asks the decision table (cell, decide) what the
// row becomes, and stores that before anything else happens. The breaker halts a run whose rows fail for a shared
// cause.
//
// The files in the order of a step: worker.go (Step), next.go (which action is due), create.go, lookup.go with list.go,
// challenge.go, sign.go with custody.go, and submit.go (the actions), outcome.go (what came of them), decide.go and
// table.go (the decision), breaker.go and halt.go (whether the run goes on).
package onboard
