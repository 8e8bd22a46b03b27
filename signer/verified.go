package signer

import (
	"bytes"
	"context"
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// Verified wraps a backend so that every signature it returns is canonical and verified: s in the lower half of the
// group order (EIP-2), v 27 or 28, and recovering to the requested account over the EIP-191 hash of the requested
// message. Anything else is a *MismatchError, which wraps ErrMismatch. The other methods are b's own. If b is a
// Custodian, so is the result, and Poll's signatures pass the same check.
//
// The backend's v is only a hint: r and s alone decide whether the account's key made the signature, and many devices
// return no v. The hint is tried first and the other value after it, so a correct backend costs one recovery.
func Verified(b Backend) Backend {
	v := &verified{Backend: b, order: crypto.S256().Params().N}
	v.order.FillBytes(v.n[:])
	new(big.Int).Rsh(v.order, 1).FillBytes(v.halfN[:])
	if c, ok := b.(Custodian); ok {
		return &verifiedCustodian{verified: v, custodian: c}
	}
	return v
}

type verifiedCustodian struct {
	*verified
	custodian Custodian
}

func (v *verifiedCustodian) Request(ctx context.Context, id string, account common.Address, message []byte) error {
	return v.custodian.Request(ctx, id, account, message)
}

func (v *verifiedCustodian) Poll(
	ctx context.Context, id string, account common.Address, message []byte,
) (Signature, error) {
	sig, err := v.custodian.Poll(ctx, id, account, message)
	if err != nil {
		return Signature{}, err
	}
	return v.canonical(sig, account, MessageHash(message))
}

func (v *verifiedCustodian) Cancel(ctx context.Context, id string) error {
	return v.custodian.Cancel(ctx, id)
}

type verified struct {
	Backend
	order    *big.Int
	n, halfN [32]byte
}

func (v *verified) SignMessage(ctx context.Context, account common.Address, message []byte) (Signature, error) {
	sig, err := v.Backend.SignMessage(ctx, account, message)
	if err != nil {
		return Signature{}, err
	}
	return v.canonical(sig, account, MessageHash(message))
}

func (v *verified) canonical(sig Signature, account common.Address, hash common.Hash) (Signature, error) {
	if problem := v.rangeProblem("r", sig[:32]); problem != "" {
		return Signature{}, &MismatchError{Account: account, Problem: problem}
	}
	if problem := v.rangeProblem("s", sig[32:64]); problem != "" {
		return Signature{}, &MismatchError{Account: account, Problem: problem}
	}
	parity := byte(0)
	switch sig[64] {
	case 1, 28:
		parity = 1
	}
	if bytes.Compare(sig[32:64], v.halfN[:]) > 0 {
		s := new(big.Int).SetBytes(sig[32:64])
		s.Sub(v.order, s).FillBytes(sig[32:64])
		parity ^= 1 // -s belongs to the mirrored point
	}
	mismatch := &MismatchError{Account: account, Problem: "recovers to no key"}
	for _, p := range [2]byte{parity, parity ^ 1} {
		sig[64] = p
		public, err := crypto.Ecrecover(hash[:], sig[:])
		if err != nil {
			continue // r is no point's x with this parity
		}
		recovered := common.BytesToAddress(crypto.Keccak256(public[1:])[12:])
		if recovered == account {
			sig[64] += 27
			return sig, nil
		}
		if mismatch.Recovered == (common.Address{}) {
			mismatch.Recovered, mismatch.Problem = recovered, ""
		}
	}
	return Signature{}, mismatch
}

// rangeProblem: r and s lie in [1, n-1] (SEC 1, section 4.1.4).
func (v *verified) rangeProblem(name string, value []byte) string {
	if bytes.Equal(value, make([]byte, 32)) {
		return name + " is zero"
	}
	if bytes.Compare(value, v.n[:]) >= 0 {
		return name + " is not below the group order"
	}
	return ""
}

// MismatchError reports a signature that is not one of Account over the message. It wraps ErrMismatch.
type MismatchError struct {
	Account   common.Address
	Recovered common.Address // the signature's account, if the backend's v is right; zero when Problem is set
	Problem   string         // what is wrong with the signature itself; empty when it is sound but another's
}

func (e *MismatchError) Error() string {
	if e.Problem != "" {
		return fmt.Sprintf("%v %v: %s", ErrMismatch, e.Account, e.Problem)
	}
	return fmt.Sprintf("%v %v: it recovers to %v", ErrMismatch, e.Account, e.Recovered)
}

// Unwrap makes errors.Is(err, ErrMismatch) true.
func (e *MismatchError) Unwrap() error { return ErrMismatch }
