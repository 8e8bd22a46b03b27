package fireblocks_test

import (
	"context"
	"fmt"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/fireblocks"
)

func Example() {
	uri := "fireblocks://vault?api-key=7a1c4f3e-9d52-4a8b-b1a0-5f6c7d8e9f00&vault-map=vaults.csv"
	_, err := fireblocks.Open(context.Background(), uri, signer.Environment{})
	fmt.Println(err)
	// Output:
	// signer URI fireblocks:… has no private-key-file (want fireblocks://vault?api-key=UUID&private-key-file=/file.pem&vault-map=/file.csv)
}
