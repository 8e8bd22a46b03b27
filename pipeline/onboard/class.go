package onboard

// Class is the machine-readable kind of a row that ended badly, or of a halt of the run. The values are kept in the
// ledger, the results and the report: they never change.
type Class string

// With these, rows end.
const (
	classNoAnswer             Class = "no-answer"           // no response, though the partner answers others
	classServerError          Class = "server-error"        // 5xx again and again, though the partner answers others
	classNotRecognized        Class = "unrecognized"        // 2xx whose body has a form that is not known
	classUnexpected           Class = "unexpected"          // a status that the partner does not document
	classConflictUnresolved   Class = "conflict-unresolved" // 409, and the customer is neither there nor created
	classKeyReused            Class = "unprocessable"       // 422: the key was used with another request
	classNotAccepted          Class = "invalid"             // 400: the partner does not accept the request
	classTaken                Class = "taken"               // the account or externalId belongs to another customer
	classChallengeRefused     Class = "challenge"           // the challenge fails the policy; nothing was signed
	classChallengeExpired     Class = "challenge-expired"   // each new challenge has run out already
	classChallengeMissing     Class = "no-challenge"        // the partner gives no challenge
	classCustomerGone         Class = "customer-gone"       // the customer was there and no longer is
	classKeyMissing           Class = "no-key"              // the signer has no key of the account
	classSignerDeclined       Class = "declined"            // the signer declined
	classSignerMismatch       Class = "signer-mismatch"     // the signature is another account's
	classSignerError          Class = "signer-error"        // the signer failed
	classSignatureNotAccepted Class = "signature-refused"   // 400: the partner does not accept the signatures
)

// Classes returns the classes of rows that ended badly, as in ClassOf.
func Classes() []Class {
	return []Class{
		classNoAnswer, classServerError, classNotRecognized, classUnexpected, classConflictUnresolved, classKeyReused,
		classNotAccepted, classTaken, classDuplicate, classRejected, classChallengeRefused, classChallengeExpired,
		classChallengeMissing, classCustomerGone, classKeyMissing, classSignerDeclined, classSignerMismatch,
		classSignerError, classSignatureNotAccepted,
	}
}

// Classes of halts; a run may also halt with the class of its rows.
const (
	HaltConfiguration Class = "configuration" // a setting is wrong
	HaltSigner        Class = "signer"        // the signer is locked, absent or failing
	HaltUnreachable   Class = "unreachable"   // the partner is away, or only throttles
	HaltResources     Class = "resources"     // no file descriptor is left
	HaltLedger        Class = "ledger"        // the ledger cannot be written
	HaltImpossible    Class = "impossible"    // a bug: stage and outcome cannot meet
)
