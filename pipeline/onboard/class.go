package onboard

// Class is the machine-readable kind of a bad end of a row, or of a halt of the run. The values are kept in the ledger,
// the results and the report: they never change.
type Class string

// With these, rows end.
const (
	ClassNoAnswer             Class = "no-answer"           // no response, though the partner answers others
	ClassServerError          Class = "server-error"        // 5xx again and again, though the partner answers others
	ClassNotRecognized        Class = "unrecognized"        // 2xx whose body has a form that is not known
	ClassUnexpected           Class = "unexpected"          // a status that the partner does not document
	ClassConflictUnresolved   Class = "conflict-unresolved" // 409, and the customer is neither there nor created
	ClassKeyReused            Class = "unprocessable"       // 422: the key was used with another request
	ClassNotAccepted          Class = "invalid"             // 400: the partner does not accept the request
	ClassTaken                Class = "taken"               // the account or externalId belongs to another customer
	ClassChallengeRefused     Class = "challenge"           // the challenge fails the policy; nothing was signed
	ClassChallengeExpired     Class = "challenge-expired"   // each new challenge has run out already
	ClassChallengeMissing     Class = "no-challenge"        // the partner gives no challenge
	ClassCustomerGone         Class = "customer-gone"       // the customer was there and no longer is
	ClassKeyMissing           Class = "no-key"              // the signer has no key of the account
	ClassSignerDeclined       Class = "declined"            // the signer declined
	ClassSignerMismatch       Class = "signer-mismatch"     // the signature is another account's
	ClassSignerError          Class = "signer-error"        // the signer failed
	ClassSignatureNotAccepted Class = "signature-refused"   // 400: the partner does not accept the signatures
)

// With these, or with the class of the rows that ended alike, a run halts.
const (
	HaltConfiguration Class = "configuration" // a setting is wrong
	HaltSigner        Class = "signer"        // the signer is locked, absent or failing
	HaltUnreachable   Class = "unreachable"   // the partner is away, or only throttles
	HaltResources     Class = "resources"     // no file descriptor is left
	HaltLedger        Class = "ledger"        // the ledger cannot be written
	HaltImpossible    Class = "impossible"    // a bug: stage and outcome cannot meet
)
