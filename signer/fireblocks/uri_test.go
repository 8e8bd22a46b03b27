package fireblocks

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

func TestURI(t *testing.T) {
	plain := settings{apiKey: "id-1", keyFile: "/k.pem", asset: "ETH", base: "https://api.fireblocks.io"}
	with := func(change func(*settings)) settings {
		s := plain
		change(&s)
		return s
	}
	for in, want := range map[string]settings{
		"fireblocks://vault?api-key=id-1&private-key-file=/k.pem":                  plain,
		"FIREBLOCKS://vault/?api-key=id-1&private-key-file=/k.pem":                 plain,
		"fireblocks://vault?api-key=id-1&private-key-file=/k.pem&asset=ETH_TEST5":  with(func(s *settings) { s.asset = "ETH_TEST5" }),
		"fireblocks://vault?api-key-file=/id&private-key-file=/k.pem":              with(func(s *settings) { s.apiKey, s.apiKeyFile = "", "/id" }),
		"fireblocks://vault?api-key=id-1&private-key-file=/k.pem&vault-map=/m.csv": with(func(s *settings) { s.mapFile = "/m.csv" }),
		"fireblocks://vault?api-key=id-1&private-key-file=/k.pem&base-url=https://sandbox-api.fireblocks.io/v1": with(
			func(s *settings) { s.base = "https://sandbox-api.fireblocks.io" }),
		"fireblocks://vault?api-key=id-1&private-key-file=/k.pem&base-url=http://127.0.0.1:8080": with(
			func(s *settings) { s.base = "http://127.0.0.1:8080" }),
	} {
		if got, err := parse(in); err != nil || got != want {
			t.Errorf("parse(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
	const good = "fireblocks://vault?api-key=id-1&private-key-file=/k.pem"
	for in, want := range map[string]string{
		"fireblocks:vault?api-key=a&private-key-file=/k":    "does not have the host vault",
		"fireblocks:///vault?api-key=a":                     "does not have the host vault",
		"fireblocks://bank?api-key=a&private-key-file=/k":   "host other than vault",
		"fireblocks://vault/7?api-key=a":                    "or a path",
		"fireblock://vault?api-key=a":                       "is not a fireblocks",
		"fireblocks://vault?private-key-file=/k":            "api-key",
		good + "&api-key-file=/id":                          "must have either api-key",
		"fireblocks://vault?api-key=id-1":                   "no private-key-file",
		"fireblocks://vault?api-key=a%0d%0ab":               "api-key with characters other",
		good + "&asset=../ETH":                              "asset with characters other",
		good + "&asset=..":                                  "asset with characters other",
		good + "&base-url=http://fireblocks.example.com":    "neither https nor on a loopback address",
		good + "&base-url=https://u:p@x.example":            "more than scheme",
		good + "&base-url=https://x.example/v2":             "path other than /v1",
		good + "&base-url=x":                                "not a URL",
		good + "&secret=x":                                  "unknown parameter",
		good + "&vault-map=":                                "empty parameter",
		good + "&private-key-file=/other":                   "twice",
		"fireblocks://vault?api-key=a&private-key-file=/k#": "fragment",
	} {
		_, err := parse(in)
		var bad *signer.URIError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), Shape) {
			t.Errorf("parse(%q): %v, want a URIError with %q", in, err, want)
		}
		if strings.Contains(fmt.Sprint(err), "u:p") {
			t.Errorf("got error %v, want one without the URI's password", err)
		}
	}
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestKeyFiles(t *testing.T) {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(rsaKey())
	if err != nil {
		t.Fatal(err)
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	elliptical, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := x509.MarshalPKCS8PrivateKey(elliptical)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ content, want string }{
		"PKCS8":         {pemOf("PRIVATE KEY", pkcs8), ""},
		"PKCS1":         {pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey())) + "\n", ""},
		"1024 bits":     {pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(short)), "1024 bits"},
		"another curve": {pemOf("PRIVATE KEY", curve), "no unencrypted RSA private key"},
		"damaged":       {pemOf("PRIVATE KEY", pkcs8[:100]), "no unencrypted RSA private key"},
		"encrypted":     {pemOf("ENCRYPTED PRIVATE KEY", pkcs8), "encrypted"},
		"a certificate": {pemOf("CERTIFICATE", pkcs8), "not a PEM private key"},
		"two":           {pemOf("PRIVATE KEY", pkcs8) + pemOf("PRIVATE KEY", pkcs8), "not one PEM block"},
		"empty":         {"", "not one PEM block"},
		"for Windows":   {"\xef\xbb\xbf" + pemOf("PRIVATE KEY", pkcs8), "byte order mark"},
		"too long":      {strings.Repeat("x", mostFile+1), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			path := writeFile(t, "key.pem", c.content)
			uri := "fireblocks://vault?api-key=a&private-key-file=" + path + "&vault-map=" +
				writeFile(t, "m.csv", "address,vaultAccountId\n0x0000000000000000000000000000000000000001,1\n")
			v, err := open(t.Context(), uri, signer.Environment{})
			if c.want == "" {
				if err != nil || !v.key.Equal(rsaKey()) {
					t.Errorf("got error %v, or another key than the file's; want none", err)
				}
				return
			}
			if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want ErrUnusable with %q", err, c.want)
			}
		})
	}
	for name, path := range map[string]string{"missing": filepath.Join(t.TempDir(), "none"), "a directory": t.TempDir()} {
		_, err := open(t.Context(), "fireblocks://vault?api-key=a&vault-map=/m&private-key-file="+path, signer.Environment{})
		if !errors.Is(err, signer.ErrUnusable) {
			t.Errorf("%s: got error %v, want ErrUnusable", name, err)
		}
	}
}

func TestAPIKeyFile(t *testing.T) {
	head := "fireblocks://vault?private-key-file=" + keyFile(t) + "&vault-map=" +
		writeFile(t, "m.csv", "address,vaultAccountId\n0x0000000000000000000000000000000000000001,1\n") + "&api-key-file="
	v, err := open(t.Context(), head+writeFile(t, "id", apiKey+"\r\n"), signer.Environment{})
	if err != nil || v.set.apiKey != apiKey {
		t.Errorf("got API key %q, error %v; want %q", v.set.apiKey, err, apiKey)
	}
	for name, content := range map[string]string{"empty": "", "two lines": "a\nb", "more": "key: a"} {
		path := writeFile(t, "id", content)
		if _, err := open(t.Context(), head+path, signer.Environment{}); !errors.Is(err, signer.ErrUnusable) {
			t.Errorf("%s: got error %v, want ErrUnusable", name, err)
		}
	}
}

func TestVaultMap(t *testing.T) {
	a, b := signertest.Address(signertest.Key(0)), signertest.Address(signertest.Key(1))
	text := "\uFEFFName,Vault_Account_ID,ADDRESS,assetId\r\n" +
		"\"Doe, J.\",7," + a.Hex() + ",\r\nRoe,12," + strings.ToLower(b.Hex()) + ",ETH_TEST5\r\n"
	refs, first, err := parseMap("m.csv", strings.NewReader(text), "ETH")
	if err != nil || len(refs) != 2 || first != (ref{a, "7", "ETH"}) || refs[b] != (ref{b, "12", "ETH_TEST5"}) {
		t.Errorf("got %+v, first %+v, error %v; want accounts 7 (ETH) and 12 (ETH_TEST5), the first being 7", refs, first, err)
	}
	wrong := strings.Replace(a.Hex(), "d", "D", 1)
	for name, c := range map[string]struct{ text, want string }{
		"empty":            {"", "m.csv:1: the file has no address"},
		"a header alone":   {"address,vaultAccountId\n", "no address"},
		"no header":        {a.Hex() + ",7\n", "m.csv:1: the header does not name"},
		"a column twice":   {"address,address,vaultAccountId\n", "twice"},
		"checksum":         {"address,vaultAccountId\n" + wrong + ",7\n", "m.csv:2: the address"},
		"no 0x":            {"address,vaultAccountId\n" + a.Hex()[2:] + ",7\n", "m.csv:2: the address"},
		"an address twice": {"address,vaultAccountId\n" + a.Hex() + ",7\n" + b.Hex() + ",8\n" + a.Hex() + ",9\n", "m.csv:4: the address is in line 2 already"},
		"no number":        {"address,vaultAccountId\n" + a.Hex() + ",../7\n", "m.csv:2: the vaultAccountId is not a number"},
		"an asset":         {"address,vaultAccountId,assetId\n" + a.Hex() + ",7,a/b\n", "m.csv:2: the assetId"},
		"columns":          {"address,vaultAccountId\n" + a.Hex() + "\n", "m.csv:2: wrong number of fields"},
		"quotes":           {"address,vaultAccountId\n\"" + a.Hex() + ",7\n", "m.csv:"},
	} {
		_, _, err := parseMap("m.csv", strings.NewReader(c.text), "ETH")
		var bad *LineError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a LineError with %q", name, err, c.want)
		}
	}
	_, err = open(t.Context(), "fireblocks://vault?api-key=a&vault-map="+filepath.Join(t.TempDir(), "none")+
		"&private-key-file="+keyFile(t), signer.Environment{})
	if !errors.Is(err, signer.ErrUnusable) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the file: got error %v, want ErrUnusable and ErrNotExist", err)
	}
}

func FuzzVaultMap(f *testing.F) {
	f.Add([]byte("address,vaultAccountId\n0x0000000000000000000000000000000000000001,1\n"))
	f.Add([]byte("\uFEFFvaultAccountId,address,assetId\r\n1,0x0000000000000000000000000000000000000001,ETH\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		refs, first, err := parseMap("m", bytes.NewReader(text), "ETH")
		if err != nil {
			return
		}
		if refs[first.address] != first {
			t.Errorf("got first line %+v, want it among the addresses, %+v", first, refs)
		}
		for address, r := range refs {
			if r.address != address || !plainAccount(r.account) || !plainAsset(r.asset) {
				t.Errorf("%v: got %+v, want the same address and a plain account and asset", address, r)
			}
		}
	})
}
