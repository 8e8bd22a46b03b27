// Package siwe reads Sign-In with Ethereum messages (ERC-4361) and, as a separate act, decides whether one may be
// signed.
//
// An unattended program asks an HSM to sign whatever Policy.Check lets through, so the two acts are kept apart. Parse
// answers "is this, byte for byte, a sign-in message?" and knows nothing of whom it is for. Policy.Check answers "is
// it this customer's own challenge, from our partner, now?" (rule 8 of the design). A message that parses has no
// permission yet.
//
// # Parsing
//
// Parse accepts the grammar of ERC-4361, "ABNF Message Format", with its references to RFC 3986 and RFC 3339, and
// never repairs: for every text it accepts, Message.String gives back the same bytes. Where the grammar leaves room
// that the specification's prose or our purpose closes, the narrower reading holds:
//
//   - The domain is REQUIRED, so an empty one, which RFC 3986's authority would allow, is refused.
//   - The address must be in EIP-55 form, 0x in lower case. All-lower and all-upper digits pass only where they happen
//     to be the checksummed form.
//   - The chain id has no leading zeros and fits 64 bits.
//   - A date-time must exist in the calendar. A leap second (:60) is taken in the last UTC minute of a month only, as
//     RFC 3339 section 5.7 has it, and stands for the first instant of the next month.
//   - The text has at most MaxLength bytes.
//
// Lines end in LF alone, and nothing follows the last field, not even an LF. Without a statement there are two empty
// lines between address and URI. With one there is an empty line on either side of it. The grammar allows the
// statement to be empty, which makes three empty lines; Message.HasStatement tells this from having none.
//
// # Permission
//
// Policy.Check compares names, never what names resolve to. Domain and URI host are compared whole, port included,
// ignoring the case of ASCII letters only (RFC 3986 section 3.2.2 makes hosts case-insensitive). Nothing else is made
// equal: not a default port and its absence, not a trailing dot, not percent-encoded letters, not two spellings of an
// IPv6 address, not punycode and its Unicode form. User information ("partner@evil.example") is part of the compared
// text and therefore never passes. Look-alikes in other scripts are not ASCII and do not even parse; their punycode
// form is another name.
//
// The scheme: the URI must be https, or http where AllowHTTP says so. A scheme written before the domain must be the
// URI's own; a mismatch is refused. Without one ERC-4361 assumes https, and the domain takes the URI's scheme here,
// so that a partner on loopback may say "127.0.0.1:8080" and "http://127.0.0.1:8080".
//
// Resources are refused, the bare heading "Resources:" too, unless AllowResources is set. A resource can turn a
// sign-in into a delegation: under ERC-5573 a last resource "urn:recap:…" gives the URI's owner capabilities over the
// account's things elsewhere, and there is no person here to read and consent. So ReCaps are refused even under
// AllowResources, and so is a statement that speaks their formula, which stands for the same consent.
//
// The statement must be the configured one, byte for byte, unless AnyStatement is set: a signed sentence may bind the
// account's owner to anything. The URI has no path, query or fragment, or is exactly the configured one. A request id
// is refused unless AllowRequestID is set. An expiration time lies after issued-at by at most the lifetime of a
// challenge and the tolerated skew; a not-before lies before it. Each refusal names the setting that permits another
// value.
//
// The nonce's value is the partner's to choose. That no two challenges have the same one takes a memory, which is the
// ledger's business.
package siwe
