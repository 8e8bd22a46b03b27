package web3signer_test

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"net/http/httptest"

	"github.com/purser-onboard/purser/internal/web3signertest"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
	"github.com/purser-onboard/purser/signer/web3signer"
)

func Example() {
	ctx := context.Background()
	key := signertest.Key(0)
	server := httptest.NewServer(web3signertest.New([]*ecdsa.PrivateKey{key}))
	defer server.Close()

	backend, err := web3signer.Open(ctx, "web3signer+"+server.URL, signer.Environment{})
	if err != nil {
		fmt.Println(err)
		return
	}
	backend = signer.Verified(backend)
	defer backend.Close()

	sig, err := backend.SignMessage(ctx, signertest.Address(key), []byte("hello"))
	fmt.Printf("v is %d, error %v\n", sig[64], err)
	_, err = backend.SignMessage(ctx, signertest.Address(signertest.Key(1)), []byte("hello"))
	fmt.Println(err != nil)
	// Output:
	// v is 28, error <nil>
	// true
}
