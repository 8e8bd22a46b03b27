package onboard

import "github.com/purser-onboard/purser/pipeline"

// cell returns the branches of one cell of the decision table, none for an impossible pair of stage and outcome.
// docs/state-machine.md is generated from it.
func cell(s pipeline.Stage, o outcome) []branch {
	if s.Terminal() {
		return nil
	}
	switch o { // what says something about the run and nothing about the row
	case misconfigured:
		return always(Disposition{Do: DoHalt, Class: HaltConfiguration})
	case throttled, notSent:
		return always(Disposition{Do: DoRepeat, Wait: true}) // rule "Throttling is not failure": costs no attempt
	case readFailed:
		return []branch{
			{attemptsLeft, Disposition{Do: DoRepeat, Wait: true}}, // nothing was changed by reading
			{otherwise, failed(classNoAnswer)},
		}
	case unrecognized: // a request that changed something is answered the same under its key, so nothing is doubled
		return []branch{
			{attemptsLeft, Disposition{Do: DoRepeat, Wait: true}},
			{otherwise, failed(classNotRecognized)},
		}
	case oddCustomer:
		return always(failed(classUnexpected))
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

// planned covers the signer's answer about the key, which is checked before anything is sent; and, if an earlier import
// already created the customer, so that its id is known, the customer's status.
func planned(o outcome) []branch {
	switch o {
	case noKey, declined, mismatch, signerFailed, signerLost:
		return signing(o)
	case absent, other:
		return always(Disposition{Stage: pipeline.Creating, Do: DoLookUp}) // that id leads nowhere: search the pair
	case initiating:
		return always(Disposition{Stage: pipeline.Challenged, Do: DoFetch})
	case past:
		return always(Disposition{Stage: pipeline.Onboarded, Do: DoSettle})
	case rejectedThere:
		return always(Disposition{Stage: pipeline.Rejected, Do: DoSettle})
	}
	return nil
}

func creating(o outcome) []branch {
	switch o {
	case created:
		return always(Disposition{Stage: pipeline.Challenged, Do: DoNext, Key: pipeline.KeySettled})
	case unknown:
		return []branch{
			// Rules "Silence keeps the key" and "Old keys are not trusted": the same key, or look up.
			{attemptsLeft, Disposition{Do: DoNext, Wait: true, Key: pipeline.KeyOpen}},
			{otherwise, failed(classNoAnswer)},
		}
	case serverFailed:
		return []branch{
			{heardTwice, Disposition{Do: DoLookUp, Key: pipeline.KeyAnswered}}, // it is stored: the key will say nothing else
			{attemptsLeft, Disposition{Do: DoNext, Wait: true, Key: pipeline.KeyHeard}},
			{otherwise, failed(classServerError)},
		}
	case conflicting:
		return []branch{
			{attemptsLeft, Disposition{Do: DoLookUp, Key: pipeline.KeyOpen}}, // rule "409 is a question"
			{otherwise, failed(classConflictUnresolved)},
		}
	case unprocessable:
		return []branch{
			{firstAttempts, Disposition{Do: DoLookUp, Wait: true, Key: pipeline.KeyAnswered}},
			{otherwise, failed(classKeyReused)},
		}
	case invalid:
		return always(Disposition{Stage: pipeline.Failed, Do: DoSettle, Class: classNotAccepted, Key: pipeline.KeySettled})
	case odd:
		return always(Disposition{Stage: pipeline.Failed, Do: DoSettle, Class: classUnexpected, Key: pipeline.KeyAnswered})
	case notFound:
		return always(Disposition{Do: DoHalt, Class: HaltConfiguration}) // there is no POST /customers: a wrong base URL
	case initiating:
		return always(Disposition{Stage: pipeline.Challenged, Do: DoFetch, Key: pipeline.KeySettled})
	case past:
		return always(Disposition{Stage: pipeline.Onboarded, Do: DoSettle, Key: pipeline.KeySettled})
	case rejectedThere:
		return always(Disposition{Stage: pipeline.Rejected, Do: DoSettle, Key: pipeline.KeySettled})
	case other:
		return always(Disposition{Stage: pipeline.Conflict, Do: DoSettle, Class: classTaken, Key: pipeline.KeySettled})
	case unlisted: // that is no proof of absence: no other key, and an old one is not trusted
		return []branch{
			{attemptsSpent, failed(classConflictUnresolved)},
			{keyForeign, failed(classConflictUnresolved)},
			{keyFresh, Disposition{Do: DoCreate, Wait: true}},
			{otherwise, failed(classConflictUnresolved)},
		}
	case absent:
		return []branch{
			{answered, Disposition{Do: DoRekey}},
			{keyForeign, Disposition{Do: DoRekey}},
			// In flight, or never arrived: the same key, however old. A clock that was moved must not open another
			// generation while a request may still be in flight.
			{otherwise, Disposition{Do: DoCreate, Wait: true}},
		}
	}
	return nil
}

func challenged(o outcome) []branch {
	switch o {
	case gotChallenge:
		return always(Disposition{Do: DoCheck})
	case checkPassed:
		return always(Disposition{Stage: pipeline.Signing, Do: DoSign})
	case hostile:
		return always(Disposition{Stage: pipeline.Refused, Do: DoSettle, Class: classChallengeRefused})
	case expiring:
		return []branch{
			{attemptsLeft, Disposition{Do: DoFetch, Wait: true}}, // rule "Fresh challenge"
			{otherwise, failed(classChallengeExpired)},
		}
	case noChallenge:
		return []branch{
			{attemptsLeft, Disposition{Do: DoRead, Wait: true}}, // what has become of the customer?
			{otherwise, failed(classChallengeMissing)},
		}
	case initiating:
		return always(Disposition{Do: DoFetch})
	case past:
		return always(Disposition{Stage: pipeline.Onboarded, Do: DoSettle})
	case rejectedThere:
		return always(Disposition{Stage: pipeline.Rejected, Do: DoSettle})
	case absent, other:
		return always(failed(classCustomerGone))
	}
	return nil
}

func signing(o outcome) []branch {
	switch o {
	case signed:
		return always(Disposition{Stage: pipeline.Submitting, Do: DoSubmit})
	case hostile:
		return always(Disposition{Stage: pipeline.Refused, Do: DoSettle, Class: classChallengeRefused})
	case expiring:
		return always(Disposition{Stage: pipeline.Challenged, Do: DoFetch})
	case noKey:
		return always(failed(classKeyMissing))
	case declined:
		return always(failed(classSignerDeclined))
	case mismatch:
		return always(failed(classSignerMismatch))
	case signerFailed:
		return []branch{
			{attemptsLeft, Disposition{Do: DoNext, Wait: true}},
			{otherwise, failed(classSignerError)},
		}
	case signerLost:
		return always(Disposition{Do: DoHalt, Class: HaltSigner})
	case waiting:
		return always(Disposition{Do: DoRepeat, Wait: true}) // a person may have to approve: it costs no attempt
	}
	return nil
}

func submitting(o outcome) []branch {
	switch o {
	case accepted:
		return always(Disposition{Stage: pipeline.Onboarded, Do: DoSettle, Key: pipeline.KeySettled})
	case unproven:
		return always(Disposition{Do: DoRead, Key: pipeline.KeyAnswered}) // only the customer's own status proves it
	case oldForm:
		return always(Disposition{Do: DoRead, Key: pipeline.KeyRefused})
	case unknown:
		return []branch{
			// Sending the same again under the same key is as informative as reading the customer, and one of the two is enough
			// if nothing has arrived. It is bounded: a missing answer must not keep a worker.
			{firstFailure, Disposition{Do: DoNext, Wait: true, Key: pipeline.KeyOpen}},
			{otherwise, Disposition{Do: DoRead, Key: pipeline.KeyOpen}},
		}
	case serverFailed:
		return always(Disposition{Do: DoRead, Key: pipeline.KeyAnswered})
	case invalid:
		return always(Disposition{Do: DoRead, Key: pipeline.KeyRefused}) // not accepted, or not needed any more
	case conflicting:
		return []branch{
			{attemptsLeft, Disposition{Do: DoRead, Key: pipeline.KeyOpen}},
			{otherwise, failed(classConflictUnresolved)},
		}
	case unprocessable:
		return []branch{
			{firstAttempts, Disposition{Do: DoRead, Wait: true, Key: pipeline.KeyAnswered}},
			{otherwise, failed(classKeyReused)},
		}
	case notFound:
		return []branch{
			{firstAttempts, Disposition{Do: DoRead, Wait: true, Key: pipeline.KeyAnswered}},
			{otherwise, failed(classCustomerGone)},
		}
	case odd:
		return always(Disposition{Stage: pipeline.Failed, Do: DoSettle, Class: classUnexpected, Key: pipeline.KeyAnswered})
	case past:
		return always(Disposition{Stage: pipeline.Onboarded, Do: DoSettle, Key: pipeline.KeySettled})
	case rejectedThere:
		return always(Disposition{Stage: pipeline.Rejected, Do: DoSettle, Key: pipeline.KeySettled})
	case absent, other:
		return always(failed(classCustomerGone))
	case initiating:
		return []branch{
			{lastRefusal, failed(classSignatureNotAccepted)},
			{spentOdd, failed(classUnexpected)},
			{spentHeard, failed(classServerError)},
			{attemptsSpent, failed(classNoAnswer)},
			{sigNotAccepted, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},
			{challengeOld, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},
			// Read and still initiating: another key cannot double anything (rule "Silence keeps the key").
			{answered, Disposition{Do: DoRekey, Wait: true}},
			{keyForeign, Disposition{Do: DoRekey}},
			{keyFresh, Disposition{Do: DoSubmit, Wait: true}},
			{otherwise, Disposition{Stage: pipeline.Challenged, Do: DoFetch}},
		}
	}
	return nil
}

func always(d Disposition) []branch { return []branch{{otherwise, d}} }

func failed(class Class) Disposition {
	return Disposition{Stage: pipeline.Failed, Do: DoSettle, Class: class}
}
