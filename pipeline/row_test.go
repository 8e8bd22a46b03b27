package pipeline

import (
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
)

// The checksummed addresses of EIP-55's own test cases.
var eip55 = []string{
	"0x52908400098527886E0F7030069857D2E4169EE7", "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
	"0xde709f2102306220921060314715629080e2fb77", "0x27b1fdb04752bbc536007a920d24acb045561c26",
	"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
	"0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB", "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
}

func TestParseAddress(t *testing.T) {
	for _, s := range eip55 {
		got, _, err := ParseAddress(s, nil)
		if err != nil || got.Hex() != s {
			t.Errorf("ParseAddress(%s): got %s, %v; want %[1]s", s, got, err)
		}
		for _, folded := range []string{"0x" + strings.ToLower(s[2:]), "0x" + strings.ToUpper(s[2:])} {
			if got, _, err := ParseAddress(folded, nil); err != nil || got.Hex() != s {
				t.Errorf("ParseAddress(%s): got %s, %v; want %s", folded, got, err, s)
			}
		}
		for i := 2; i < len(s); i++ { // one letter in the other case
			c := s[i] ^ 0x20
			if s[i] <= '9' {
				continue
			}
			bad := s[:i] + string(c) + s[i+1:]
			mixed := strings.ToLower(bad[2:]) != bad[2:] && strings.ToUpper(bad[2:]) != bad[2:]
			if got, _, err := ParseAddress(bad, nil); mixed && err == nil {
				t.Errorf("ParseAddress(%s): got %s, want an error: wrong checksum", bad, got)
			}
		}
	}
	for _, s := range []string{"", "0x", "0X" + goodAddress[2:], goodAddress[2:], goodAddress + "0", goodAddress[:41],
		"0x" + strings.Repeat("g", 40)} {
		if got, _, err := ParseAddress(s, nil); err == nil {
			t.Errorf("ParseAddress(%q): got %s, want an error", s, got)
		}
	}
}

func TestParseAccount(t *testing.T) {
	want := "eip155:300:" + goodAddress
	if got, err := ParseAccount("eip155:300:" + strings.ToLower(goodAddress)); err != nil || got.String() != want {
		t.Errorf("got %v, %v, want %s", got, err, want)
	}
	for _, s := range []string{"", ":", "eip155:300", goodAddress, "eip155::" + goodAddress, "eip155:0:" + goodAddress, "eip155:01:" + goodAddress,
		"eip155:+1:" + goodAddress, "eip155:0x1:" + goodAddress, "solana:5eykt4:" + goodAddress, "EIP155:1:" + goodAddress,
		"eip155:9223372036854775808:" + goodAddress, "eip155:1:2:" + goodAddress} {
		if got, err := ParseAccount(s); err == nil {
			t.Errorf("ParseAccount(%q): got %v, want an error", s, got)
		}
	}
}

func TestKeysAreDerived(t *testing.T) {
	account, err := ParseAccount("eip155:300:" + goodAddress)
	if err != nil {
		t.Fatal(err)
	}
	ring := Keyring{APIHost: "api.example", APIKeyID: "k"}
	row := Row{Account: account, ExternalID: "e"}
	again := Row{Account: account, ExternalID: "e", ImportID: "another", File: "f", Line: 3}
	if got, want := ring.Create(again, 0), ring.Create(row, 0); got != want {
		t.Errorf("another import of the row: got key %s, want %s", got, want)
	}
	if got := ring.Create(row, 0); got.Version() != 5 {
		t.Errorf("got key %s of version %d, want a UUIDv5", got, got.Version())
	}
	different := map[string]bool{}
	for _, k := range []string{
		ring.Create(row, 0).String(), ring.Create(row, 1).String(),
		ring.Create(Row{Account: account, ExternalID: "f"}, 0).String(),
		Keyring{APIHost: "api.example", APIKeyID: "l"}.Create(row, 0).String(),
		Keyring{APIHost: "api2.example", APIKeyID: "k"}.Create(row, 0).String(),
		ring.Submit("c", [32]byte{1}, 0).String(), ring.Submit("c", [32]byte{2}, 0).String(), ring.Submit("c", [32]byte{1}, 1).String(),
	} {
		if different[k] {
			t.Errorf("got key %s twice, want different keys", k)
		}
		different[k] = true
	}
}

// TestChecksummed: the EIP-55 form is the same as that of go-ethereum.
func TestChecksummed(t *testing.T) {
	for n := range 1000 {
		sum := sha256.Sum256([]byte{byte(n), byte(n >> 8)})
		address := common.BytesToAddress(sum[:])
		if got := checksummed(address); string(got[:]) != address.Hex() {
			t.Fatalf("got %s, want %s", got[:], address.Hex())
		}
	}
}

const goodAddress = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
