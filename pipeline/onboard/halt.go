package onboard

import (
	"errors"
	"fmt"
	"strings"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/signer"
)

// HaltError stops the run: the row, and all other unsettled rows, stay as they were.
type HaltError struct {
	// Class is the halt's own class, or the class with which rows ended.
	Class Class
	Row   pipeline.Row // the row at which it was found; zero: none
	Err   error

	Count int            // how many rows ended alike; 0: that is not why
	Spent []pipeline.Row // the first of them
	Hint  string         // the setting to look at

	never bool // no row had passed the step in this run
}

func (e *HaltError) Error() string {
	var b strings.Builder
	b.WriteString("halted")
	switch {
	case e.Count > 0:
		where := make([]string, len(e.Spent))
		for i, r := range e.Spent {
			where[i] = r.Where()
		}
		fmt.Fprintf(&b, ": %s ended with %s (%s", printable.Count(e.Count, "row", "consecutive rows"), e.Class,
			strings.Join(where, ", "))
		if more := e.Count - len(e.Spent); more > 0 {
			fmt.Fprintf(&b, " and %d more", more)
		}
		b.WriteString(")")
	case e.Row != (pipeline.Row{}):
		fmt.Fprintf(&b, " at %s (%s)", e.Row.Where(), e.Row.Account)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.never {
		b.WriteString("; no row has passed this step in this run")
	}
	if hint := e.hint(); hint != "" {
		b.WriteString("; " + hint)
	}
	if e.Count > 0 {
		b.WriteString("; then import " + printable.Plural(e.Count, "this row again (`consumer failures` lists it)",
			"these rows again (`consumer failures` lists them)") + "; all other rows stay in the queue")
	}
	return b.String()
}

func (e *HaltError) hint() string {
	var partner *client.Error
	hint := e.Hint
	if hint == "" && errors.As(e.Err, &partner) {
		hint = partner.Hint()
	}
	switch {
	case e.Class == HaltConfiguration && !strings.Contains(hint, "`consumer check`"):
		if hint != "" {
			hint += "; "
		}
		hint += "`consumer check` tests the set-up without touching a customer"
	case e.Class == HaltSigner:
		hint = "fix the signer, then run again"
	case e.Class == HaltResources:
		hint = "raise the open file limit (ulimit -n), then run again"
	case e.Class == HaltUnreachable:
		hint = "run again when the partner is back (--outage-wait sets how long a run waits)"
	}
	return hint
}

// SetUp reports whether the run halted because of a setting, which must be fixed before the next run.
func (e *HaltError) SetUp() bool {
	switch e.Class {
	case HaltConfiguration:
		return true
	case HaltSigner:
		return errors.As(e.Err, new(*signer.LockoutError))
	case HaltUnreachable, HaltResources, HaltLedger, HaltImpossible,
		classServerError, classNoAnswer, classSignerError:
		return false
	}
	return e.Count > 0
}

func (e *HaltError) Unwrap() error { return e.Err }
