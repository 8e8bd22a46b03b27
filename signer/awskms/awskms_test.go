package awskms

import (
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
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
		t.Errorf("got error %q, want none of the secrets in it", err)
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

func TestCheck(t *testing.T) {
	s := setUp(t, signertest.Key(0), signertest.Key(1))
	s.SetAlias("alias/purser/spare", s.ids[0])
	s.SetAlias("alias/purser/"+signertest.Address(signertest.Key(1)).Hex(), s.ids[1])
	line, err := s.kms.Check(t.Context())
	want := "AWS KMS eu-west-1, arn:aws:sts::111122223333:assumed-role/purser/night: 2 accounts alias/purser/0x…, " +
		"the first one's key is its own; aliases under the prefix that are not an address: 1; aliases that repeat an account: 1"
	if err != nil || line != want {
		t.Errorf("Check = %q, %v\nwant    %q", line, err, want)
	}
	s.Fail(awskmstest.Fault{Op: "GetCallerIdentity", Status: 503, Code: "ServiceUnavailable"})
	if line, err := s.kms.Check(t.Context()); err != nil || !strings.Contains(line, "STS is unreachable") {
		t.Errorf("Check without STS = %q, %v; want a line that STS is unreachable", line, err)
	}
	s.ClearFaults()
	s.Fail(awskmstest.Fault{Op: "GetCallerIdentity", Status: 403, Code: "InvalidClientTokenId"})
	if line, err := s.kms.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("Check with credentials that STS does not accept = %q, %v; want ErrUnusable", line, err)
	}
	if n := s.Calls("Sign"); n != 0 {
		t.Errorf("Check made %d signatures, want 0", n)
	}
}

func TestCheckFindsFaults(t *testing.T) {
	s := setUp(t)
	s.SetAlias("alias/elsewhere/0x"+strings.Repeat("00", 20), s.AddKey(signertest.Key(0)))
	if line, err := s.kms.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("Check without an alias under the prefix = %q, %v; want ErrUnusable", line, err)
	}
	s.SetAlias(alias(signertest.Address(signertest.Key(1))), s.AddKey(signertest.Key(2)))
	if line, err := s.kms.Check(t.Context()); !errors.Is(err, signer.ErrMismatch) {
		t.Errorf("Check with an alias of another key = %q, %v; want ErrMismatch", line, err)
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
