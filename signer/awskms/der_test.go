package awskms

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/signer/signertest"
)

// Made with OpenSSL 3: ecparam -name secp256k1 -genkey, ec -pubout -outform DER, dgst -sha256 -sign over "purser".
const (
	opensslKey = "3056301006072a8648ce3d020106052b8104000a03420004" +
		"fcb38dd39484baecb5118f00b6dcf1f060dc0ee71a0fb160ec32d9c35687af23b4f53ef1469a4e51cfea65e9092fa14cb91b42e4a28ab7626978b40d7dc74ff0"
	opensslSignature = "304502204dd52e346ce0624e37f8854110ee4896d58f9a1afa4b1914969e5b0e807602c1" +
		"022100d7b782220ddc356dea7beff49431e3ce34a91a0c26cd94fad3c56e72caef2cb4"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParsePublicKey(t *testing.T) {
	spki := unhex(t, opensslKey)
	address, err := parsePublicKey(spki)
	if err != nil {
		t.Fatal(err)
	}
	point, err := crypto.UnmarshalPubkey(spki[23:])
	if err != nil {
		t.Fatal(err)
	}
	if want := crypto.PubkeyToAddress(*point); address != want {
		t.Errorf("address %v, want %v", address, want)
	}
	for i := range spki { // every byte counts
		for _, flip := range []byte{1, 0x80} {
			damaged := bytes.Clone(spki)
			damaged[i] ^= flip
			if _, err := parsePublicKey(damaged); err == nil {
				t.Errorf("byte %d changed by %#x: got no error, want one", i, flip)
			}
		}
		if _, err := parsePublicKey(spki[:i]); err == nil {
			t.Errorf("cut after %d bytes: got no error, want one", i)
		}
	}
	if _, err := parsePublicKey(append(bytes.Clone(spki), 0)); err == nil {
		t.Error("a byte more: got no error, want one")
	}
}

func TestParsePublicKeyOfAnotherKind(t *testing.T) {
	for name, c := range map[string]struct{ spki, want string }{
		"compressed":          {"3036301006072a8648ce3d020106052b8104000a03220002fcb38dd39484baecb5118f00b6dcf1f060dc0ee71a0fb160ec32d9c35687af23", "uncompressed"},
		"P-256":               {"3059301306072a8648ce3d020106082a8648ce3d03010703420004d165779adb83f22bd289d4172d36a38471ce2b00ba53be5bd80f1941721349f58c913c589998aaf620c25ffdf40ce95beeabb222177eda0993ea679f3fa41e7b", "not on secp256k1"},
		"Ed25519":             {"302a300506032b65700321009ec43bbc3e698b98c7d9ced8bae6873287d5ac7046524ec8b35cf15e009e5ad7", "not an elliptic-curve key"},
		"explicit parameters": {"308201333081ec06072a8648ce3d02013081e0020101302c06072a8648ce3d0101022100fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f3044042000000000000000000000000000000000000000000000000000000000000000000420000000000000000000000000000000000000000000000000000000000000000704410479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8022100fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd036414102010103420004fcb38dd39484baecb5118f00b6dcf1f060dc0ee71a0fb160ec32d9c35687af23b4f53ef1469a4e51cfea65e9092fa14cb91b42e4a28ab7626978b40d7dc74ff0", "does not name its curve"},
		"nothing":             {"", "not a SubjectPublicKeyInfo"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parsePublicKey(unhex(t, c.spki))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestParseSignature(t *testing.T) {
	r, s, err := parseSignature(unhex(t, opensslSignature))
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(r[:]) != "4dd52e346ce0624e37f8854110ee4896d58f9a1afa4b1914969e5b0e807602c1" ||
		hex.EncodeToString(s[:]) != "d7b782220ddc356dea7beff49431e3ce34a91a0c26cd94fad3c56e72caef2cb4" {
		t.Errorf("got r %x, s %x, want those of OpenSSL's signature", r, s)
	}
	for name, c := range map[string]struct{ der, want string }{
		"small numbers are padded":       {"3006020101020102", ""},
		"short of one octet":             {"30060201010201", "not a pair"},
		"an octet more":                  {"300602010102010200", "not a pair"},
		"an octet more within":           {"300702010102010200", "not a pair"},
		"no sequence":                    {"3106020101020102", "not a pair"},
		"not two":                        {"3003020101", "not a pair"},
		"zero":                           {"3006020100020102", "zero"},
		"negative":                       {"3006020181020102", "not a pair"},
		"a zero too many":                {"300702020001020102", "not a pair"},
		"no digits":                      {"30050200020102", "not a pair"},
		"33 bytes":                       {"30260221" + "01" + strings.Repeat("00", 32) + "020101", "33 bytes"},
		"a length in BER":                {"308106020101020102", "not a pair"},
		"a length in BER, two octets":    {"30820006020101020102", "not a pair"},
		"a length of no definite end":    {"3080020101020102" + "0000", "not a pair"},
		"a length of three octets":       {"3083000006020101020102", "not a pair"},
		"a bit string":                   {"3006030101020102", "not a pair"},
		"the raw 64 bytes":               {strings.Repeat("11", 64), "not a pair"},
		"256 bits with the leading zero": {"3026022100" + strings.Repeat("ff", 32) + "020101", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := parseSignature(unhex(t, c.der))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// What is accepted is what encoding/asn1 would have written: one pair of numbers has one spelling.
func FuzzParseSignature(f *testing.F) {
	f.Add(unhex(f, opensslSignature))
	f.Add(unhex(f, "3006020101020102"))
	f.Add(unhex(f, "300702020001020102"))
	f.Fuzz(func(t *testing.T, der []byte) {
		r, s, err := parseSignature(der)
		if err != nil {
			return
		}
		again, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(r[:]), new(big.Int).SetBytes(s[:])})
		if err != nil || !bytes.Equal(again, der) {
			t.Errorf("got no error for %x, want one, because its numbers are encoded as %x (%v)", der, again, err)
		}
	})
}

func FuzzParsePublicKey(f *testing.F) {
	f.Add(unhex(f, opensslKey))
	prefix := unhex(f, opensslKey)[:23]
	f.Add(append(bytes.Clone(prefix), crypto.FromECDSAPub(&signertest.Key(1).PublicKey)...))
	f.Fuzz(func(t *testing.T, spki []byte) {
		address, err := parsePublicKey(spki)
		if err != nil {
			return
		}
		key, err := crypto.UnmarshalPubkey(spki[len(spki)-65:])
		if err != nil || len(spki) != 88 || !bytes.HasPrefix(spki, prefix) || crypto.PubkeyToAddress(*key) != address {
			t.Errorf("got no error for %x (address %v, %v), want one", spki, address, err)
		}
	})
}
