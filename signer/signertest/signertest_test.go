package signertest_test

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

func TestMemory(t *testing.T) {
	signertest.Run(t, func(_ *testing.T, keys []*ecdsa.PrivateKey) signer.Backend {
		return signertest.NewMemory(keys...)
	})
}

// A device that returns s of either half and any v is as good as another.
func TestRandomDevice(t *testing.T) {
	signertest.Run(t, func(t *testing.T, keys []*ecdsa.PrivateKey) signer.Backend {
		t.Helper()
		var mu sync.Mutex
		random := rand.New(rand.NewPCG(1, 2))
		memory := signertest.NewMemory(keys...)
		memory.Alter = func(_ common.Address, sig *signer.Signature) error {
			mu.Lock()
			defer mu.Unlock()
			if random.IntN(2) == 0 {
				s := crypto.S256().Params().N
				low := common.BytesToHash(sig[32:64]).Big()
				low.Sub(s, low).FillBytes(sig[32:64])
			}
			sig[64] = byte(random.IntN(256))
			return nil
		}
		return memory
	})
}

func ExampleMemory() {
	alice, bob := signertest.Key(0), signertest.Key(1)
	backend := signertest.NewMemory(alice)

	sig, err := backend.SignMessage(context.Background(), signertest.Address(alice), []byte("hello"))
	fmt.Println(len(sig), err)
	_, err = backend.SignMessage(context.Background(), signertest.Address(bob), []byte("hello"))
	fmt.Println(err)
	// Output:
	// 65 <nil>
	// signer has no key of this account: 0x88BB5a24Cd0c342f55EF61fBF6eEfafCBd10C9A6
}
