// Package keystoretest writes key files for tests.
package keystoretest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"fmt"
	"io"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/google/uuid"
	"golang.org/x/crypto/scrypt"
)

// KeyFile returns a key file of version 3 (Web3 Secret Storage Definition) for key, under scrypt with cost n and
// parallelism p; r is 8. 262144 and 1 are the standard, taking 256 MiB and a second or two; 4096 and 6 are what
// go-ethereum calls light; 2 and 1 protect nothing. Salt, IV and the file's id are read from random, so the same random
// gives the same file.
func KeyFile(key *ecdsa.PrivateKey, password string, n, p int, random io.Reader) ([]byte, error) {
	salt, iv := make([]byte, 32), make([]byte, aes.BlockSize)
	for _, b := range [][]byte{salt, iv} {
		if _, err := io.ReadFull(random, b); err != nil {
			return nil, fmt.Errorf("read randomness: %w", err)
		}
	}
	id, err := uuid.NewRandomFromReader(random)
	if err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	derived, err := scrypt.Key([]byte(password), salt, n, 8, p, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived[:16])
	if err != nil {
		return nil, err
	}
	text := crypto.FromECDSA(key)
	cipher.NewCTR(block, iv).XORKeyStream(text, text)
	return fmt.Appendf(nil, `{"address":"%x","crypto":{"cipher":"aes-128-ctr","ciphertext":"%x",`+
		`"cipherparams":{"iv":"%x"},"kdf":"scrypt","kdfparams":{"dklen":32,"n":%d,"r":8,"p":%d,"salt":"%x"},`+
		`"mac":"%x"},"id":"%s","version":3}`,
		crypto.PubkeyToAddress(key.PublicKey).Bytes(), text, iv, n, p, salt,
		crypto.Keccak256(derived[16:], text), id), nil
}
