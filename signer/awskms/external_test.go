//go:build external

package awskms

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/internal/remotetest"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

// python is an interpreter with LocalStack, which `make test-external` installs, or the one that the variable LOCALSTACK
// names. A machine without it cannot pass: these tests were asked for.
func python(t *testing.T) string {
	t.Helper()
	path := os.Getenv("LOCALSTACK")
	if path == "" {
		path = filepath.Join("..", "..", "bin", "localstack", "bin", "python")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no LocalStack (make test-external installs it; or set LOCALSTACK to a Python that has "+
			"testdata/localstack/requirements.txt): %v", err)
	}
	path, err := filepath.Abs(path) // not through its symbolic link: a virtual environment is known by the path
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// localStack starts LocalStack's KMS and gives a backend for it, and its client to make keys with.
func localStack(t *testing.T) *KMS {
	t.Helper()
	// LocalStack takes any credentials; the access key's form chooses an account.
	environment(t, "test", "test", "")
	command := exec.CommandContext(t.Context(), python(t), filepath.Join("testdata", "localstack", "serve.py"))
	home := t.TempDir()
	command.Env = []string{
		"HOME=" + home, "TMPDIR=" + home, "FILESYSTEM_ROOT=" + home, "PATH=" + os.Getenv("PATH"),
		"PYTHONDONTWRITEBYTECODE=1", "DISABLE_EVENTS=1", "SKIP_SSL_CERT_DOWNLOAD=1",
	}
	running := regexp.MustCompile(`Running on (http://127\.0\.0\.1:\d+)`)
	url := remotetest.Start(t, command, 1, func(line string) (int, string, bool) {
		found := running.FindStringSubmatch(line)
		if found == nil {
			return 0, "", false
		}
		return 0, found[1], true
	})[0]
	k, err := open(t.Context(), uri(url), signer.Environment{}, noPause())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// importKey brings a key as AWS says to (ImportKeyMaterial): its PKCS#8 form, wrapped for a key that KMS makes for it.
func importKey(t *testing.T, k *KMS, key *ecdsa.PrivateKey) {
	t.Helper()
	ctx := t.Context()
	made, err := k.kms.CreateKey(ctx, &kms.CreateKeyInput{
		KeySpec: types.KeySpecEccSecgP256k1, KeyUsage: types.KeyUsageTypeSignVerify, Origin: types.OriginTypeExternal,
	})
	if err != nil {
		t.Fatal(err)
	}
	id := made.KeyMetadata.KeyId
	parameters, err := k.kms.GetParametersForImport(ctx, &kms.GetParametersForImportInput{
		KeyId: id, WrappingAlgorithm: types.AlgorithmSpecRsaesOaepSha256, WrappingKeySpec: types.WrappingKeySpecRsa2048,
	})
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.ParsePKIXPublicKey(parameters.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public.(*rsa.PublicKey), pkcs8(t, key), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.kms.ImportKeyMaterial(ctx, &kms.ImportKeyMaterialInput{
		KeyId: id, ImportToken: parameters.ImportToken, EncryptedKeyMaterial: wrapped,
		ExpirationModel: types.ExpirationModelTypeKeyMaterialDoesNotExpire,
	})
	if err != nil {
		t.Fatal(err)
	}
	setAlias(t, k, alias(signertest.Address(key)), aws.ToString(id))
}

func createKey(t *testing.T, k *KMS, spec types.KeySpec) string {
	t.Helper()
	out, err := k.kms.CreateKey(t.Context(), &kms.CreateKeyInput{
		KeySpec: spec, KeyUsage: types.KeyUsageTypeSignVerify,
	})
	if err != nil {
		t.Fatal(err)
	}
	return aws.ToString(out.KeyMetadata.KeyId)
}

func setAlias(t *testing.T, k *KMS, name, id string) {
	t.Helper()
	_, err := k.kms.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: aws.String(name), TargetKeyId: aws.String(id)})
	if err != nil {
		t.Fatal(err)
	}
}

// pkcs8 writes a PrivateKeyInfo (RFC 5958) with an ECPrivateKey (RFC 5915), for the curve that x509 does not know.
func pkcs8(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	inner, err := asn1.Marshal(struct {
		Version int
		Key     []byte
	}{1, crypto.FromECDSA(key)})
	if err != nil {
		t.Fatal(err)
	}
	curve, err := asn1.Marshal(asn1.ObjectIdentifier{1, 3, 132, 0, 10})
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}{0, pkix.AlgorithmIdentifier{
		Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, Parameters: asn1.RawValue{FullBytes: curve},
	}, inner})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestLocalStack(t *testing.T) {
	k := localStack(t)
	t.Run("Conformance", func(t *testing.T) {
		signertest.Run(t, func(t *testing.T, keys []*ecdsa.PrivateKey) signer.Backend {
			t.Helper()
			for _, key := range keys {
				importKey(t, k, key)
			}
			return k
		})
	})
	t.Run("KeyMadeThere", func(t *testing.T) {
		id := createKey(t, k, types.KeySpecEccSecgP256k1)
		out, err := k.kms.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: aws.String(id)})
		if err != nil {
			t.Fatal(err)
		}
		account, err := parsePublicKey(out.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		setAlias(t, k, "alias/purser/"+account.Hex(), id) // with its checksum: found by the list
		sign := func(ctx context.Context, account common.Address) error {
			_, err := signer.Verified(k).SignMessage(ctx, account, []byte("hello"))
			return err
		}
		if err := sign(t.Context(), account); !errors.Is(err, signer.ErrNoKey) {
			t.Errorf("error %v, want ErrNoKey while the list of a moment ago stands", err)
		}
		k.known = nil
		if err := sign(t.Context(), account); err != nil {
			t.Errorf("got error %v, want none", err)
		}
		if _, err := k.kms.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: aws.String(id)}); err != nil {
			t.Fatal(err)
		}
		if err := sign(t.Context(), account); !errors.Is(err, signer.ErrDeclined) {
			t.Errorf("with a disabled key: %v, want ErrDeclined", err)
		}
		_, err = k.kms.ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: aws.String(id)})
		if err != nil {
			t.Fatal(err)
		}
		if err := sign(t.Context(), account); !errors.Is(err, signer.ErrDeclined) {
			t.Errorf("with a key that waits for its deletion: %v, want ErrDeclined", err)
		}
	})
	t.Run("AnotherCurve", func(t *testing.T) {
		account := signertest.Address(signertest.Key(50))
		setAlias(t, k, alias(account), createKey(t, k, types.KeySpecEccNistP256))
		if err := k.HasKey(t.Context(), account); !errors.Is(err, signer.ErrMismatch) {
			t.Errorf("HasKey = %v, want ErrMismatch", err)
		}
	})
	t.Run("Check", func(t *testing.T) {
		line, err := k.Check(t.Context()) // LocalStack runs without STS here
		if err != nil || !strings.Contains(line, "STS is unreachable") || !strings.Contains(line, "accounts") {
			t.Errorf("Check = %q, %v; want a line with the accounts and that STS is unreachable", line, err)
		}
	})
}
