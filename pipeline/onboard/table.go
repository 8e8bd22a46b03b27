package onboard

import "github.com/purser-onboard/purser/pipeline"

// Cell returns the branches of one cell of the decision table, none for a stage and an outcome that cannot meet.
// docs/state-machine.md is drawn from it.
func Cell(s pipeline.Stage, o Outcome) []Branch {
	if s.Terminal() {
		return nil
	}
	switch o { // what says something about the run and nothing about the row
	case Misconfigured:
		return always(Disposition{Do: DoHalt, Class: HaltConfiguration})
	case Throttled, NotSent:
		return always(Disposition{Do: DoRepeat, Wait: true}) // rule "Throttling is not failure": costs no try
	case ReadFailed:
		return []Branch{
			{TriesLeft, Disposition{Do: DoRepeat, Wait: true}}, // nothing was changed by reading
			{Always, failed(ClassNoAnswer)},
		}
	case Unrecognized: // a request that changed something is answered the same under its key, so nothing is doubled
		return []Branch{
			{TriesLeft, Disposition{Do: DoRepeat, Wait: true}},
			{Always, failed(ClassNotRecognized)},
		}
	case OddCustomer:
		return always(failed(ClassUnexpected))
	}
	switch s {
	case pipeline.Planned:
		return planned(o)
	case pipeline.Creating:
		return creating(o)
	case pipeline.Challenged:
		return challenged(o)
	case pipeline.Signing:
		return signing(o)
	case pipeline.Submitting:
		return submitting(o)
	}
	return nil
}

// planned meets what the signer says about the key, which is asked before anything is sent; and, when an earlier import
// already had the customer created, so that its id is known, what became of that customer.
func planned(o Outcome) []Branch {
	switch o {
	case NoKey, Declined, Mismatch, SignerFailed, SignerLost:
		return signing(o)
	case Absent, Other:
		return always(Disposition{Stage: pipeline.Creating, Do: DoLookUp}) // that id leads nowhere: search the pair
	case Initiating:
		return always(Disposition{Stage: pipeline.Challenged, Do: DoFetch})
	case Past:
		return always(Disposition{Stage: pipeline.Onboarded, Do: DoSettle})
	case RejectedThere:
		return always(Disposition{Stage: pipeline.Rejected, Do: DoSettle})
	}
	return nil
}

func creating(o Outcome) []Branch {
	switch o {
	case Created:
		return always(Disposition{Stage: pipeline.Challenged, Do: DoNext, Key: pipeline.KeySettled})
	case Unknown:
		return []Branch{
			// Rules "Silence keeps the key" and "Old keys are not trusted": the same key, or look up.
			{TriesLeft, Disposition{Do: DoNext, Wait: true, Key: pipeline.KeyOpen}},
			{Always, failed(ClassNoAnswer)},
		}
	case ServerFailed:
		return []Branch{
			{HeardTwice, Disposition{Do: DoLookUp, Key: pipeline.KeyAnswered}}, // it is stored: the key will say nothing else
			{TriesLeft, Disposition{Do: DoNext, Wait: true, Key: pipeline.KeyHeard}},
			{Always, failed(ClassServerError)},
		}
	case Conflicting:
		return []Branch{
			{TriesLeft, Disposition{Do: DoLookUp, Key: pipeline.KeyOpen}}, // rule "409 is a question": a question, not an answer
			{Always, failed(ClassConflictUnresolved)},
		}
	case Unprocessable:
		return []Branch{
			{FirstTries, Disposition{Do: DoLookUp, Wait: true, Key: pipeline.KeyAnswered}},
			{Always, failed(ClassKeyReused)},
		}
	case Invalid:
		return always(Disposition{Stage: pipeline.Failed, Do: DoSettle, Class: ClassNotAccepted, Key: pipeline.KeySettled})
	case Odd:
		return always(Disposition{Stage: pipeline.Failed, Do: DoSettle, Class: ClassUnexpected, Key: pipeline.KeyAnswered})
	case NotFound:
		return always(Disposition{Do: DoHalt, Class: HaltConfiguration}) // there is no POST /customers: a wrong base URL
	case Initiating:
		return always(Disposition{Stage: pipeline.Challenged, Do: DoFetch, Key: pipeline.KeySettled})
	case Past:
		return always(Disposition{Stage: pipeline.Onboarded, Do: DoSettle, Key: pipeline.KeySettled})
	case RejectedThere:
		return always(Disposition{Stage: pipeline.Rejected, Do: DoSettle, Key: pipeline.KeySettled})
	case Other:
		return always(Disposition{Stage: pipeline.Conflict, Do: DoSettle, Class: ClassTaken, Key: pipeline.KeySettled})
	case Unlisted: // that is no proof of absence: no other key, and an old one is not trusted
		return []Branch{
			{TriesSpent, failed(ClassConflictUnresolved)},
			{KeyForeign, failed(ClassConflictUnresolved)},
			{KeyFresh, Disposition{Do: DoCreate, Wait: true}},
			{Always, failed(ClassConflictUnresolved)},
		}
	case Absent:
		return []Branch{
			{Answered, Disposition{Do: DoRekey}},
			{KeyForeign, Disposition{Do: DoRekey}},
			// In flight, or never arrived: the same key, however old. A clock that was moved must not open another
			// generation while a request may still be in flight.
			{Always, Disposition{Do: DoCreate, Wait: true}},
		}
	}
	return nil
}

func challenged(o Outcome) []Branch {
	switch o {
	case GotChallenge:
		return always(Disposition{Do: DoCheck})
	case CheckPassed:
		return always(Disposition{Stage: pipeline.Signing, Do: DoSign})
	case Hostile:
		return always(Disposition{Stage: pipeline.Refused, Do: DoSettle, Class: ClassChallengeRefused})
	case Expiring:
		return []Branch{
			{TriesLeft, Disposition{Do: DoFetch, Wait: true}}, // rule "Fresh challenge"
			{Always, failed(ClassChallengeExpired)},
		}
	case NoChallenge:
		return []Branch{
			{TriesLeft, Disposition{Do: DoRead, Wait: true}}, // what has become of the customer?
			{Always, failed(ClassChallengeMissing)},
		}
	case Initiating:
		return always(Disposition{Do: DoFetch})
	case Past:
		return always(Disposition{Stage: pipeline.Onboarded, Do: DoSettle})
	case RejectedThere:
		return always(Disposition{Stage: pipeline.Rejected, Do: DoSettle})
	case Absent, Other:
		return always(failed(ClassCustomerGone))
	}
	return nil
}

func signing(o Outcome) []Branch {
	switch o {
	case Signed:
		return always(Disposition{Stage: pipeline.Submitting, Do: DoSubmit})
	case Hostile:
		return always(Disposition{Stage: pipeline.Refused, Do: DoSettle, Class: ClassChallengeRefused})
	case Expiring:
		return always(Disposition{Stage: pipeline.Challenged, Do: DoFetch})
	case NoKey:
		return always(failed(ClassKeyMissing))
	case Declined:
		return always(failed(ClassSignerDeclined))
	case Mismatch:
		return always(failed(ClassSignerMismatch))
	case SignerFailed:
		return []Branch{
			{TriesLeft, Disposition{Do: DoNext, Wait: true}},
			{Always, failed(ClassSignerError)},
		}
	case SignerLost:
		return always(Disposition{Do: DoHalt, Class: HaltSigner})
	case Waiting:
		return always(Disposition{Do: DoRepeat, Wait: true}) // a person may have to approve: it costs no try
	}
	return nil
}

func submitting(o Outcome) []Branch {
	switch o {
	case Accepted:
		return always(Disposition{Stage: pipeline.Onboarded, Do: DoSettle, Key: pipeline.KeySettled})
	case Unproven:
		return always(Disposition{Do: DoRead, Key: pipeline.KeyAnswered}) // only the customer's own status proves it
	case OldForm:
		return always(Disposition{Do: DoRead, Key: pipeline.KeyRefused})
	case Unknown: // the customer is read before anything else is decided, and before the row is given up
		return always(Disposition{Do: DoRead, Key: pipeline.KeyOpen})
	case ServerFailed:
		return always(Disposition{Do: DoRead, Key: pipeline.KeyAnswered})
	case Invalid:
		return always(Disposition{Do: DoRead, Key: pipeline.KeyRefused}) // refused, or not needed any more
	case Conflicting:
		return []Branch{
			{TriesLeft, Disposition{Do: DoRead, Key: pipeline.KeyOpen}},
			{Always, failed(ClassConflictUnresolved)},
		}
	case Unprocessable:
		return []Branch{
			{FirstTries, Disposition{Do: DoRead, Wait: true, Key: pipeline.KeyAnswered}},
			{Always, failed(ClassKeyReused)},
		}
	case NotFound:
		return []Branch{
			{FirstTries, Disposition{Do: DoRead, Wait: true, Key: pipeline.KeyAnswered}},
			{Always, failed(ClassCustomerGone)},
		}
	case Odd:
		return always(Disposition{Stage: pipeline.Failed, Do: DoSettle, Class: ClassUnexpected, Key: pipeline.KeyAnswered})
	case Past:
		return always(Disposition{Stage: pipeline.Onboarded, Do: DoSettle, Key: pipeline.KeySettled})
	case RejectedThere:
		return always(Disposition{Stage: pipeline.Rejected, Do: DoSettle, Key: pipeline.KeySettled})
	case Absent, Other:
		return always(failed(ClassCustomerGone))
	case Initiating:
		return []Branch{
			{LastRefusal, failed(ClassSignatureNotAccepted)},
			{SpentOdd, failed(ClassUnexpected)},
			{SpentHeard, failed(ClassServerError)},
			{TriesSpent, failed(ClassNoAnswer)},
			{SigRefused, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},
			{ChallengeOld, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},
			// Read and still initiating: another key cannot double anything (rule "Silence keeps the key").
			{Answered, Disposition{Do: DoRekey, Wait: true}},
			{KeyForeign, Disposition{Do: DoRekey}},
			{KeyFresh, Disposition{Do: DoSubmit, Wait: true}},
			{Always, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},
		}
	}
	return nil
}

func always(d Disposition) []Branch { return []Branch{{Always, d}} }

func failed(class Class) Disposition {
	return Disposition{Stage: pipeline.Failed, Do: DoSettle, Class: class}
}
