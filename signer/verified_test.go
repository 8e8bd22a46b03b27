package signer_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

// mirror makes a low s high and the other way about, as devices that know no EIP-2 return it half the time.
func mirror(sig *signer.Signature) {
	s := new(big.Int).SetBytes(sig[32:64])
	s.Sub(crypto.S256().Params().N, s).FillBytes(sig[32:64])
}

func TestVerifiedNormalises(t *testing.T) {
	key := signertest.Key(7)
	account := signertest.Address(key)
	for name, alter := range map[string]func(*signer.Signature){
		"v 0 or 1":             func(*signer.Signature) {},
		"v 27 or 28":           func(sig *signer.Signature) { sig[64] += 27 },
		"no v":                 func(sig *signer.Signature) { sig[64] = 0xff },
		"v always 0":           func(sig *signer.Signature) { sig[64] = 0 },
		"v always 28":          func(sig *signer.Signature) { sig[64] = 28 },
		"v of a transaction":   func(sig *signer.Signature) { sig[64] += 37 },
		"high s, v with it":    func(sig *signer.Signature) { mirror(sig); sig[64] ^= 1 },
		"high s, v without it": mirror,
		"high s, no v":         func(sig *signer.Signature) { mirror(sig); sig[64] = 4 },
	} {
		t.Run(name, func(t *testing.T) {
			memory := signertest.NewMemory(key)
			memory.Alter = func(_ common.Address, sig *signer.Signature) error { alter(sig); return nil }
			for i := range 16 { // both parities occur
				message := fmt.Appendf(nil, "message %d", i)
				got, err := signer.Verified(memory).SignMessage(t.Context(), account, message)
				if err != nil {
					t.Fatal(err)
				}
				want, err := crypto.Sign(signer.MessageHash(message).Bytes(), key)
				if err != nil {
					t.Fatal(err)
				}
				want[64] += 27
				if !bytes.Equal(got[:], want) {
					t.Fatalf("message %d:\n got %x\nwant %x", i, got, want)
				}
			}
		})
	}
}

func TestVerifiedRefuses(t *testing.T) {
	key, other := signertest.Key(1), signertest.Key(2)
	account := signertest.Address(key)
	n := crypto.S256().Params().N
	top := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))
	fill := func(b []byte, v *big.Int) { v.FillBytes(b) }
	message := []byte("hello")
	for name, c := range map[string]struct {
		alter   func(*signer.Signature)
		problem string
	}{
		"all zero":    {func(sig *signer.Signature) { *sig = signer.Signature{} }, "r is zero"},
		"r zero":      {func(sig *signer.Signature) { clear(sig[:32]) }, "r is zero"},
		"s zero":      {func(sig *signer.Signature) { clear(sig[32:64]) }, "s is zero"},
		"r = n":       {func(sig *signer.Signature) { fill(sig[:32], n) }, "r is not below"},
		"s = n":       {func(sig *signer.Signature) { fill(sig[32:64], n) }, "s is not below"},
		"s = 2^256-1": {func(sig *signer.Signature) { fill(sig[32:64], top) }, "s is not below"},
		// 5³+7 is no square.
		"r no point":    {func(sig *signer.Signature) { fill(sig[:32], big.NewInt(5)) }, "recovers to no key"},
		"one bit of s":  {func(sig *signer.Signature) { sig[63] ^= 1 }, ""},
		"r and s swap":  {func(sig *signer.Signature) { *sig = swapped(*sig) }, ""},
		"another's":     {resign(t, other, signer.MessageHash(message)), signertest.Address(other).Hex()},
		"no prefix":     {resign(t, key, crypto.Keccak256Hash(message)), ""},
		"prefix twice":  {resign(t, key, signer.MessageHash(signer.Prefix(message))), ""},
		"other message": {resign(t, key, signer.MessageHash([]byte("hullo"))), ""},
	} {
		t.Run(name, func(t *testing.T) {
			memory := signertest.NewMemory(key)
			memory.Alter = func(_ common.Address, sig *signer.Signature) error { c.alter(sig); return nil }
			sig, err := signer.Verified(memory).SignMessage(t.Context(), account, message)
			var mismatch *signer.MismatchError
			if !errors.Is(err, signer.ErrMismatch) || !errors.As(err, &mismatch) {
				t.Fatalf("error %v, want a MismatchError", err)
			}
			if mismatch.Account != account || mismatch.Recovered == account {
				t.Errorf("the error names account %v and %v, want %v and another", mismatch.Account, mismatch.Recovered, account)
			}
			if !strings.Contains(err.Error(), c.problem) {
				t.Errorf("got error %q, want one with %q", err, c.problem)
			}
			if sig != (signer.Signature{}) {
				t.Errorf("got signature %x with the error, want none", sig)
			}
		})
	}
}

func swapped(sig signer.Signature) signer.Signature {
	var out signer.Signature
	copy(out[:32], sig[32:64])
	copy(out[32:64], sig[:32])
	out[64] = sig[64]
	return out
}

func resign(t *testing.T, key *ecdsa.PrivateKey, hash common.Hash) func(*signer.Signature) {
	raw, err := crypto.Sign(hash[:], key)
	if err != nil {
		t.Fatal(err)
	}
	return func(sig *signer.Signature) { copy(sig[:], raw) }
}

func TestVerifiedPassesErrorsOn(t *testing.T) {
	key := signertest.Key(1)
	noise := errors.New("line noise")
	for _, want := range []error{signer.ErrDeclined, signer.ErrUnusable, context.DeadlineExceeded, noise} {
		memory := signertest.NewMemory(key)
		memory.Alter = func(common.Address, *signer.Signature) error { return fmt.Errorf("device 3: %w", want) }
		_, err := signer.Verified(memory).SignMessage(t.Context(), signertest.Address(key), nil)
		if !errors.Is(err, want) || errors.Is(err, signer.ErrMismatch) {
			t.Errorf("error %v, want %v", err, want)
		}
	}
}

// The first hash is the one of go-ethereum's accounts package, hash, key and signature of the second are those in the
// documentation of web3.js's eth.accounts.sign.
func TestMessageHashVectors(t *testing.T) {
	for message, want := range map[string]string{
		"Hello Joe": "0xa080337ae51c4e064c189e113edd0ba391df9206e2f49db658bb32cf2911730b",
		"Some data": "0x1da44b586eb0729ff70a73c326926f6ed5a25f5b056e7f47fbc6e58d86871655",
	} {
		if got := signer.MessageHash([]byte(message)).Hex(); got != want {
			t.Errorf("MessageHash(%q) = %s, want %s", message, got, want)
		}
	}
	key, err := crypto.HexToECDSA("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318")
	if err != nil {
		t.Fatal(err)
	}
	account := common.HexToAddress("0x2c7536E3605D9C16a7a3D7b1898e529396a65c23")
	sig, err := signer.Verified(signertest.NewMemory(key)).SignMessage(t.Context(), account, []byte("Some data"))
	if err != nil {
		t.Fatal(err)
	}
	const want = "0xb91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd" +
		"6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a0291c"
	if got := hexutil.Encode(sig[:]); got != want {
		t.Errorf("signature %s\nwant      %s", got, want)
	}
}

func BenchmarkVerified(b *testing.B) {
	key := signertest.Key(1)
	backend := signer.Verified(signertest.NewMemory(key))
	message := bytes.Repeat([]byte("x"), 400)
	for b.Loop() {
		if _, err := backend.SignMessage(b.Context(), signertest.Address(key), message); err != nil {
			b.Fatal(err)
		}
	}
}
