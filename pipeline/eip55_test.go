package pipeline

import (
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
)

// TestFour: addresses that are worked out four at a time have the form that go-ethereum gives them, alone or behind a
// chain, in any case, and together with texts that are not addresses.
func TestFour(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var eip55 EIP55
	for range 1000 {
		var texts [4]string
		var want [4]string
		for n := range texts {
			var a common.Address
			for i := range a {
				a[i] = byte(random.Uint32())
			}
			want[n] = a.Hex()
			switch texts[n] = want[n]; random.IntN(6) {
			case 0:
				texts[n] = "eip155:300:" + want[n]
			case 1:
				texts[n] = strings.ToLower(want[n])
			case 2:
				texts[n] = "0x" + strings.ToUpper(want[n][2:])
			case 3:
				texts[n], want[n] = want[n][:random.IntN(42)], ""
			case 4:
				texts[n], want[n] = strings.Repeat("\xff", 42), ""
			}
		}
		for n, form := range eip55.Four(&texts) {
			if got := string(form[:]); want[n] != "" && got != want[n] {
				t.Fatalf("%q: got %s, want %s", texts[n], got, want[n])
			}
			_, _, alone := ParseAccountText("eip155:1:"+texts[n], nil)
			if strings.Contains(texts[n], ":") {
				_, _, alone = ParseAccountText(texts[n], nil)
			}
			_, text, err := ParseAddress(texts[n][strings.LastIndexByte(texts[n], ':')+1:], &form)
			if (err == nil) != (alone == nil) || err == nil && string(text[:]) != want[n] {
				t.Fatalf("%q: got %s, %v; want %s, and an error as of one alone, %v", texts[n], text[:], err, want[n], alone)
			}
		}
	}
}

// BenchmarkFour compares four addresses at once with one after the other.
func BenchmarkFour(b *testing.B) {
	var texts [4]string
	for n := range texts {
		texts[n] = "0x" + hex.EncodeToString([]byte{19: byte(n)})
	}
	b.Run("at once", func(b *testing.B) {
		var eip55 EIP55
		for b.Loop() {
			eip55.Four(&texts)
		}
	})
	b.Run("one by one", func(b *testing.B) {
		for b.Loop() {
			for _, s := range texts {
				checksummed(digitsOf(s[2:]))
			}
		}
	})
}
