package sandbox

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

func TestSignIsStrict(t *testing.T) {
	p := open(t, nil)
	w := newWallet(1)
	id, challenge := p.create(w)
	good := w.submission(t, challenge)
	for name, c := range map[string]struct {
		id, body string
		status   int
	}{
		"unknown customer": {testKey(9), good, 404},
		"other owner":      {id, newWallet(2).submission(t, challenge), 400},
		"unknown field":    {id, strings.Replace(good, "{", `{"x":"y",`, 1), 400},
		"no signature":     {id, `{"ownerId":"` + w.account() + `"}`, 400},
	} {
		if a := p.do("POST", "/v1/customers/"+c.id+"/challenge/sign", c.body); a.status != c.status {
			t.Errorf("%s: got %+v, want %d", name, a, c.status)
		}
	}
	if a := p.do("POST", "/v1/customers/"+id+"/challenge/sign", good); a.status != 204 {
		t.Errorf("the challenge, which none of them may end: got %+v, want status 204", a)
	}
}

func TestSignatureForms(t *testing.T) {
	w := newWallet(1)
	forms := map[string]func(sig []byte) []byte{
		"hex":        func(sig []byte) []byte { return []byte("0x" + hex.EncodeToString(sig)) },
		"raw":        func(sig []byte) []byte { return sig },
		"no 0x":      func(sig []byte) []byte { return []byte(hex.EncodeToString(sig)) },
		"v 0 or 1":   func(sig []byte) []byte { sig[64] -= 27; return []byte("0x" + hex.EncodeToString(sig)) },
		"high s":     func(sig []byte) []byte { highS(sig); return []byte("0x" + hex.EncodeToString(sig)) },
		"64 bytes":   func(sig []byte) []byte { return []byte("0x" + hex.EncodeToString(sig[:64])) },
		"not base64": nil,
	}
	for encoding, accepted := range map[SignatureEncoding][]string{
		EncodingHex: {"hex"}, EncodingRaw: {"raw"}, EncodingAny: {"hex", "raw"},
	} {
		p := open(t, func(c *Config) { c.Encoding = encoding })
		for name, form := range forms {
			p.s.Reset()
			p.login()
			id, challenge := p.create(w)
			text, _ := base64.StdEncoding.DecodeString(challenge)
			body := `{"ownerId":"` + w.account() + `","signature":"0x!"}`
			if form != nil {
				body = w.submit(form(w.sign(t, string(text))))
			}
			want := 400
			for _, good := range accepted {
				if good == name {
					want = 204
				}
			}
			path := "/v1/customers/" + id + "/challenge"
			if a := p.do("POST", path+"/sign", body); a.status != want {
				t.Errorf("%s with encoding %s: got %+v, want %d", name, encoding, a, want)
			}
			if want == 400 && p.do("GET", path, "").field(t, "challenge") != challenge {
				t.Errorf("%s: got a new challenge, want the same", name)
			}
		}
	}
}

// highS changes a signature to the other one that ECDSA accepts: s becomes n-s, v the other parity.
func highS(sig []byte) {
	s := common.BytesToHash(sig[32:64]).Big()
	s.Sub(crypto.S256().Params().N, s)
	s.FillBytes(sig[32:64])
	sig[64] = 27 + 28 - sig[64]
}
