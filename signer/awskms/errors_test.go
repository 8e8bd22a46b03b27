package awskms

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"

	"github.com/purser-onboard/purser/internal/awskmstest"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

func TestStates(t *testing.T) {
	account := signertest.Address(signertest.Key(0))
	for state, want := range map[awskmstest.State]error{
		awskmstest.Disabled:        signer.ErrDeclined,
		awskmstest.PendingDeletion: signer.ErrDeclined,
		awskmstest.Unavailable:     nil, // transient
	} {
		for name, before := range map[string]bool{"first": true, "later": false} {
			t.Run(string(state)+", "+name, func(t *testing.T) {
				s := setUp(t, signertest.Key(0))
				if !before {
					if err := s.sign(t, account); err != nil {
						t.Fatal(err)
					}
				}
				s.SetState(s.ids[0], state)
				err := s.sign(t, account)
				if err == nil || want != nil && !errors.Is(err, want) {
					t.Errorf("error %v, want %v", err, want)
				}
				if want == nil {
					transient(t, err)
				}
				s.SetState(s.ids[0], awskmstest.Enabled)
				if err := s.sign(t, account); err != nil {
					t.Errorf("after it was enabled: got error %v, want none", err)
				}
			})
		}
	}
}

func transient(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Error("got no error, want one")
	}
	for _, sentinel := range []error{signer.ErrNoKey, signer.ErrDeclined, signer.ErrMismatch, signer.ErrUnusable} {
		if errors.Is(err, sentinel) {
			t.Errorf("error %v, want a transient one", err)
		}
	}
}

func TestCodes(t *testing.T) {
	account := signertest.Address(signertest.Key(0))
	for _, c := range []struct {
		code      string
		status    int
		want      error // nil: transient
		throttled bool
		calls     int // of Sign: 3 where the SDK tries again
	}{
		{"ThrottlingException", 400, nil, true, 3},
		{"LimitExceededException", 400, nil, true, 3},
		{"KMSInternalException", 500, nil, false, 3},
		{"DependencyTimeoutException", 503, nil, false, 3},
		{"KeyUnavailableException", 500, nil, false, 3},
		{"ValidationException", 400, nil, false, 1},
		{"AccessDeniedException", 400, signer.ErrUnusable, false, 1},
		{"InvalidSignatureException", 400, signer.ErrUnusable, false, 1},
		{"ExpiredTokenException", 400, signer.ErrUnusable, false, 1},
		{"UnrecognizedClientException", 400, signer.ErrUnusable, false, 1},
		{"DisabledException", 400, signer.ErrDeclined, false, 1},
		{"KMSInvalidStateException", 400, signer.ErrDeclined, false, 1},
		{"InvalidKeyUsageException", 400, signer.ErrMismatch, false, 1},
	} {
		t.Run(c.code, func(t *testing.T) {
			s := setUp(t, signertest.Key(0))
			s.Fail(awskmstest.Fault{Op: "Sign", Code: c.code, Status: c.status})
			err := s.sign(t, account)
			if c.want == nil {
				transient(t, err)
			} else if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			var e *Error
			if !errors.As(err, &e) || e.Code != c.code || e.Op != "Sign" || e.Account != account || e.RequestID != "req-kms" {
				t.Fatalf("got error %#v, want an *Error of Sign with code %s, account %v and request req-kms", err, c.code, account)
			}
			if _, throttled := e.Throttled(); throttled != c.throttled {
				t.Errorf("throttled: got %v, want %v", throttled, c.throttled)
			}
			if n := s.Calls("Sign"); n != c.calls {
				t.Errorf("%d calls, want %d", n, c.calls)
			}
		})
	}
}

// One throttled try is repeated by the SDK.
func TestThrottledOnce(t *testing.T) {
	s := setUp(t, signertest.Key(0))
	s.Fail(awskmstest.Fault{Times: 2, Code: "ThrottlingException"})
	if err := s.sign(t, signertest.Address(signertest.Key(0))); err != nil {
		t.Errorf("got error %v, want none", err)
	}
}

// The SDK stops waiting between tries when the context ends.
func TestContextEndsBetweenTries(t *testing.T) {
	s := setUp(t, signertest.Key(0))
	s.Fail(awskmstest.Fault{Op: "Sign", Code: "ThrottlingException"})
	ctx, cancel := context.WithCancel(t.Context())
	pause := retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) {
		cancel()
		return time.Hour, nil
	})
	k, err := open(ctx, uri(s.url), signer.Environment{}, pause)
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.SignMessage(ctx, signertest.Address(signertest.Key(0)), []byte("hello"))
	if !errors.Is(err, context.Canceled) || errors.Is(err, signer.ErrUnusable) {
		t.Errorf("error %v, want the context's", err)
	}
}

func TestCredentials(t *testing.T) {
	account := signertest.Address(signertest.Key(0))
	for name, c := range map[string]struct{ id, secret, token, code string }{
		"wrong secret": {accessKey, "another secret", session, "InvalidSignatureException"},
		"unknown key":  {"AKIAANOTHER", secretKey, session, "UnrecognizedClientException"},
		"old session":  {accessKey, secretKey, "an older token", "ExpiredTokenException"},
	} {
		t.Run(name, func(t *testing.T) {
			s := setUp(t, signertest.Key(0))
			environment(t, c.id, c.secret, c.token)
			s.kms = s.open(t)
			err := s.sign(t, account)
			var e *Error
			if !errors.Is(err, signer.ErrUnusable) || !errors.As(err, &e) || e.Code != c.code {
				t.Errorf("error %v, want ErrUnusable with %s", err, c.code)
			}
			if _, err := s.kms.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) {
				t.Errorf("Check: %v, want ErrUnusable", err)
			}
			if n := s.Calls("Sign"); n != 0 {
				t.Errorf("got %d signatures, want 0", n)
			}
		})
	}
}

// Answers that no KMS gives.
func TestStrangeAnswers(t *testing.T) {
	account := signertest.Address(signertest.Key(0))
	for name, c := range map[string]struct {
		fault awskmstest.Fault
		want  error // nil: transient
	}{
		"a page of HTML":       {awskmstest.Fault{Op: "Sign", Status: 200, Body: []byte("<html>")}, nil},
		"no signature":         {awskmstest.Fault{Op: "Sign", Status: 200, Body: []byte(`{}`)}, nil},
		"a signature of ours":  {awskmstest.Fault{Op: "Sign", Status: 200, Body: []byte(`{"Signature":"MAYCAQECAQI="}`)}, signer.ErrMismatch},
		"too much":             {awskmstest.Fault{Op: "Sign", Status: 200, Body: []byte(`{"Signature":"` + strings.Repeat("A", 2<<20) + `"}`)}, nil},
		"a redirect":           {awskmstest.Fault{Op: "Sign", Status: 307, Body: []byte{}, Header: http.Header{"Location": {"/elsewhere"}}}, signer.ErrUnusable},
		"a gateway's 502":      {awskmstest.Fault{Op: "Sign", Status: 502, Body: []byte("Bad Gateway")}, nil},
		"a public key of none": {awskmstest.Fault{Op: "GetPublicKey", Status: 200, Body: []byte(`{"KeyId":"arn","KeySpec":"ECC_SECG_P256K1","KeyUsage":"SIGN_VERIFY","PublicKey":"MAA="}`)}, signer.ErrMismatch},
		"a key without name":   {awskmstest.Fault{Op: "GetPublicKey", Status: 200, Body: []byte(`{}`)}, signer.ErrMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			s := setUp(t, signertest.Key(0))
			s.Fail(c.fault)
			err := s.sign(t, account)
			if c.want == nil {
				transient(t, err)
			} else if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if err != nil && (len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\r\n")) {
				t.Errorf("got error %q, want one line of at most 1000 bytes", err)
			}
		})
	}
	t.Run("a list without end", func(t *testing.T) {
		s := setUp(t)
		s.Fail(awskmstest.Fault{Op: "ListAliases", Status: 200, Body: []byte(`{"Aliases":[],"Truncated":true,"NextMarker":"m"}`)})
		transient(t, s.sign(t, account))
		if n := s.Calls("ListAliases"); n != 2 {
			t.Errorf("%d pages, want 2", n)
		}
	})
}
