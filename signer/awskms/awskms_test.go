package awskms

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/internal/awskmstest"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

const (
	region    = "eu-west-1"
	accessKey = "AKIAPURSERTEST"
	secretKey = "the/secret+access/key"
	session   = "the session token"
)

// environment leaves the SDK's chain nothing but what a test says.
func environment(t *testing.T, id, secret, token string) {
	t.Helper()
	none := filepath.Join(t.TempDir(), "none")
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": id, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token,
		"AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_PROFILE": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_KMS": "",
		"AWS_WEB_IDENTITY_TOKEN_FILE": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "", "AWS_CA_BUNDLE": "", "AWS_MAX_ATTEMPTS": "", "AWS_RETRY_MODE": "",
		"HTTP_PROXY": "", "HTTPS_PROXY": "",
	} {
		t.Setenv(name, value)
	}
}

// stand is a server, and a backend that speaks with it.
type stand struct {
	*awskmstest.Server
	url string
	now time.Time // the backend's clock
	ids []string  // of keys 0, 1, …
	kms *KMS
}

func uri(endpoint string) string {
	return "awskms:///?region=" + region + "&endpoint=" + url.QueryEscape(endpoint)
}

func alias(account common.Address) string { return "alias/purser/0x" + hex.EncodeToString(account[:]) }

// setUp has keys under their usual aliases. The SDK does not pause between its tries.
func setUp(t *testing.T, keys ...*ecdsa.PrivateKey) *stand {
	t.Helper()
	environment(t, accessKey, secretKey, session)
	s := &stand{
		Server: awskmstest.New(awskmstest.Config{
			Region: region, AccessKeyID: accessKey, SecretAccessKey: secretKey, SessionToken: session,
			Now: time.Now, PageSize: 3,
		}),
		now: time.Unix(1_800_000_000, 0),
	}
	for _, key := range keys {
		id := s.AddKey(key)
		s.ids = append(s.ids, id)
		s.SetAlias(alias(signertest.Address(key)), id)
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	s.kms = s.open(t)
	return s
}

func (s *stand) open(t *testing.T) *KMS {
	t.Helper()
	env := signer.Environment{Now: func() time.Time { return s.now }}
	k, err := open(t.Context(), uri(s.url), env, noPause())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func noPause() retry.BackoffDelayer {
	return retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
}

func (s *stand) sign(t *testing.T, account common.Address) error {
	t.Helper()
	_, err := signer.Verified(s.kms).SignMessage(t.Context(), account, []byte("hello"))
	if err != nil && (strings.Contains(err.Error(), secretKey) || strings.Contains(err.Error(), session)) {
		t.Errorf("a secret is in the error %q", err)
	}
	return err
}

func TestConformance(t *testing.T) {
	signertest.Run(t, func(t *testing.T, keys []*ecdsa.PrivateKey) signer.Backend {
		t.Helper()
		return setUp(t, keys...).kms
	})
}

// The hash is sent, not the message, however long that is; the key is asked for once.
func TestCalls(t *testing.T) {
	key := signertest.Key(0)
	s := setUp(t, key)
	for range 5 {
		if err := s.sign(t, signertest.Address(key)); err != nil {
			t.Fatal(err)
		}
	}
	for op, want := range map[string]int{"GetPublicKey": 1, "Sign": 5, "ListAliases": 0} {
		if n := s.Calls(op); n != want {
			t.Errorf("%s was called %d times, want %d", op, n, want)
		}
	}
}

func TestOtherSpellings(t *testing.T) {
	key := signertest.Key(0)
	account := signertest.Address(key)
	for name, alias := range map[string]string{
		"checksum":   "alias/purser/" + account.Hex(),
		"upper case": "alias/purser/0X" + strings.ToUpper(hex.EncodeToString(account[:])),
		"no prefix":  "alias/purser/" + hex.EncodeToString(account[:]),
	} {
		t.Run(name, func(t *testing.T) {
			s := setUp(t)
			id := s.AddKey(key)
			for i := range 10 { // several pages
				s.SetAlias(fmt.Sprintf("alias/other/%d", i), id)
				s.SetAlias(fmt.Sprintf("alias/purser/%d", i), id)
			}
			s.SetAlias(alias, id)
			if err := s.sign(t, account); err != nil {
				t.Error(err)
			}
			if n := s.Calls("ListAliases"); n != 7 {
				t.Errorf("%d pages of the list, want 7", n)
			}
		})
	}
}

// A missing key costs one list a minute, and an alias that is made meanwhile is found.
func TestMissingKeys(t *testing.T) {
	key := signertest.Key(0)
	s := setUp(t, key)
	for i := range uint64(20) {
		if err := s.sign(t, signertest.Address(signertest.Key(100+i))); !errors.Is(err, signer.ErrNoKey) {
			t.Fatalf("error %v, want ErrNoKey", err)
		}
	}
	if n := s.Calls("ListAliases"); n != 1 {
		t.Errorf("%d lists for 20 missing keys, want 1", n)
	}
	late := signertest.Key(100)
	checksummed := "alias/purser/" + signertest.Address(late).Hex()
	s.SetAlias(checksummed, s.AddKey(late))
	if err := s.sign(t, signertest.Address(late)); !errors.Is(err, signer.ErrNoKey) {
		t.Errorf("error %v, want ErrNoKey until the list is old", err)
	}
	s.now = s.now.Add(apart)
	if err := s.sign(t, signertest.Address(late)); err != nil {
		t.Error(err)
	}
	if n := s.Calls("ListAliases"); n != 2 {
		t.Errorf("%d lists, want 2", n)
	}
	// In its usual spelling it is found at once.
	later := signertest.Key(101)
	s.SetAlias(alias(signertest.Address(later)), s.AddKey(later))
	if err := s.sign(t, signertest.Address(later)); err != nil {
		t.Error(err)
	}
}

func TestMayNotList(t *testing.T) {
	s := setUp(t, signertest.Key(0))
	s.Fail(awskmstest.Fault{Op: "ListAliases", Code: "AccessDeniedException"})
	err := s.sign(t, signertest.Address(signertest.Key(9)))
	if !errors.Is(err, signer.ErrNoKey) || errors.Is(err, signer.ErrUnusable) {
		t.Errorf("error %v, want ErrNoKey alone", err)
	}
	if _, err := s.kms.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("Check: %v, want ErrUnusable", err)
	}
}

func TestWrongKeys(t *testing.T) {
	account := signertest.Address(signertest.Key(0))
	nist, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		add  func(s *stand) string
		want string
	}{
		"another's": {
			func(s *stand) string { return s.AddKey(signertest.Key(1)) },
			"leads to the key of " + signertest.Address(signertest.Key(1)).Hex(),
		},
		"another curve": {func(s *stand) string { return s.AddKey(nist) }, "ECC_NIST_P256"},
		"another usage": {func(s *stand) string { return s.AddAgreementKey(signertest.Key(0)) }, "KEY_AGREEMENT"},
	} {
		t.Run(name, func(t *testing.T) {
			s := setUp(t)
			s.SetAlias(alias(account), c.add(s))
			for range 2 {
				err := s.sign(t, account)
				if !errors.Is(err, signer.ErrMismatch) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want ErrMismatch with %q", err, c.want)
				}
			}
			if err := s.kms.HasKey(t.Context(), account); !errors.Is(err, signer.ErrMismatch) {
				t.Errorf("HasKey = %v, want ErrMismatch", err)
			}
			if n := s.Calls("Sign"); n != 0 {
				t.Errorf("%d signatures by a key that is not the account's", n)
			}
		})
	}
}

// A proven key is used by its ARN, wherever its alias leads by now; one that is gone is looked for again.
func TestAliasMoves(t *testing.T) {
	key := signertest.Key(0)
	account := signertest.Address(key)
	s := setUp(t, key)
	if err := s.sign(t, account); err != nil {
		t.Fatal(err)
	}
	s.SetAlias(alias(account), s.AddKey(signertest.Key(1)))
	if err := s.sign(t, account); err != nil {
		t.Errorf("with the alias elsewhere: %v", err)
	}
	s.SetAlias(alias(account), s.AddKey(key)) // imported again
	s.DeleteKey(s.ids[0])
	if err := s.sign(t, account); err != nil {
		t.Errorf("with another key of the same material: %v", err)
	}
	s.DeleteAlias(alias(account))
	if err := s.sign(t, account); err != nil {
		t.Errorf("without the alias: %v", err)
	}
	if err := s.open(t).HasKey(t.Context(), account); !errors.Is(err, signer.ErrNoKey) {
		t.Errorf("HasKey without the alias = %v, want ErrNoKey", err)
	}
}

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
					t.Errorf("after it was enabled: %v", err)
				}
			})
		}
	}
}

func transient(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Error("no error")
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
				t.Fatalf("error %#v", err)
			}
			if _, throttled := e.Throttled(); throttled != c.throttled {
				t.Errorf("throttled: %v", throttled)
			}
			if n := s.Calls("Sign"); n != c.calls {
				t.Errorf("%d calls, want %d", n, c.calls)
			}
		})
	}
}

// One throttled try is nobody's business.
func TestThrottledOnce(t *testing.T) {
	s := setUp(t, signertest.Key(0))
	s.Fail(awskmstest.Fault{Times: 2, Code: "ThrottlingException"})
	if err := s.sign(t, signertest.Address(signertest.Key(0))); err != nil {
		t.Error(err)
	}
}

// Between tries the SDK waits, and hears when nobody waits for it any more.
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
				t.Errorf("%d signatures", n)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	s := setUp(t, signertest.Key(0), signertest.Key(1))
	s.SetAlias("alias/purser/spare", s.ids[0])
	s.SetAlias("alias/purser/"+signertest.Address(signertest.Key(1)).Hex(), s.ids[1])
	line, err := s.kms.Check(t.Context())
	want := "AWS KMS eu-west-1, arn:aws:sts::111122223333:assumed-role/purser/night: 2 accounts alias/purser/0x…, " +
		"the first one's key is its own; aliases under the prefix that are no address: 1; aliases that repeat an account: 1"
	if err != nil || line != want {
		t.Errorf("Check = %q, %v\nwant    %q", line, err, want)
	}
	s.Fail(awskmstest.Fault{Op: "GetCallerIdentity", Status: 503, Code: "ServiceUnavailable"})
	if line, err := s.kms.Check(t.Context()); err != nil || !strings.Contains(line, "STS is out of reach") {
		t.Errorf("without STS: %q, %v", line, err)
	}
	s.Mend()
	s.Fail(awskmstest.Fault{Op: "GetCallerIdentity", Status: 403, Code: "InvalidClientTokenId"})
	if line, err := s.kms.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("with credentials that STS refuses: %q, %v", line, err)
	}
	if n := s.Calls("Sign"); n != 0 {
		t.Errorf("Check signed %d times", n)
	}
}

func TestCheckFindsFaults(t *testing.T) {
	s := setUp(t)
	s.SetAlias("alias/elsewhere/0x"+strings.Repeat("00", 20), s.AddKey(signertest.Key(0)))
	if line, err := s.kms.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("with no alias of ours: %q, %v", line, err)
	}
	s.SetAlias(alias(signertest.Address(signertest.Key(1))), s.AddKey(signertest.Key(2)))
	if line, err := s.kms.Check(t.Context()); !errors.Is(err, signer.ErrMismatch) {
		t.Errorf("with an alias of another's key: %q, %v", line, err)
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
				t.Errorf("the error is long or has several lines: %q", err)
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

func TestManyMissingAtOnce(t *testing.T) {
	s := setUp(t, signertest.Key(0))
	var all sync.WaitGroup
	for i := range uint64(16) {
		all.Go(func() {
			err := s.kms.HasKey(t.Context(), signertest.Address(signertest.Key(100+i)))
			if !errors.Is(err, signer.ErrNoKey) {
				t.Errorf("HasKey = %v, want ErrNoKey", err)
			}
		})
	}
	all.Wait()
	if n := s.Calls("ListAliases"); n != 1 {
		t.Errorf("%d lists, want 1", n)
	}
}

func TestOpenWithoutCredentials(t *testing.T) {
	environment(t, "", "", "")
	_, err := Open(t.Context(), uri("http://127.0.0.1:1"), signer.Environment{})
	if !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("error %v, want ErrUnusable", err)
	}
}

// The region may come from where the SDK finds it, and must come from somewhere.
func TestRegion(t *testing.T) {
	environment(t, accessKey, secretKey, "")
	var bad *signer.URIError
	if _, err := Open(t.Context(), "awskms:///", signer.Environment{}); !errors.As(err, &bad) {
		t.Errorf("error %v, want a URIError", err)
	}
	t.Setenv("AWS_REGION", "ap-southeast-2")
	backend, err := Open(t.Context(), "awskms:///", signer.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := backend.(*KMS); !ok || k.region != "ap-southeast-2" {
		t.Errorf("backend %+v", backend)
	}
}

func TestURI(t *testing.T) {
	for in, want := range map[string]settings{
		"awskms:///":                                       {prefix: "alias/purser/"},
		"awskms:///?region=eu-west-1":                      {region: "eu-west-1", prefix: "alias/purser/"},
		"awskms:///?alias-prefix=alias/Bank_7/":            {prefix: "alias/Bank_7/"},
		"awskms:///?endpoint=http://127.0.0.1:4566":        {prefix: "alias/purser/", endpoint: "http://127.0.0.1:4566", loopback: true},
		"awskms:///?endpoint=http://[::1]:4566/":           {prefix: "alias/purser/", endpoint: "http://[::1]:4566/", loopback: true},
		"AWSKMS:///?endpoint=https%3A%2F%2Fvpce-1.aws.com": {prefix: "alias/purser/", endpoint: "https://vpce-1.aws.com"},
	} {
		if got, err := parse(in); err != nil || got != want {
			t.Errorf("parse(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"awskms:":                                     "names no path",
		"awskms://host/":                              "names a host",
		"awskms:///keys":                              "has a path",
		"kms:///":                                     "is not an awskms",
		"awskms:///?secret=x":                         "unknown parameter",
		"awskms:///?region=a.b":                       "region",
		"awskms:///?region=a&region=b":                "twice",
		"awskms:///?alias-prefix=purser/":             "alias-prefix",
		"awskms:///?alias-prefix=alias/aws/x":         "alias-prefix",
		"awskms:///?alias-prefix=alias/p:":            "alias-prefix",
		"awskms:///?endpoint=http://kms.example.com":  "neither https nor on a loopback address",
		"awskms:///?endpoint=ftp://127.0.0.1":         "neither https",
		"awskms:///?endpoint=https://u:p@example.com": "more than scheme",
		"awskms:///?endpoint=https://example.com/x":   "more than scheme",
		"awskms:///?endpoint=nonsense":                "no URL",
	} {
		_, err := parse(in)
		var bad *signer.URIError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), Shape) {
			t.Errorf("parse(%q): %v, want a URIError with %q", in, err, want)
		}
		if strings.Contains(fmt.Sprint(err), "u:p") {
			t.Errorf("the error quotes the URI: %v", err)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	b.Setenv("AWS_ACCESS_KEY_ID", accessKey)
	b.Setenv("AWS_SECRET_ACCESS_KEY", secretKey)
	b.Setenv("AWS_SESSION_TOKEN", "")
	server := awskmstest.New(awskmstest.Config{
		Region: region, AccessKeyID: accessKey, SecretAccessKey: secretKey, Now: time.Now,
	})
	key := signertest.Key(0)
	server.SetAlias(alias(signertest.Address(key)), server.AddKey(key))
	host := httptest.NewServer(server)
	b.Cleanup(host.Close)
	opened, err := Open(b.Context(), uri(host.URL), signer.Environment{})
	if err != nil {
		b.Fatal(err)
	}
	backend := signer.Verified(opened)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := backend.SignMessage(b.Context(), signertest.Address(key), []byte("hello")); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
