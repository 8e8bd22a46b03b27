package keystore

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/internal/keystoretest"
	"github.com/purser-onboard/purser/signer/signertest"
)

// The first two are the vectors of the Web3 Secret Storage Definition, at the standard cost; the third was written by
// go-ethereum 1.17.10 (accounts/keystore.StoreKey).
var vectors = []struct{ name, password, key, file string }{
	{
		"pbkdf2", "testpassword", "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d",
		`{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},
		"ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2",
		"kdfparams":{"c":262144,"dklen":32,"prf":"hmac-sha256",
		"salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},
		"mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},
		"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}`,
	},
	{
		"scrypt", "testpassword", "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d",
		`{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"83dbcc02d8ccb40e466191a123791e0e"},
		"ciphertext":"d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c","kdf":"scrypt",
		"kdfparams":{"dklen":32,"n":262144,"r":1,"p":8,
		"salt":"ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19"},
		"mac":"2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097"},
		"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}`,
	},
	{
		"go-ethereum", "pässword with space", "4e26ba191625e63ed312b873229adfb1971f559e9060073260efb4da330eb9d8",
		`{"address":"47823261d1205564e61a54290c344d7b48de2594","crypto":{"cipher":"aes-128-ctr",
		"ciphertext":"e475d6a181933991d1f7131460b5abc68fc576f4d94d72f273da95c60722a840",
		"cipherparams":{"iv":"0bc332e19b43bfaf012e2451ee241ad1"},"kdf":"scrypt",
		"kdfparams":{"dklen":32,"n":2,"p":1,"r":8,"salt":"21d23bd9a24450e7488650ab51df46fd69eb0b02f6c2c6fd8824b0ec4b5af925"},
		"mac":"aaeb53727662d50219a9d2db1ba708dfaecd620bc535e319c7f876f7b8476630"},
		"id":"ce84d24f-0216-4f08-a021-dbfa01fa2a08","version":3}`,
	},
}

// Written by ethers 6.17.0 (encryptKeystoreJsonSync) with the password "\ufb01ne pa\u0308ssword \u21165", which it
// brings into NFKC: "fine p\u00e4ssword No5".
const (
	ethersAddress = "0x47823261d1205564e61a54290c344d7b48de2594"
	ethersVector  = `{"address":"47823261d1205564e61a54290c344d7b48de2594",
	"id":"06b13102-78b1-4275-a5d2-928ca13d6ff2","version":3,"Crypto":{"cipher":"aes-128-ctr",
	"cipherparams":{"iv":"d30001be005e81a2595a6ac45ef2c77e"},
	"ciphertext":"ddc3f2a2b908161be160964c119995bbad21149e4e51b9ddc1b79660802c3f8f","kdf":"scrypt",
	"kdfparams":{"salt":"7ff474fd7495652e05b3bb58ef927e5fa806db5f23687aed630e6d9444d1274e","n":2,"dklen":32,"p":1,"r":8},
	"mac":"998443e9f281d4bc4e90d21d05870eb6979f2f96026fa2d24301807f19ace297"}}`
)

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			if testing.Short() && v.name != "go-ethereum" {
				t.Skip("the standard cost is a second or two a key")
			}
			file, err := parseKeyFile([]byte(v.file))
			if err != nil {
				t.Fatal(err)
			}
			key, err := file.decrypt([]byte(v.password))
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(crypto.FromECDSA(key)); got != v.key {
				t.Errorf("key %s, want %s", got, v.key)
			}
			if file.hasAddress && file.address != crypto.PubkeyToAddress(key.PublicKey) {
				t.Errorf("address %v, want that of the key", file.address)
			}
		})
	}
}

func TestDecrypt(t *testing.T) {
	key := signertest.Key(3)
	data, err := keystoretest.KeyFile(key, "secret", 4, 2, rand.NewChaCha8([32]byte{7}))
	if err != nil {
		t.Fatal(err)
	}
	file, err := parseKeyFile(data)
	if err != nil {
		t.Fatal(err)
	}
	got, err := file.decrypt([]byte("secret"))
	if err != nil || !got.Equal(key) || file.address != signertest.Address(key) {
		t.Errorf("round trip: got error %v, address %v; want the same key and %v", err, file.address, signertest.Address(key))
	}
	if _, err := file.decrypt([]byte("Secret")); !errors.Is(err, errPassword) {
		t.Errorf("error %v, want errPassword", err)
	}
}

func TestParseKeyFileRefuses(t *testing.T) {
	good := vectors[2].file
	for _, c := range []struct{ old, with, want string }{
		{`"version":3`, `"version":"3"`, "not of version 3"},
		{`"version":3`, `"version":1`, "not of version 3"},
		{`,"version":3`, ``, "has no version"},
		{`"crypto"`, `"krypto"`, "has no crypto section"},
		{"aes-128-ctr", "aes-128-cbc", `cipher "aes-128-cbc"`},
		{`"47823261`, `"4782326`, "address that is not 40 hex digits"},
		{`"47823261`, `"zz823261`, "address that is not 40 hex digits"},
		{`"e475d6a1`, `"e475d6`, "ciphertext of 31 bytes"},
		{`"e475d6a1`, `"e475d6a`, "ciphertext that is not hex"},
		{`"iv":"0b`, `"iv":"`, "cipherparams.iv of 15 bytes"},
		{`"mac":"aaeb`, `"mac":"0xaaeb`, "mac that is not hex"},
		{`"mac"`, `"mic"`, "mac of 0 bytes"},
		{`"kdf":"scrypt"`, `"kdf":"argon2id"`, `kdf "argon2id"`},
		{`"kdf":"scrypt"`, `"kdf":"pbkdf2"`, "kdfparams.prf"},
		{`"dklen":32`, `"dklen":16`, "kdfparams.dklen 16"},
		{`"n":2`, `"n":3`, "a power of two"},
		{`"n":2`, `"n":"2"`, "is not a JSON key file"},
		{`"n":2,`, ``, "n=0"},
		{`"p":1`, `"p":-1`, "all positive"},
		{`"r":8`, `"r":0`, "all positive"},
		{`"n":2,"p":1`, `"n":4611686018427387904,"p":1`, "costs more"},
		{`"n":2,"p":1`, `"n":1048576,"p":8`, "costs more"},
		{`"n":2,"p":1`, `"n":262144,"p":9007199254740991`, "costs more"},
		{`"salt":"21`, `"salt":"`, ""},
		{`"salt":"21d2`, `"salt":"x`, "salt that is not hex"},
		{`"version":3}`, `"version":3}}`, "is not a JSON key file"},
	} {
		bad := strings.Replace(good, c.old, c.with, 1)
		if bad == good {
			t.Fatalf("got a file without %s, want one with it to replace", c.old)
		}
		_, err := parseKeyFile([]byte(bad))
		if c.want == "" && err == nil {
			continue // another salt is still a salt: the authentication code will tell
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s for %s: error %v, want %q", c.with, c.old, err, c.want)
		}
	}
}

// FuzzKeyFile: a key file of any content gives an error or is decrypted, without a panic and within the bounds of cost.
func FuzzKeyFile(f *testing.F) {
	f.Add([]byte(vectors[2].file))
	f.Add([]byte(`{"crypto":{"kdf":"scrypt","kdfparams":{}},"version":3}`))
	f.Add([]byte(`{"version":3,"crypto":{"cipher":"aes-128-ctr","kdf":"pbkdf2","kdfparams":{"c":1,"prf":"hmac-sha256"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := parseKeyFile(data)
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Fatal("got an empty error, want a text")
			}
			return
		}
		if len(file.ciphertext) != 32 || len(file.iv) != 16 || len(file.mac) != 32 || file.derive == nil {
			t.Fatalf("parseKeyFile(%q) = %+v; want an error, or all fields of their lengths", data, file)
		}
	})
}
