package onboard

import "github.com/purser-onboard/purser/pipeline"

// Classes of rows that ended badly without a class of this package. docs/runbook.md has a section for each class.
const (
	classDuplicate Class = "duplicate" // the ledger's: the row contradicts an earlier row of the exports
	classRejected  Class = "rejected"  // of a row without a class in the stage of that name
)

// ClassOf returns the runbook's class for a row that ended badly.
func ClassOf(class string, s pipeline.Stage) Class {
	if class == "" && s == pipeline.Rejected {
		return classRejected
	}
	return Class(class)
}

// Runbook returns the runbook's section about a class; empty for an unknown class.
func (c Class) Runbook() string {
	if c.Advice() == "" {
		return ""
	}
	return "docs/runbook.md#" + string(c)
}

// Advice returns one or two sentences on what to do about rows that ended, or a run that halted, with a class; empty
// for an unknown class. docs/runbook.md has the same text.
func (c Class) Advice() string {
	switch c {
	case classNoAnswer:
		return "Ask the partner why these requests get no response; --request-timeout may be too short. Then import the " +
			"rows again."
	case classServerError:
		return "Give the partner the time of the requests and ask for the cause. Then import the rows again."
	case classNotRecognized:
		return "Compare --api-url with the partner's documentation: the responses are malformed. Then import " +
			"the rows again."
	case classUnexpected:
		return "Ask the partner what the status in the reason means. Do not import the rows again until you know."
	case classConflictUnresolved:
		return "Run `consumer reconcile`, and ask the partner whether the customer exists. Then import the rows again."
	case classKeyReused:
		return "Make sure that no other program uses the same --api-key. Then import the rows again."
	case classNotAccepted:
		return "Correct the rows, the importer's --chain or --api-url: the partner answers 400 to the creation."
	case classTaken:
		return "Find out which customer owns the account and the externalId. Correct the export or the " +
			"partner's customer."
	case classDuplicate:
		return "Decide which of the two rows is right, and remove the other from the export."
	case classRejected:
		return "Ask the partner why it rejected the customer. A new import does not change the verdict."
	case classChallengeRefused:
		return "Compare the challenge with the policy before you change a setting: the reason names the part " +
			"that differs, and the setting."
	case classChallengeExpired:
		return "Check --challenge-ttl and this machine's clock, and how long the signer takes. Then import the rows again."
	case classChallengeMissing:
		return "Ask the partner why the customer has no challenge. Then import the rows again."
	case classCustomerGone:
		return "Ask the partner what happened to the customer. Then import the rows again."
	case classKeyMissing:
		return "Add the account's key to the signer, or correct --signer. Then import the rows again."
	case classSignerDeclined:
		return "Find in the signer's own log who declined to sign, and why. Then import the rows again."
	case classSignerMismatch:
		return "Correct the signer's mapping of accounts to keys: it signed with another account's key. Nothing " +
			"was sent."
	case classSignerError:
		return "Check the signer's own log for the error in the reason. Then import the rows again."
	case classSignatureNotAccepted:
		return "Check --signature-encoding, and that --signer holds the customers' own keys. Then import the rows again."
	case HaltConfiguration:
		return "Correct the setting that the reason names, and run `consumer check`. Then run again."
	case HaltSigner:
		return "Unlock or repair the signer, and run `consumer check`. Then run again."
	case HaltUnreachable:
		return "Wait until `consumer check` reaches the partner. Then run again."
	case HaltResources:
		return "Raise the open file limit (ulimit -n), or lower --concurrency. Then run again."
	case HaltLedger:
		return "Free space on the ledger's disk, or repair it. Then run again."
	case HaltImpossible:
		return "Keep a copy of the data directory, and report the bug with the reason. Then run again."
	}
	return ""
}
