package keystore

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"golang.org/x/crypto/pbkdf2"
	"golang.org/x/crypto/scrypt"
)

// The format is version 3 of the Web3 Secret Storage Definition. It is read here and not by go-ethereum's
// accounts/keystore because that panics on a file whose kdfparams lack a field, accepts any cost that a file asks for,
// and adds transactions, KZG commitments and a file watcher to the program.

const (
	derivedLength = 32 // bytes 0–15 encrypt, bytes 16–31 authenticate

	// What a file may ask for. The standard cost is 256 MiB and N·r·p = 2²¹, a second or two.
	maxScryptMemory = 1 << 30
	maxScryptWork   = 1 << 25
	maxPBKDF2Count  = 10_000_000
)

// errPassword: the authentication code does not match, because the password is wrong or the file was changed.
var errPassword = errors.New("the password does not open it")

// keyFile is a parsed key file. Whether it opens is not known without the password.
type keyFile struct {
	address    common.Address // the account that it names
	hasAddress bool           // the field is optional
	derive     func(password []byte) ([]byte, error)
	iv         []byte
	ciphertext []byte
	mac        []byte
}

type keyFileJSON struct {
	Address *string         `json:"address"`
	Crypto  *cryptoJSON     `json:"crypto"`
	ID      string          `json:"id"`
	Version json.RawMessage `json:"version"`
}

type cryptoJSON struct {
	Cipher       string           `json:"cipher"`
	Ciphertext   string           `json:"ciphertext"`
	CipherParams cipherParamsJSON `json:"cipherparams"`
	KDF          string           `json:"kdf"`
	KDFParams    kdfParamsJSON    `json:"kdfparams"`
	MAC          string           `json:"mac"`
}

type cipherParamsJSON struct {
	IV string `json:"iv"`
}

type kdfParamsJSON struct {
	DKLen int    `json:"dklen"`
	N     int    `json:"n"`
	R     int    `json:"r"`
	P     int    `json:"p"`
	C     int    `json:"c"`
	PRF   string `json:"prf"`
	Salt  string `json:"salt"`
}

// parseKeyFile reads a version 3 key file. Errors name the field.
func parseKeyFile(data []byte) (*keyFile, error) {
	var j keyFileJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return nil, fmt.Errorf("is not a JSON key file: %w", err)
	}
	switch {
	case len(j.Version) == 0:
		return nil, errors.New("has no version: it is not a key file")
	case string(j.Version) != "3":
		return nil, errors.New("is not of version 3, the only one supported")
	case j.Crypto == nil:
		return nil, errors.New("has no crypto section")
	case j.Crypto.Cipher != "aes-128-ctr":
		return nil, fmt.Errorf("has the cipher %q, want aes-128-ctr", j.Crypto.Cipher)
	}
	k := new(keyFile)
	if j.Address != nil && *j.Address != "" {
		address, ok := parseAddress(*j.Address)
		if !ok {
			return nil, errors.New("has an address that is not 40 hex digits")
		}
		k.address, k.hasAddress = address, true
	}
	var err error
	if k.ciphertext, err = hexField("ciphertext", j.Crypto.Ciphertext, 32); err != nil {
		return nil, err
	}
	if k.iv, err = hexField("cipherparams.iv", j.Crypto.CipherParams.IV, aes.BlockSize); err != nil {
		return nil, err
	}
	if k.mac, err = hexField("mac", j.Crypto.MAC, 32); err != nil {
		return nil, err
	}
	if k.derive, err = derivation(j.Crypto.KDF, j.Crypto.KDFParams); err != nil {
		return nil, err
	}
	return k, nil
}

func derivation(kdf string, p kdfParamsJSON) (func([]byte) ([]byte, error), error) {
	salt, err := hex.DecodeString(p.Salt)
	if err != nil || len(salt) == 0 {
		return nil, errors.New("has a kdfparams.salt that is not hex")
	}
	if p.DKLen != derivedLength {
		return nil, fmt.Errorf("has kdfparams.dklen %d, want %d", p.DKLen, derivedLength)
	}
	switch kdf {
	case "scrypt":
		if p.N < 2 || p.N&(p.N-1) != 0 || p.R < 1 || p.P < 1 {
			return nil, fmt.Errorf("has scrypt parameters n=%d r=%d p=%d: n must be a power of two, all positive",
				p.N, p.R, p.P)
		}
		// One division after another: the product could overflow.
		if p.N > maxScryptMemory/128/p.R || p.P > maxScryptWork/p.N/p.R {
			return nil, fmt.Errorf("has scrypt parameters n=%d r=%d p=%d: that costs more than 1 GiB, or n·r·p of 2²⁵",
				p.N, p.R, p.P)
		}
		return func(password []byte) ([]byte, error) {
			return scrypt.Key(password, salt, p.N, p.R, p.P, derivedLength)
		}, nil
	case "pbkdf2":
		if p.PRF != "hmac-sha256" {
			return nil, fmt.Errorf("has kdfparams.prf %q, want hmac-sha256", p.PRF)
		}
		if p.C < 1 || p.C > maxPBKDF2Count {
			return nil, fmt.Errorf("has kdfparams.c %d, want 1 to %d", p.C, maxPBKDF2Count)
		}
		return func(password []byte) ([]byte, error) {
			return pbkdf2.Key(password, salt, p.C, derivedLength, sha256.New), nil
		}, nil
	}
	return nil, fmt.Errorf("has the kdf %q, want scrypt or pbkdf2", kdf)
}

func hexField(name, value string, length int) ([]byte, error) {
	b, err := hex.DecodeString(value)
	if err != nil {
		return nil, fmt.Errorf("has a %s that is not hex", name)
	}
	if len(b) != length {
		return nil, fmt.Errorf("has a %s of %d bytes, want %d", name, len(b), length)
	}
	return b, nil
}

// parseAddress reads 40 hex digits of any case, with or without 0x: programs write all of these.
func parseAddress(s string) (common.Address, bool) {
	if !common.IsHexAddress(s) || strings.HasPrefix(s, "0X") {
		return common.Address{}, false
	}
	return common.HexToAddress(s), true
}

// decrypt returns the key. It blocks for as long as the file's cost requires, 1.5 s at the standard cost, and cannot be
// interrupted.
func (k *keyFile) decrypt(password []byte) (*ecdsa.PrivateKey, error) {
	derived, err := k.derive(password)
	if err != nil {
		return nil, err
	}
	defer clear(derived)
	mac := crypto.Keccak256(derived[16:32], k.ciphertext)
	if subtle.ConstantTimeCompare(mac, k.mac) != 1 {
		return nil, errPassword
	}
	block, err := aes.NewCipher(derived[:16])
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(k.ciphertext))
	defer clear(plain)
	cipher.NewCTR(block, k.iv).XORKeyStream(plain, k.ciphertext)
	key, err := crypto.ToECDSA(plain)
	if err != nil {
		return nil, errors.New("does not contain a secp256k1 key")
	}
	return key, nil
}

// looksLikeJSON reports whether a file begins as a key file would.
func looksLikeJSON(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n\ufeff"), []byte("{"))
}
