package awskms

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/purser-onboard/purser/internal/awskmstest"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

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
				t.Errorf("got error %v, want none", err)
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
		t.Errorf("got error %v, want none", err)
	}
	if n := s.Calls("ListAliases"); n != 2 {
		t.Errorf("%d lists, want 2", n)
	}
	// In its usual spelling it is found at once.
	later := signertest.Key(101)
	s.SetAlias(alias(signertest.Address(later)), s.AddKey(later))
	if err := s.sign(t, signertest.Address(later)); err != nil {
		t.Errorf("got error %v, want none", err)
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
			"names the key of " + signertest.Address(signertest.Key(1)).Hex(),
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
				t.Errorf("got %d signatures by a key that is not the account's, want 0", n)
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
		t.Errorf("with the alias elsewhere: got error %v, want none", err)
	}
	s.SetAlias(alias(account), s.AddKey(key)) // imported again
	s.DeleteKey(s.ids[0])
	if err := s.sign(t, account); err != nil {
		t.Errorf("with another key of the same material: got error %v, want none", err)
	}
	s.DeleteAlias(alias(account))
	if err := s.sign(t, account); err != nil {
		t.Errorf("without the alias: got error %v, want none", err)
	}
	if err := s.open(t).HasKey(t.Context(), account); !errors.Is(err, signer.ErrNoKey) {
		t.Errorf("HasKey without the alias = %v, want ErrNoKey", err)
	}
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
