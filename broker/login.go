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

// Mechanisms of a Login, by their registered names.
const (
	Plain       = "PLAIN"         // RFC 4616: sends the password in clear text; use TLS
	ScramSHA256 = "SCRAM-SHA-256" // RFC 5802, RFC 7677
	ScramSHA512 = "SCRAM-SHA-512"
	OAuthBearer = "OAUTHBEARER" // RFC 7628: sends a token in clear text; use TLS
)

// Mechanism is the client's side of a SASL login, for Options.SASL.
type Mechanism = sasl.Mechanism

// Login holds the credentials of a SASL login.
type Login struct {
	Mechanism string // one of the constants
	Username  string // not for OAuthBearer
	Password  string // not for OAuthBearer; never shown
	TokenFile string // for OAuthBearer: a file that holds the token and may be rewritten to renew it

	InsecurePermissions bool // accept a token file that other users of the machine can read or write
}

// SASL returns the login for Options.SASL. The token file is read for each connection, so a renewed token is used from
// the next connection on. Its errors are *TokenError, or say what is wrong with Mechanism, Username or Password.
func (l Login) SASL() (Mechanism, error) {
	switch l.Mechanism {
	case Plain:
		// RFC 4616 §2: NUL separates the parts, so none may hold it.
		if strings.ContainsRune(l.Username+l.Password, 0) {
			return nil, errors.New("a user name or password for PLAIN cannot contain a NUL")
		}
		return plain.Mechanism{Username: l.Username, Password: l.Password}, nil
	case ScramSHA256, ScramSHA512:
		algorithm := scram.SHA256
		if l.Mechanism == ScramSHA512 {
			algorithm = scram.SHA512
		}
		m, err := scram.Mechanism(algorithm, l.Username, l.Password)
		if err != nil { // its text may quote the password
			return nil, fmt.Errorf("the user name or password cannot be used for %s: it contains characters that "+
				"RFC 4013 forbids", l.Mechanism)
		}
		return m, nil
	case OAuthBearer:
		if _, err := readToken(l.TokenFile, l.InsecurePermissions); err != nil {
			return nil, err
		}
		return bearer{file: l.TokenFile, insecure: l.InsecurePermissions}, nil
	}
	return nil, fmt.Errorf("unknown SASL mechanism %q: want %s, %s, %s or %s",
		l.Mechanism, Plain, ScramSHA256, ScramSHA512, OAuthBearer)
}

// tokenForm is RFC 6750 §2.1's b64token.
var tokenForm = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// TokenError reports why a token file cannot be used, without its content. Its text does not name the file, because the
// name may be the token itself, configured by mistake.
type TokenError struct {
	File string
	Err  error
}

func (e *TokenError) Error() string { return fmt.Sprintf("token file %v", e.Err) }
func (e *TokenError) Unwrap() error { return e.Err }

const maxToken = 1 << 20

func readToken(file string, insecure bool) (string, error) {
	raw, _, err := secretfile.Read(file, maxToken, insecure)
	if err != nil {
		return "", &TokenError{File: file, Err: err}
	}
	token, err := secretfile.Line(raw)
	if err != nil {
		return "", &TokenError{File: file, Err: err}
	}
	if !tokenForm.Match(token) {
		return "", &TokenError{File: file, Err: errors.New("does not contain exactly one bearer token (RFC 6750, 2.1)")}
	}
	return string(token), nil
}

// bearer is the client's side of OAUTHBEARER, which kafka-go does not implement.
type bearer struct {
	file     string
	insecure bool
}

// Name implements sasl.Mechanism.
func (bearer) Name() string { return OAuthBearer }

// Start implements sasl.Mechanism with the initial response of RFC 7628 §3.1: a GS2 header without channel
// binding and authorization identity, and the token as in an HTTP Authorization header.
func (b bearer) Start(context.Context) (sasl.StateMachine, []byte, error) {
	token, err := readToken(b.file, b.insecure)
	if err != nil {
		return nil, nil, err
	}
	return new(bearerSession), []byte("n,,\x01auth=Bearer " + token + "\x01\x01"), nil
}

type bearerSession struct{ failure []byte }

// Next implements sasl.StateMachine. On success the challenge is empty. A failure is JSON, which the client must answer
// with a single \x01 (RFC 7628 §3.2.3) before the broker ends the exchange.
func (s *bearerSession) Next(_ context.Context, challenge []byte) (done bool, response []byte, err error) {
	switch {
	case len(challenge) == 0 && s.failure == nil:
		return true, nil, nil
	case s.failure == nil:
		s.failure = challenge
		return false, []byte{1}, nil
	}
	return false, nil, fmt.Errorf("the broker did not accept the token: %s", printable.Line(string(s.failure), 80))
}
