package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/purser-onboard/purser/httpsig"
)

// Verification names a way to verify request signatures.
type Verification string

// The ways to verify request signatures.
const (
	// VerifyVendor verifies as the vendor's own server library does (httpsig.VerifyOptions.Vendor). Every failure is a
	// 400 in text/plain, whatever Config.ErrorShape, without the cause, which only the history has. [lib]
	VerifyVendor Verification = "vendor"
	// VerifyRFC verifies according to RFC 9421; a failure is a 401 with the reason. [inferred]
	VerifyRFC Verification = "rfc"
)

// Config configures a Server. Only Now is required.
type Config struct {
	// Now is the clock; required. The control port can move it.
	Now func() time.Time
	// Seed decides ids, nonces, faults and the rotation of error shapes. 0 is a valid seed.
	Seed uint64

	// Domain is the challenge's domain, "host" or "host:port". Empty: the Host of the request that caused the challenge.
	Domain string
	// ChallengeURI is the challenge's URI. Empty: http or https (as the request came) and the domain.
	ChallengeURI string
	// Statement is the challenge's statement. Empty: the vendor's. [doc]
	Statement string

	KeyTTL          time.Duration // how long an idempotency key is kept; 0: 1h [doc]
	ChallengeTTL    time.Duration // how long a challenge may be signed; 0: 1h [doc]
	TokenTTL        time.Duration // how long a token is valid, at least 1s; 0: 1h [inferred]
	MaxSignatureAge time.Duration // greatest age of a request signature's created; 0: 5m [lib]
	// SignatureSkew is how far created may lie in the future. 0: no skew with VerifyVendor [lib], 1m with VerifyRFC
	// [inferred]. Negative: no skew.
	SignatureSkew time.Duration

	// Verify is how request signatures are verified. Empty: VerifyVendor.
	Verify Verification
	// RequiredComponents must be covered by every signature. Nil: @method, authorization and, where present,
	// content-type, content-digest and idempotency-key, and the target: @target-uri, or @authority and @path, with @query
	// where there is one. [inferred]
	RequiredComponents []string
	// RequiredParams are the parameters that every signature must have, besides created and keyid: of expires, alg,
	// nonce and tag. [inferred]
	RequiredParams []string
	// Encoding is the accepted form of a wallet signature. Zero: EncodingHex. [doc]
	Encoding SignatureEncoding
	// ErrorShape is the form of error bodies. Zero: ShapeProblem. [inferred]
	ErrorShape ErrorShape

	// Rate, in requests a second, is the limit above which a request gets a 429 with Retry-After. 0: no limit.
	Rate float64
	// RateBurst is how many requests may come at once below Rate. 0: one tenth of Rate, at least 1.
	RateBurst int
	// Latency is the time before a request is executed; its key is in flight meanwhile.
	Latency time.Duration

	// DeclaredRate, in requests a second, is the client's rate limit, which the judge checks. 0: not judged.
	DeclaredRate float64
	// Tolerance is the judge's allowance above DeclaredRate.
	Tolerance Tolerance

	// Faults at the start; the control port can change them.
	Faults Faults

	// MaxBody is the maximum size of a request body in bytes; 0: 64 KiB.
	MaxBody int64
	// HistoryLimit is how many requests, the latest, are kept; 0: 200,000. The judge reports when some are missing.
	HistoryLimit int
	// HistoryLog gets a line of JSON for each request just before it is answered; a later line with the same seq replaces
	// an earlier one. Writes are serial and delay the answer. Nil: none.
	HistoryLog io.Writer
	// Logger gets the messages for the operator of the sandbox; nil: nothing is logged.
	Logger *slog.Logger
}

// Server is the stand-in. It is safe for concurrent use. It owns no goroutine and no connection: the HTTP servers of
// its handlers do.
type Server struct {
	cfg      Config
	seed     seeded
	log      *slog.Logger
	began    time.Time
	offset   atomic.Int64 // nanoseconds the control port has added to the clock
	limiter  *rate.Limiter
	verifier *httpsig.Verifier
	programs registry
	faults   atomic.Pointer[faultTable]
	calm     *faultTable // no faults
	canary   atomic.Pointer[string]
	retries  atomic.Uint64 // alternates the forms of Retry-After

	state atomic.Pointer[state]
	reset sync.Mutex // one reset at a time
}

// state is all that a reset forgets. A request uses the state at its arrival throughout.
type state struct {
	tokens    tokenMint
	customers register
	keys      keyStore
	attempts  counters
	history   history
	leaks     leaks
	signed    atomic.Pointer[string] // the nonce of the challenge whose signature was accepted last; nil: none
}

// New returns a Server without API keys. An error names the field of Config that is wrong.
func New(cfg Config) (*Server, error) {
	if cfg.Now == nil {
		return nil, errors.New("sandbox: Config.Now is nil, want a clock")
	}
	for _, d := range []struct {
		field    string
		value    *time.Duration
		fallback time.Duration
		least    time.Duration
	}{
		{"KeyTTL", &cfg.KeyTTL, time.Hour, time.Millisecond},
		{"ChallengeTTL", &cfg.ChallengeTTL, time.Hour, time.Millisecond},
		{"TokenTTL", &cfg.TokenTTL, time.Hour, time.Second},
		{"MaxSignatureAge", &cfg.MaxSignatureAge, 5 * time.Minute, time.Second},
	} {
		if *d.value = cmp.Or(*d.value, d.fallback); *d.value < d.least {
			return nil, fmt.Errorf("sandbox: Config.%s is %s, want at least %s", d.field, *d.value, d.least)
		}
	}
	switch {
	case cfg.DeclaredRate < 0:
		return nil, fmt.Errorf("sandbox: Config.DeclaredRate is %v, want 0 or more", cfg.DeclaredRate)
	case cfg.Rate < 0:
		return nil, fmt.Errorf("sandbox: Config.Rate is %v, want 0 or more", cfg.Rate)
	case cfg.Latency < 0:
		return nil, fmt.Errorf("sandbox: Config.Latency is %s, want 0 or more", cfg.Latency)
	case cfg.MaxBody < 0 || cfg.HistoryLimit < 0 || cfg.RateBurst < 0:
		return nil, errors.New("sandbox: Config.MaxBody, HistoryLimit and RateBurst must not be negative")
	case cfg.Verify != "" && cfg.Verify != VerifyVendor && cfg.Verify != VerifyRFC:
		return nil, fmt.Errorf("sandbox: Config.Verify is %q, want %s or %s", cfg.Verify, VerifyVendor, VerifyRFC)
	case !cfg.Encoding.known():
		return nil, fmt.Errorf("sandbox: Config.Encoding %q is unknown", cfg.Encoding)
	case !cfg.ErrorShape.known():
		return nil, fmt.Errorf("sandbox: Config.ErrorShape %q is unknown", cfg.ErrorShape)
	}
	if err := cfg.Faults.validate(); err != nil {
		return nil, fmt.Errorf("sandbox: Config.Faults: %w", err)
	}
	withDefaults(&cfg)

	s := &Server{cfg: cfg, seed: seeded(cfg.Seed), log: cfg.Logger, began: cfg.Now(),
		calm: Faults{}.table()}
	if cfg.Rate > 0 {
		s.limiter = rate.NewLimiter(rate.Limit(cfg.Rate), cfg.RateBurst)
	}
	var err error
	if s.verifier, err = httpsig.NewVerifier(s.verifyOptions()); err != nil {
		return nil, fmt.Errorf("sandbox: Config.RequiredComponents, RequiredParams: %w", err)
	}
	s.SetFaults(cfg.Faults)
	s.RedirectTo("")
	s.state.Store(s.freshState(0))
	return s, nil
}

func (s *Server) verifyOptions() httpsig.VerifyOptions {
	o := httpsig.VerifyOptions{
		Key:            s.programs.publicKey,
		Required:       s.cfg.RequiredComponents,
		RequiredParams: s.cfg.RequiredParams,
		MaxAge:         s.cfg.MaxSignatureAge,
		Skew:           s.cfg.SignatureSkew,
		Now:            s.now,
		Vendor:         s.cfg.Verify == VerifyVendor,
	}
	if o.Required == nil {
		o.Required = []string{"@method", "authorization", "content-type", "content-digest", "idempotency-key"}
		o.RequireTarget = true
	}
	return o
}

func withDefaults(cfg *Config) {
	cfg.Statement = cmp.Or(cfg.Statement, vendorStatement)
	cfg.Verify = cmp.Or(cfg.Verify, VerifyVendor)
	switch {
	case cfg.SignatureSkew < 0:
		cfg.SignatureSkew = 0
	case cfg.SignatureSkew == 0 && cfg.Verify == VerifyRFC:
		cfg.SignatureSkew = time.Minute
	}
	cfg.Encoding = cmp.Or(cfg.Encoding, EncodingHex)
	cfg.ErrorShape = cmp.Or(cfg.ErrorShape, ShapeProblem)
	cfg.RateBurst = cmp.Or(cfg.RateBurst, max(1, int(cfg.Rate/10)))
	cfg.MaxBody = cmp.Or(cfg.MaxBody, 64<<10)
	cfg.HistoryLimit = cmp.Or(cfg.HistoryLimit, 200_000)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
}

func (s *Server) freshState(epoch uint64) *state {
	st := &state{}
	st.tokens.init(s.seed, epoch)
	st.customers.init()
	st.keys.init(s.cfg.KeyTTL)
	st.attempts.init()
	st.history.init(s.cfg.HistoryLimit, s.cfg.HistoryLog)
	return st
}

// now returns the sandbox's time: Config.Now plus what Advance has added.
func (s *Server) now() time.Time { return s.cfg.Now().Add(time.Duration(s.offset.Load())) }

// Advance moves the sandbox's clock by d (back if d is negative) and returns its time. Keys, challenges and tokens age
// by this clock; the Date header and the check of created use it. For a client with another clock this is a clock skew.
func (s *Server) Advance(d time.Duration) time.Time {
	s.offset.Add(int64(d))
	return s.now()
}

// Reset forgets customers, idempotency keys, tokens, history and the count of attempts, so that the seed starts from
// its beginning. API keys, signing keys, faults and the clock stay.
func (s *Server) Reset() {
	s.reset.Lock()
	defer s.reset.Unlock()
	s.state.Store(s.freshState(s.state.Load().tokens.epoch + 1))
}

// SetFaults replaces the faults. It panics if they are not valid.
func (s *Server) SetFaults(f Faults) {
	if err := f.validate(); err != nil {
		panic("sandbox: SetFaults: " + err.Error())
	}
	s.faults.Store(f.table())
}

// RedirectTo sets the target of the fault redirect: the base URL of the control port, "http://127.0.0.1:9091", whose
// path /canary/ records what clients send there. Empty: a path of the API itself, which records it, too.
func (s *Server) RedirectTo(controlURL string) { s.canary.Store(&controlURL) }

// API returns the handler of the partner API below /v1.
func (s *Server) API() http.Handler { return http.HandlerFunc(s.serveAPI) }
