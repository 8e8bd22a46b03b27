package signer_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

// Verified reports a mismatch when a device has the key but its signature is wrong.
func ExampleVerified() {
	ctx := context.Background()
	key := signertest.Key(0)
	device := signertest.NewMemory(key)
	backend := signer.Verified(device)
	defer backend.Close()

	sig, err := backend.SignMessage(ctx, signertest.Address(key), []byte("hello"))
	fmt.Printf("v is %d, error %v\n", sig[64], err)

	device.Alter = func(_ common.Address, sig *signer.Signature) error { sig[0] ^= 1; return nil }
	_, err = backend.SignMessage(ctx, signertest.Address(key), []byte("hello"))
	fmt.Println("mismatch:", errors.Is(err, signer.ErrMismatch))
	// Output:
	// v is 28, error <nil>
	// mismatch: true
}

func ExampleParseURI() {
	const shape = "keystore:///directory?password-file=/file"
	_, err := signer.ParseURI("keystore:///keys?password=hunter2", shape, "password-file")
	fmt.Println(err)
	// Output:
	// signer URI keystore:… has the unknown parameter "password" (want keystore:///directory?password-file=/file)
}
