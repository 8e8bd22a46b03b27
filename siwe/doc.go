// Package siwe parses Sign-In with Ethereum messages (ERC-4361) and decides, in a second step, whether a message may be
// signed.
//
// An unattended program has an HSM sign every message that Policy.Check allows, so the two steps are separate. Parse
// answers "is this text exactly a sign-in message?" and does not know whose it is. Policy.Check answers "is it this
// customer's own challenge, from our partner, now?" (the rule "Sign nothing blind" in docs/rules.md). A parsed message
// is not yet allowed to be signed.
//
// # Parsing
//
// Parse accepts the grammar of ERC-4361, "ABNF Message Format", with its references to RFC 3986 and RFC 3339, and
// never repairs a text: for every text that it accepts, Message.String returns the same bytes. It is narrower than the
// grammar where the specification's prose or our purpose requires it:
//
//   - The domain is REQUIRED, so an empty domain, which RFC 3986's authority would allow, is an error.
//   - The address must be in EIP-55 form, 0x in lower case. All-lower and all-upper digits are accepted only where they
//     are the checksummed form.
//   - The chain id has no leading zeros and fits 64 bits.
//   - A date-time must exist in the calendar. A leap second (:60) is accepted only in the last UTC minute of a month
//     (RFC 3339 section 5.7) and stands for the first instant of the next month.
//   - The text has at most 8 KiB.
//
// Lines end in LF alone, and nothing follows the last field, not even an LF. Without a statement there are two empty
// lines between address and URI. A statement has an empty line before and after it. The grammar allows an empty
// statement, which makes three empty lines; Message.HasStatement distinguishes it from no statement.
//
// # Permission
//
// Policy.Check compares names as text; it does not resolve them. Domain and URI host are compared including the port,
// ignoring only the case of ASCII letters (RFC 3986 section 3.2.2 makes hosts case-insensitive). There is no other
// normalisation: a default port differs from no port, "example.com." from "example.com", a percent-encoded letter from
// the letter, an IPv6 address from its other spellings, punycode from its Unicode form. User information
// ("partner@evil.example") is part of the compared text and therefore never equal. Look-alikes in other scripts are not
// ASCII and do not parse; their punycode form is another name.
//
// The scheme of the URI must be https, or http if AllowHTTP is set. A scheme before the domain must be that of the URI.
// ERC-4361 assumes https for a domain without a scheme; here the domain takes the scheme of the URI, so that a partner
// on loopback may send "127.0.0.1:8080" and "http://127.0.0.1:8080".
//
// Resources, including the heading "Resources:" alone, are refused unless AllowResources is set. A resource can turn a
// sign-in into a delegation: under ERC-5573 a last resource "urn:recap:…" gives the URI's owner capabilities over the
// account's assets elsewhere, and an unattended program cannot consent to that. ReCaps are therefore refused even if
// AllowResources is set, and so is a statement with the text that ERC-5573 prescribes for them.
//
// The statement must equal the configured statement byte for byte unless AnyStatement is set, because a signed sentence
// may bind the account's owner to anything. The URI must have no path, query or fragment, or equal the configured URI.
// A request id is refused unless AllowRequestID is set. An expiration time must be after issued-at, by at most the
// lifetime of a challenge plus the tolerated skew; a not-before must be before the expiration time. Each refusal names
// the setting that allows another value.
//
// The partner chooses the nonce. Policy.Check has no memory: the ledger checks that no two challenges share a nonce.
package siwe
