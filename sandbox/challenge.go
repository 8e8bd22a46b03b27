package sandbox

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// vendorStatement is the statement of the vendor's own example. [doc]
const vendorStatement = "OffBlocks wants to verify ownership of your wallet. By connecting your wallet and using " +
	"OffBlocks, you agree to our Terms of services and Privacy Policy"

// SignatureEncoding is the form in which a wallet signature is submitted.
type SignatureEncoding string

// The forms of a submitted wallet signature: 65 bytes r, s, v, v being 27 or 28.
const (
	EncodingHex SignatureEncoding = "hex" // base64 of the text 0x… [doc]
	EncodingRaw SignatureEncoding = "raw" // base64 of the bytes [inferred]
	EncodingAny SignatureEncoding = "any" // either
)

func (e SignatureEncoding) known() bool {
	return e == "" || e == EncodingHex || e == EncodingRaw || e == EncodingAny
}

// challenge is a sign-in message issued to a customer. Its text is not kept but derived when it is needed, so that the
// judge can know every challenge ever issued in little memory.
type challenge struct {
	number  int // 1 for the first
	issued  time.Time
	scheme  string
	domain  string
	hostile Fault  // empty: an honest one
	nonce   string // of challengeNonce: that of another challenge
}

// challengeText writes the message as EIP-4361 has it and the vendor's example shows it [doc], or the hostile variant.
// It is written out here, not by package siwe, so that the client's parser is tested with a text from other code.
func (s *Server) challengeText(c *customer, ch challenge) string {
	m := signIn{
		domain:    ch.domain,
		address:   common.HexToAddress(c.account.address).Hex(),
		statement: s.cfg.Statement,
		uri:       s.cfg.ChallengeURI,
		chain:     strconv.FormatUint(c.account.chain, 10),
		nonce:     s.nonceOf(c, ch),
		issued:    ch.issued,
	}
	if m.uri == "" {
		m.uri = ch.scheme + "://" + ch.domain
	}
	if ch.hostile != "" {
		return s.hostileText(c, ch, m)
	}
	return m.text()
}

func (s *Server) nonceOf(c *customer, ch challenge) string {
	return s.seed.nonce(16, "nonce", c.id, strconv.Itoa(ch.number))
}

type signIn struct {
	domain, address, statement, uri, chain, nonce string
	issued                                        time.Time
}

func (m signIn) text() string {
	return m.domain + " wants you to sign in with your Ethereum account:\n" + m.address + "\n\n" + m.statement +
		"\n\nURI: " + m.uri + "\nVersion: 1\nChain ID: " + m.chain + "\nNonce: " + m.nonce +
		"\nIssued At: " + timeText(m.issued)
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// renew makes the customer's next challenge. The caller holds c.mu, or no other goroutine knows c.
func (x *exchange) renew(c *customer) challenge {
	s := x.s
	scheme, domain := "http", s.cfg.Domain
	if x.r.TLS != nil {
		scheme = "https"
	}
	if domain == "" {
		domain = x.r.Host
	}
	ch := challenge{number: len(c.challenges) + 1, issued: s.now(), scheme: scheme, domain: domain}
	ch.hostile = s.drawHostile(x.st, c.id, ch.number)
	if ch.hostile == challengeNonce {
		ch.nonce = *x.st.signed.Load()
	}
	if ch.hostile != "" {
		x.entry.note(ch.hostile)
	}
	c.challenges = append(c.challenges, ch)
	return ch
}

// readChallenge answers GET …/challenge: the current challenge, or a new one when that has expired. [doc]
func (x *exchange) readChallenge() (reply, *refusal) {
	c := x.st.customers.find(x.id)
	if c == nil {
		return reply{}, noCustomer()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status != StatusInitiating {
		return reply{}, pastInitiating(c.status)
	}
	ch := c.current()
	if x.s.expired(ch) {
		ch = x.renew(c)
	}
	return jsonReply(200, struct {
		Challenge string `json:"challenge"`
	}{encodeChallenge(x.s.challengeText(c, ch))}), nil
}

func encodeChallenge(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func (s *Server) expired(ch challenge) bool {
	return ch.number == 0 || s.now().Sub(ch.issued) >= s.cfg.ChallengeTTL
}

// sign answers POST …/challenge/sign. A signature that does not verify ends the challenge: a new one can be fetched.
// [doc] A submission that is not a signature, or names another owner, does not. [inferred]
func (x *exchange) sign() (reply, *refusal) {
	f, err := decodeStrings(x.body, "ownerId", "signature")
	if err != nil {
		return reply{}, badRequest("%v", err)
	}
	if err := checkSignature(f["signature"], x.s.cfg.Encoding); err != nil {
		return reply{}, badRequest("signature %v", err)
	}
	c := x.st.customers.find(x.id)
	if c == nil {
		return reply{}, noCustomer()
	}
	if !strings.EqualFold(f["ownerId"], c.account.text) {
		return reply{}, badRequest("ownerId is not the customer's account")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status != StatusInitiating {
		return reply{}, pastInitiating(c.status)
	}
	current := c.current()
	var why string
	switch {
	case x.s.expired(current):
		why = "the challenge has expired"
	case x.over.number != current.number:
		why = "it does not recover to the customer's address over the current challenge"
	case current.hostile != "":
		why = "the challenge was not the customer's sign-in message" // a client must never sign it
	case x.plan.use(x, refuseSignature):
		why = "it could not be verified"
	}
	if why != "" {
		x.renew(c)
		return reply{}, refuse(400, "invalid_signature", "signature refused: %s; a new challenge is available", why)
	}
	nonce := x.s.nonceOf(c, current)
	x.st.signed.Store(&nonce)
	c.status = StatusScreening
	c.updated = x.s.now()
	return reply{status: 204}, nil
}

// checkSignature checks the form of a submitted signature. It must be canonical as wallets make it: v 27 or 28, s in
// the lower half of the order (EIP-2). [inferred]
func checkSignature(text string, encoding SignatureEncoding) error {
	var sig [65]byte
	inner, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return errors.New("is not base64")
	}
	switch {
	case len(inner) == len(sig) && encoding != EncodingHex:
		copy(sig[:], inner)
	case isHex(string(inner), 2*len(sig)) && encoding != EncodingRaw:
		if _, err := hex.Decode(sig[:], inner[2:]); err != nil {
			return errors.New("is not hex")
		}
	case encoding == EncodingRaw:
		return errors.New("is not 65 bytes in base64")
	default:
		return errors.New("is not 0x and 130 hex digits in base64")
	}
	if sig[64] != 27 && sig[64] != 28 {
		return errors.New("has a v that is neither 27 nor 28")
	}
	r, s := common.BytesToHash(sig[:32]).Big(), common.BytesToHash(sig[32:64]).Big()
	if !crypto.ValidateSignatureValues(sig[64]-27, r, s, true) {
		return errors.New("has r or s out of range, or s in the upper half")
	}
	return nil
}

// signedOver returns which of all challenges ever issued to the customer the signature is over; its number is 0 when
// there is none.
func (s *Server) signedOver(c *customer, sig [65]byte) challenge {
	c.mu.Lock()
	issued := c.challenges // append-only: what is there does not change
	c.mu.Unlock()
	want := common.HexToAddress(c.account.address)
	for i := len(issued) - 1; i >= 0; i-- {
		if got, ok := recoverSigner(s.challengeText(c, issued[i]), sig); ok && got == want {
			return issued[i]
		}
	}
	return challenge{}
}

// recoverSigner returns the address that made the personal-message signature (EIP-191, version 0x45) over the text.
func recoverSigner(text string, sig [65]byte) (common.Address, bool) {
	if sig[64] >= 27 {
		sig[64] -= 27
	}
	digest := crypto.Keccak256([]byte("\x19Ethereum Signed Message:\n"+strconv.Itoa(len(text))), []byte(text))
	pub, err := crypto.SigToPub(digest, sig[:])
	if err != nil {
		return common.Address{}, false
	}
	return crypto.PubkeyToAddress(*pub), true
}

func noCustomer() *refusal { return refuse(404, "not_found", "no such customer") }

func pastInitiating(status Status) *refusal {
	return refuse(409, "invalid_state", "customer is %s: there is no challenge to sign", status)
}
