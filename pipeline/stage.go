package pipeline

import (
	"fmt"
	"slices"
)

// Stage says how far a row has come. The values are kept in the ledger and shown by `consumer status`.
type Stage string

// The stages of a row; docs/state-machine.md draws them.
const (
	// Planned: the row is accepted, nothing has been sent.
	Planned Stage = "planned"
	// Creating: the create key is recorded; POST /customers may have been sent.
	Creating Stage = "creating"
	// Challenged: the customer's id is recorded, and usually a challenge to sign.
	Challenged Stage = "challenged"
	// Signing: the challenge has passed the policy and was handed to the signer.
	Signing Stage = "signing"
	// Submitting: signature and submit key are recorded; the signature may have been sent.
	Submitting Stage = "submitting"
	// Onboarded is terminal: the signature was accepted, or the customer was found past initiating.
	Onboarded Stage = "onboarded"
	// Conflict is terminal: the address or the externalId belongs to another customer or another row.
	Conflict Stage = "conflict"
	// Refused is terminal: the challenge failed our policy and nothing was signed; a person must look.
	Refused Stage = "refused"
	// Rejected is terminal: the partner's status is rejected.
	Rejected Stage = "rejected"
	// Failed is terminal for this import: Class and Reason say why; importing the row again retries it.
	Failed Stage = "failed"
)

// Stages lists every stage in the order in which a row passes them.
func Stages() []Stage {
	return []Stage{Planned, Creating, Challenged, Signing, Submitting, Onboarded, Conflict, Refused, Rejected, Failed}
}

// ParseStage turns a stored stage into a Stage; an unknown one is an error.
func ParseStage(s string) (Stage, error) {
	for _, known := range Stages() {
		if s == string(known) {
			return known, nil
		}
	}
	return "", fmt.Errorf("unknown stage %q", s)
}

// Terminal reports whether a row in this stage is settled: it is skipped when its message comes again.
func (s Stage) Terminal() bool {
	switch s {
	case Onboarded, Conflict, Refused, Rejected, Failed:
		return true
	}
	return false
}

// Retryable reports whether a new import of a row that ended in this stage starts it again.
func (s Stage) Retryable() bool {
	return s == Conflict || s == Refused || s == Failed
}

// CanBecome reports whether the step from s to next is one that the state machine knows. Staying in a stage is
// always allowed for an unsettled row: a retry is recorded without moving.
func (s Stage) CanBecome(next Stage) bool {
	if s == next {
		return !s.Terminal()
	}
	return slices.Contains(s.next(), next)
}

func (s Stage) next() []Stage {
	switch s {
	case Planned:
		return []Stage{Creating, Challenged, Onboarded, Rejected, Failed}
	case Creating:
		return []Stage{Challenged, Onboarded, Conflict, Rejected, Failed}
	case Challenged:
		return []Stage{Signing, Onboarded, Refused, Rejected, Failed}
	case Signing:
		return []Stage{Submitting, Challenged, Refused, Failed}
	case Submitting:
		return []Stage{Onboarded, Challenged, Rejected, Failed}
	case Conflict, Refused, Failed:
		return []Stage{Planned} // by a new import only
	}
	return nil
}
