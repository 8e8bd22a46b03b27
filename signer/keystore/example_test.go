package keystore_test

import (
	"context"
	"fmt"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/keystore"
)

func Example() {
	ctx := context.Background()
	uri := "keystore:../../testdata/keystore?password-file=../../testdata/keystore-password"
	backend, err := keystore.Open(ctx, uri, signer.Environment{
		InsecurePermissions: true, // a clone of the repository has the sample readable by everybody
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	backend = signer.Verified(backend)
	defer backend.Close()

	account := common.HexToAddress("0xE66c9b8E74D0ece13e824f4987Aa568Bc3963C3f") // the first of testdata/customers.csv
	sig, err := backend.SignMessage(ctx, account, []byte("hello"))
	fmt.Println(len(sig), err)
	fmt.Println(backend.HasKey(ctx, common.HexToAddress("0x01")))
	// Output:
	// 65 <nil>
	// signer has no key of this account: 0x0000000000000000000000000000000000000001: keystore ../../testdata/keystore has no file for it
}
