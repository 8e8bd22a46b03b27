package sandbox

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/purser-onboard/purser/httpsig"
)

// exchange is a request and its answer.
type exchange struct {
	s  *Server
	st *state
	w  http.ResponseWriter
	r  *http.Request

	op      Operation
	id      string // customer id from the path
	body    []byte
	caller  string // the API key, once the token is checked
	subject string
	attempt int
	plan    plan
	page    page
	over    challenge // which challenge a submitted signature is over; number 0: none

	entry  Entry
	record *record
}

func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, canaryPath) {
		s.serveCanary(w, r)
		return
	}
	x := &exchange{s: s, st: s.state.Load(), w: w, r: r}
	var allow string
	x.op, x.id, allow = route(r.Method, r.URL.EscapedPath())
	x.entry = Entry{
		Time:       s.now(),
		Elapsed:    s.cfg.Now().Sub(s.began),
		Method:     r.Method,
		Path:       cut(r.URL.EscapedPath(), 200),
		Op:         x.op,
		Key:        cut(r.Header.Get("Idempotency-Key"), 100),
		CustomerID: cut(x.id, 100),
	}
	x.record = x.st.history.arrive(&x.entry)
	if x.op == "" {
		x.deliver(x.noEndpoint(allow))
		return
	}
	x.deliver(x.answer())
}

func (x *exchange) noEndpoint(allow string) reply {
	if allow == "" {
		return x.render(refuse(http.StatusNotFound, "not_found", "no such endpoint"))
	}
	r := x.render(refuse(http.StatusMethodNotAllowed, "method_not_allowed", "allowed: %s", allow))
	r.allow = allow
	return r
}

// render turns a refusal into the answer of the configured shape and notes its reason.
func (x *exchange) render(f *refusal) reply {
	x.entry.Reason = f.detail
	return x.s.render(f, x.op, x.subject, x.attempt)
}

// answer makes the checks in the order of the package documentation, then executes the operation.
func (x *exchange) answer() reply {
	if refused := x.readBody(); refused != nil {
		return x.render(refused)
	}
	x.observe()
	if r, full := x.throttle(); full {
		return r
	}
	if x.r.URL.RawQuery != "" && !x.readCursor() {
		return x.render(badRequest("the API takes no query parameters")) // [inferred]
	}
	if x.op == OpToken {
		return x.answerToken()
	}
	for _, check := range []func() *refusal{x.checkToken, x.checkSignature, x.checkBody, x.checkKey} {
		if refused := check(); refused != nil {
			return x.render(refused)
		}
	}
	x.subject = x.entry.Account
	switch {
	case x.op.setsUp():
		x.subject = x.caller
	case x.op != OpCreate:
		x.subject = x.id
	}
	if f := x.drawFaults(); f != "" {
		return x.early(f)
	}
	if !x.op.keyed() {
		x.wait()
		r, refused := x.execute()
		if refused != nil {
			r = x.render(refused)
		}
		return r
	}
	return x.answerOnce()
}

func (x *exchange) drawFaults() Fault {
	x.attempt = x.st.attempts.next(string(x.op), x.subject)
	x.entry.Subject, x.entry.Attempt = x.subject, x.attempt
	return x.drawEarly()
}

// throttle applies Config.Rate. It uses Config.Now, so that Advance does not fill the bucket.
func (x *exchange) throttle() (reply, bool) {
	if x.s.limiter == nil || x.s.limiter.AllowN(x.s.cfg.Now(), 1) {
		return reply{}, false
	}
	r := x.render(refuse(http.StatusTooManyRequests, "rate_limited", "more than %v requests a second", x.s.cfg.Rate))
	r.retryAfter = retryAfter(x.s.now(), time.Second, x.s.retries.Add(1)%2 == 0)
	return r, true
}

func (x *exchange) readBody() *refusal {
	body, err := io.ReadAll(http.MaxBytesReader(x.w, x.r.Body, x.s.cfg.MaxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return refuse(http.StatusRequestEntityTooLarge, "too_large", "body is larger than %d bytes", x.s.cfg.MaxBody)
	}
	if err != nil {
		x.entry.Cut = true
		return badRequest("body could not be read")
	}
	x.body = body
	return nil
}

func (x *exchange) checkToken() *refusal {
	c, refused := x.st.tokens.check(x.r.Header["Authorization"], x.s.now())
	x.entry.APIKey = c.Subject
	if refused != nil {
		return refused
	}
	switch generation, known := x.s.programs.generation(c.Subject); {
	case !known:
		return unauthorized("the token's API key no longer exists")
	case c.Generation != generation:
		return unauthorized("token is from before the credentials were replaced")
	}
	x.caller = c.Subject
	return nil
}

// checkSignature requires a signature by the API key's own signing key: every authenticated request is signed. [doc]
// Exceptions are PUT /auth/signing of an API key without a signing key, whose signature could not be verified, and of
// the key that is registered already, because the answer with the key id may have been lost. [inferred]
func (x *exchange) checkSignature() *refusal {
	if x.op == OpPutKey {
		_, registered := x.s.programs.signingKey(x.caller)
		if registered == nil {
			return nil
		}
		if _, public, err := x.publicKey(); err == nil && registered.Equal(public) {
			return nil
		}
	}
	verified, err := x.s.verifier.Verify(x.r)
	if err == nil && x.s.programs.owner(verified.KeyID) != x.caller {
		err = errors.New("the key belongs to another API key")
	}
	if err != nil {
		x.entry.BadSignature = true
		return x.s.badSignature(err)
	}
	x.entry.KeyID = verified.KeyID
	return nil
}

// checkBody requires digest and media type of a body, and no body where the operation has none. [doc] for the digest.
func (x *exchange) checkBody() *refusal {
	if !x.op.hasBody() {
		if len(x.body) > 0 {
			return badRequest("%s takes no body", x.op)
		}
		return nil
	}
	if x.op != OpToken { // not signed, and no document requires a digest
		if err := httpsig.VerifyContentDigest(x.r.Header, x.body); err != nil {
			return badRequest("%v", err)
		}
	}
	if !isJSON(x.r.Header["Content-Type"]) {
		return refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "Content-Type must be application/json")
	}
	return nil
}

func (x *exchange) checkKey() *refusal {
	if !x.op.keyed() {
		return nil
	}
	switch keys := x.r.Header["Idempotency-Key"]; {
	case len(keys) == 0 || keys[0] == "":
		return badRequest("Idempotency-Key is missing")
	case len(keys) > 1:
		return badRequest("Idempotency-Key occurs %d times", len(keys))
	case !isUUID(keys[0]):
		return badRequest("Idempotency-Key is not a UUID")
	}
	return nil
}

// answerToken answers POST /auth/token, which is neither signed nor keyed. [doc]
func (x *exchange) answerToken() reply {
	if refused := x.checkBody(); refused != nil {
		return x.render(refused)
	}
	f, err := decodeStrings(x.body, "apiKey", "apiSecret")
	if err != nil {
		return x.render(badRequest("%v", err))
	}
	if !isUUID(f["apiKey"]) {
		return x.render(badRequest("apiKey is not a UUID"))
	}
	generation, ok := x.s.programs.secretMatches(f["apiKey"], f["apiSecret"])
	if !ok {
		return x.render(unauthorized("apiKey and apiSecret do not match"))
	}
	x.subject, x.entry.APIKey = f["apiKey"], f["apiKey"]
	if fault := x.drawFaults(); fault != "" {
		return x.early(fault)
	}
	x.wait()
	token, expires := x.st.tokens.issue(f["apiKey"], generation, x.s.now(), x.s.cfg.TokenTTL)
	return jsonReply(http.StatusOK, struct {
		Token     string `json:"token"`
		ExpiresAt int64  `json:"expiresAt"`
		TokenType string `json:"tokenType"`
	}{token, expires, "Bearer"})
}

// answerOnce executes a request with a key once, or returns the stored answer.
func (x *exchange) answerOnce() (r reply) {
	name := keyName{x.caller, strings.ToLower(x.r.Header.Get("Idempotency-Key"))}
	keys := &x.st.keys
	payload := sha256.Sum256([]byte(x.r.Method + " " + x.r.URL.EscapedPath() + "\n" + string(x.body)))
	claim, stored := keys.claim(name, payload, x.s.now())
	switch claim {
	case claimReplay:
		x.entry.Replayed = true
		return stored
	case claimInFlight:
		return x.render(x.concurrency())
	case claimMismatch:
		return x.render(refuse(http.StatusUnprocessableEntity, codeKeyReused,
			"this Idempotency-Key was used with another payload"))
	}
	store := false
	defer func() {
		if store {
			keys.complete(name, r)
		} else {
			keys.forget(name) // also after a panic: the key must not stay in flight
		}
	}()

	x.wait()
	coin := x.s.seed.pick(60, "status", string(x.op), x.entry.Key)
	switch {
	case x.plan.useOne(x, stored5xx) != "":
		store = true
		return x.render(x.serverError(coin))
	case x.op == OpSign && x.plan.use(x, sign2xxUndone):
		store = true
		return x.other2xx()
	}
	r, refused := x.execute()
	if refused != nil {
		r = x.render(refused)
	}
	f := x.plan.useOne(x, stored5xxAfter, unstored5xxAfter)
	if f != "" {
		r = x.render(x.serverError(coin))
	}
	store = f != unstored5xxAfter
	return r
}

func (x *exchange) execute() (reply, *refusal) {
	switch x.op {
	case OpPutCredentials:
		return x.putCredentials()
	case OpPutKey:
		return x.putSigningKey()
	case OpDeleteKey:
		if !x.s.programs.setKey(x.caller, "", nil) {
			return reply{}, refuse(http.StatusNotFound, "not_found", "no signing key is registered")
		}
		return reply{status: http.StatusNoContent}, nil
	case OpCreate:
		return x.create()
	case OpList:
		return x.list()
	case OpRead:
		return x.read()
	case OpChallenge:
		return x.readChallenge()
	case OpSign:
		return x.sign()
	case OpVerify, OpReject:
		return x.simulate()
	}
	panic("sandbox: operation without a handler: " + string(x.op))
}

// putCredentials answers PUT /auth/credentials: the secret is replaced, and with another UUID the API key, which
// keeps its signing key. Earlier tokens are no longer valid. [doc] The members' names, the 204 and the 409 for an API
// key that exists are [inferred].
func (x *exchange) putCredentials() (reply, *refusal) {
	f, err := decodeStrings(x.body, "apiKey", "apiSecret")
	switch {
	case err != nil:
		return reply{}, badRequest("%v", err)
	case !isUUID(f["apiKey"]):
		return reply{}, badRequest("apiKey is not a UUID")
	case f["apiSecret"] == "":
		return reply{}, badRequest("apiSecret is empty")
	case !x.s.programs.rename(x.caller, f["apiKey"], sha256.Sum256([]byte(f["apiSecret"]))):
		return reply{}, refuse(http.StatusConflict, "api_key_taken", "apiKey is taken")
	}
	return reply{status: http.StatusNoContent}, nil
}

// publicKey reads the body of PUT /auth/signing: the public key's PEM in base64 [doc], the member's name [inferred].
func (x *exchange) publicKey() (text string, public *ecdsa.PublicKey, err error) {
	f, err := decodeStrings(x.body, "publicKey")
	if err != nil {
		return "", nil, err
	}
	text = f["publicKey"]
	pem, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", nil, errors.New("publicKey is not base64")
	}
	if public, err = httpsig.ParsePublicKey(pem); err != nil {
		return "", nil, fmt.Errorf("publicKey: %w", err)
	}
	return text, public, nil
}

// putSigningKey answers PUT /auth/signing with the id of the key, which replaces the registered key. The same key keeps
// its id.
func (x *exchange) putSigningKey() (reply, *refusal) {
	text, public, err := x.publicKey()
	if err != nil {
		return reply{}, badRequest("%v", err)
	}
	keyID, registered := x.s.programs.signingKey(x.caller)
	if registered == nil || !registered.Equal(public) {
		keyID = x.s.seed.uuid("signing-key", x.caller, text)
		x.s.programs.setKey(x.caller, keyID, public)
	}
	return jsonReply(http.StatusOK, struct {
		KeyID string `json:"keyId"`
	}{keyID}), nil
}

// wait waits for the configured latency and the fault slow, or until the client is gone; the request is executed
// then, too.
func (x *exchange) wait() {
	d := x.s.cfg.Latency
	if x.plan.use(x, slow) {
		d += x.plan.table.SlowFor
	}
	x.pause(d)
}

func (x *exchange) pause(d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-x.r.Context().Done():
	}
}

func cut(s string, most int) string {
	if len(s) > most {
		return s[:most]
	}
	return s
}
