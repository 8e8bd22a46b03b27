package siwe_test

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/siwe"
)

const challenge = `api.sandbox.offblocks.xyz wants you to sign in with your Ethereum account:
0x43158f45b5EbD7b1179130130DF00393928C2691

OffBlocks wants to verify ownership of your wallet.

URI: https://api.sandbox.offblocks.xyz
Version: 1
Chain ID: 300
Nonce: 5ufoiEqDaFvmfo78
Issued At: 2024-01-17T18:21:53Z`

// A challenge is parsed first and checked second; only then may its text be signed.
func Example() {
	policy := siwe.Policy{
		Domain:  "api.sandbox.offblocks.xyz",
		ChainID: 300,
		Address: common.HexToAddress("0x43158f45b5EbD7b1179130130DF00393928C2691"),
		// The whole statement, byte for byte.
		Statement: "OffBlocks wants to verify ownership of your wallet.",
		MaxAge:    time.Hour,
		Skew:      time.Minute,
		Now:       func() time.Time { return time.Date(2024, 1, 17, 18, 30, 0, 0, time.UTC) },
	}
	for _, text := range []string{
		challenge,
		challenge + "\n",
		strings.Replace(challenge, "api", "\u0430pi", 1), // a Cyrillic а
		strings.Replace(challenge, "Chain ID: 300", "Chain ID: 1", 1),
		strings.Replace(challenge, "2024-01-17", "2024-01-16", 1),
	} {
		message, err := siwe.Parse(text)
		if err == nil {
			err = policy.Check(message)
		}
		var refusal *siwe.PolicyError
		switch {
		case err == nil:
			fmt.Println("may be signed by", message.Address)
		case errors.As(err, &refusal) && refusal.Stale:
			fmt.Println("needs a new challenge:", refusal.Field)
		default:
			fmt.Println(err)
		}
	}
	// Output:
	// may be signed by 0x43158f45b5EbD7b1179130130DF00393928C2691
	// siwe: line 11: text: ends in a line break
	// siwe: line 1: domain: U+0430 at byte 1 is not ASCII: "\u0430pi.sandbox"
	// siwe: refused: chain-id is "1", want 300
	// needs a new challenge: issued-at
}

// ExampleMessage_String writes a challenge, as the partner would.
func ExampleMessage_String() {
	message := &siwe.Message{
		Domain:       "127.0.0.1:8080",
		Address:      common.HexToAddress("0x43158f45b5ebd7b1179130130df00393928c2691"),
		Statement:    "Prove that this wallet is yours.",
		HasStatement: true,
		URI:          "http://127.0.0.1:8080",
		Version:      "1",
		ChainID:      300,
		Nonce:        "5ufoiEqDaFvmfo78",
		IssuedAt:     time.Date(2024, 1, 17, 18, 21, 53, 0, time.UTC),
	}
	fmt.Println(message)
	// Output:
	// 127.0.0.1:8080 wants you to sign in with your Ethereum account:
	// 0x43158f45b5EbD7b1179130130DF00393928C2691
	//
	// Prove that this wallet is yours.
	//
	// URI: http://127.0.0.1:8080
	// Version: 1
	// Chain ID: 300
	// Nonce: 5ufoiEqDaFvmfo78
	// Issued At: 2024-01-17T18:21:53Z
}
