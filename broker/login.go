package broker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/secretfile"
)

// The mechanisms that Login knows, by their registered names.
const (
	Plain       = "PLAIN"         // RFC 4616: the password itself is sent; use TLS
	ScramSHA256 = "SCRAM-SHA-256" // RFC 5802, RFC 7677
	ScramSHA512 = "SCRAM-SHA-512"
	OAuthBearer = "OAUTHBEARER" // RFC 7628: a token is sent; use TLS
)

// Mechanism is one side of a login, as Options take it.
type Mechanism = sasl.Mechanism

// Login says who we are to the brokers.
type Login struct {
	Mechanism string // one of the constants
	Username  string // not for OAuthBearer
	Password  string // not for OAuthBearer; never shown
	TokenFile string // for OAuthBearer: a file that holds the token; to renew the token, write it again

	InsecurePermissions bool // use a token file that other users of the machine may use
}

// SASL returns the login as Options want it. The token file is read for each connection, so that a renewed token is
// used as soon as it is there.
func (l Login) SASL() (Mechanism, error) {
	switch l.Mechanism {
	case Plain:
		// RFC 4616 §2: NUL separates the parts, so none may hold it.
		if strings.ContainsRune(l.Username+l.Password, 0) {
			return nil, errors.New("a user name or password for PLAIN cannot hold a NUL")
		}
		return plain.Mechanism{Username: l.Username, Password: l.Password}, nil
	case ScramSHA256, ScramSHA512:
		algorithm := scram.SHA256
		if l.Mechanism == ScramSHA512 {
			algorithm = scram.SHA512
		}
		m, err := scram.Mechanism(algorithm, l.Username, l.Password)
		if err != nil { // its text may quote what SASLprep refuses
			return nil, fmt.Errorf("the user name or password cannot be used for %s: it holds characters that RFC 4013 "+
				"forbids", l.Mechanism)
		}
		return m, nil
	case OAuthBearer:
		if _, err := readToken(l.TokenFile, l.InsecurePermissions); err != nil {
			return nil, err
		}
		return bearer{file: l.TokenFile, insecure: l.InsecurePermissions}, nil
	}
	return nil, fmt.Errorf("SASL mechanism %q is not known: want %s, %s, %s or %s",
		l.Mechanism, Plain, ScramSHA256, ScramSHA512, OAuthBearer)
}

// tokenForm is RFC 6750 §2.1's b64token.
var tokenForm = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// TokenError says why a token file cannot be used, without its content. Its text names no file: the name may be the
// token itself, put there by mistake.
type TokenError struct {
	File string
	Err  error
}

func (e *TokenError) Error() string { return fmt.Sprintf("token file %v", e.Err) }
func (e *TokenError) Unwrap() error { return e.Err }

const mostToken = 1 << 20

func readToken(file string, insecure bool) (string, error) {
	raw, _, err := secretfile.Read(file, mostToken, insecure)
	if err != nil {
		return "", &TokenError{File: file, Err: err}
	}
	token, err := secretfile.Line(raw)
	if err != nil {
		return "", &TokenError{File: file, Err: err}
	}
	if !tokenForm.Match(token) {
		return "", &TokenError{File: file, Err: errors.New("does not hold one bearer token and nothing else (RFC 6750, 2.1)")}
	}
	return string(token), nil
}

// bearer is the client's side of OAUTHBEARER, which kafka-go has not.
type bearer struct {
	file     string
	insecure bool
}

// Name implements sasl.Mechanism.
func (bearer) Name() string { return OAuthBearer }

// Start implements sasl.Mechanism with the initial response of RFC 7628 §3.1: a GS2 header that binds no channel and
// names no other identity, and the token as HTTP would have it.
func (b bearer) Start(context.Context) (sasl.StateMachine, []byte, error) {
	token, err := readToken(b.file, b.insecure)
	if err != nil {
		return nil, nil, err
	}
	return new(bearerSession), []byte("n,,\x01auth=Bearer " + token + "\x01\x01"), nil
}

type bearerSession struct{ refused []byte }

// Next implements sasl.StateMachine. Success comes with an empty challenge. A refusal comes as JSON, which has to be
// answered by a single \x01 (RFC 7628 §3.2.3) before the broker fails the exchange.
func (s *bearerSession) Next(_ context.Context, challenge []byte) (done bool, response []byte, err error) {
	switch {
	case len(challenge) == 0 && s.refused == nil:
		return true, nil, nil
	case s.refused == nil:
		s.refused = challenge
		return false, []byte{1}, nil
	}
	return false, nil, fmt.Errorf("the broker refused the token: %s", printable.Line(string(s.refused), 80))
}
