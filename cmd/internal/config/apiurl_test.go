package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAPIURLHasOneForm(t *testing.T) {
	secret := func(name string) string {
		if name == "OFFBLOCKS_API_SECRET" {
			return "secret"
		}
		return ""
	}
	for _, test := range []struct{ url, domain, want, host, wantDomain string }{
		{"https://api.example/v1", "", "https://api.example/v1", "api.example", "api.example"},
		{"HTTPS://API.Example/v1", "", "https://api.example/v1", "api.example", "api.example"},
		{"https://api.example:443/v1", "", "https://api.example/v1", "api.example", "api.example"},
		{"https://api.example:0443/v1", "", "https://api.example/v1", "api.example", "api.example"},
		{"https://api.example:/v1", "", "https://api.example/v1", "api.example", "api.example"},
		{"https://api.example./v1", "", "https://api.example/v1", "api.example", "api.example"},
		{"https://api.example.:443/v1//", "", "https://api.example/v1", "api.example", "api.example"},
		{"https://api.example:80/v1", "", "https://api.example:80/v1", "api.example:80", "api.example:80"},
		{"https://api.example:8443", "", "https://api.example:8443", "api.example:8443", "api.example:8443"},
		{"https://api.example/", "", "https://api.example", "api.example", "api.example"},
		{"https://api.example/a%2Fb/", "", "https://api.example/a%2Fb", "api.example", "api.example"},
		{"https://xn--bcher-kva.example/v1", "", "https://xn--bcher-kva.example/v1", "xn--bcher-kva.example",
			"xn--bcher-kva.example"},
		{"https://[2001:DB8:0:0::1]:443/v1", "", "https://[2001:db8::1]/v1", "[2001:db8::1]", "[2001:db8::1]"},
		{"https://[2001:db8::1]:8443/v1", "", "https://[2001:db8::1]:8443/v1", "[2001:db8::1]:8443", "[2001:db8::1]:8443"},
		{"http://LOCALHOST:80/v1", "", "http://localhost/v1", "localhost", "localhost"},
		{"http://Localhost:8420/v1", "", "http://localhost:8420/v1", "localhost:8420", "localhost:8420"},
		{"http://[0:0:0:0:0:0:0:1]:80/v1", "", "http://[::1]/v1", "[::1]", "[::1]"},
		{"http://127.0.0.1:443/v1", "", "http://127.0.0.1:443/v1", "127.0.0.1:443", "127.0.0.1:443"},
		{"https://api.example/v1", "Login.EXAMPLE:443", "https://api.example/v1", "api.example", "login.example"},
		{"http://localhost:1/v1", "login.example:443", "http://localhost:1/v1", "localhost:1", "login.example:443"},
		{"http://localhost:1/v1", "login.example:80", "http://localhost:1/v1", "localhost:1", "login.example"},
	} {
		c := Consumer{Partner: Partner{APIURL: test.url, APIKey: "k", SigningKey: "f", SigningKeyID: "i"},
			ChallengeDomain: test.domain}
		base, err := c.CheckPartner(secret)
		if err != nil {
			t.Errorf("%s: got %v, want %s", test.url, err, test.want)
			continue
		}
		got := []string{base.String(), c.APIURL, base.Host, c.ChallengeDomain}
		want := []string{test.want, test.want, test.host, test.wantDomain}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s %s: got %q, want %q", test.url, test.domain, got, want)
				break
			}
		}
	}
}

func TestAPIURLRefused(t *testing.T) {
	for url, want := range map[string]string{
		"http://api.example/v1":          "only over https",
		"http://LOCALHOST.example/v1":    "only over https",
		"https://bücher.example/v1":      "xn--",
		"https://b%C3%BCcher.example/v1": "xn--",
		"https://api.example:65536/v1":   "port must be between",
		"https://api.example:0/v1":       "port must be between",
		"https://api..example/v1":        "not a domain name",
		"https://./v1":                   "not a domain name",
		"https://a b.example/v1":         "not a URL",
		"https://a!b.example/v1":         "letters, digits",
		"https://[fe80::1%25eth0]/v1":    "want a host, or host:port",
		"https://api.example/v1?a=b":     "want https://host/path",
		"https://api.example/v1?":        "want https://host/path",
		"https://api.example/v1/../v2":   `"." or ".." segment`,
		"https://api.example/a//b":       "empty",
		"https:api.example":              "want https://host/path",
		"ftp://api.example":              "want https://host/path",
	} {
		_, err := parseAPIURL(url)
		var setting *Error
		if !errors.As(err, &setting) || setting.Setting != "--api-url" || !strings.Contains(setting.Problem, want) {
			t.Errorf("%s: got %v, want an Error of --api-url with %q", url, err, want)
		}
	}
	c := Consumer{Partner: Partner{APIURL: "https://api.example", APIKey: "k", SigningKey: "f", SigningKeyID: "i"},
		ChallengeDomain: "https://api.example"}
	_, err := c.CheckPartner(func(name string) string {
		return map[string]string{"OFFBLOCKS_API_SECRET": "s"}[name]
	})
	var setting *Error
	if !errors.As(err, &setting) || setting.Setting != "--challenge-domain" || setting.Value != "https://api.example" {
		t.Errorf("got %v, want an Error of --challenge-domain that shows the value", err)
	}
}

// TestProxyURL: a proxy's URL that net/http ignores, so that the run connects past the proxy, is an error without the
// password. One that is not used is none.
func TestProxyURL(t *testing.T) {
	const api, wrong = "https://api.example", "http://user:pass%word@proxy.example:3128"
	for _, test := range []struct {
		api, variable, proxy, none string
		good                       bool
	}{
		{api, "HTTPS_PROXY", "http://user:pass%25word@proxy.example:3128", "", true},
		{api, "HTTPS_PROXY", "user:password@proxy.example:3128", "", true},
		{api, "HTTPS_PROXY", "socks5://proxy.example:1080", "", true},
		{api, "HTTPS_PROXY", "http://[::1]:3128/", "", true},
		{api, "HTTPS_PROXY", "http://user:p@ssword@proxy.example:3128", "", true},
		{api, "HTTPS_PROXY", wrong, "", false},
		{api, "https_proxy", wrong, "", false},
		{api, "HTTPS_PROXY", "user:pass%word@proxy.example:3128", "", false},
		{api, "HTTPS_PROXY", "http://user:pass#word@proxy.example:3128", "", false},
		{api, "HTTPS_PROXY", "http://user:1#word@proxy.example:3128", "", false},
		{api, "HTTPS_PROXY", "http://user:1/word@proxy.example:3128", "", false},
		{api, "HTTPS_PROXY", "http://user:1?word@proxy.example:3128", "", false},
		{api, "HTTPS_PROXY", "http://:3128", "", false},
		{api, "HTTPS_PROXY", wrong, "internal.example,.api.example,api.example", true},
		{"http://localhost:8420", "HTTPS_PROXY", wrong, "", true},
		{"https://127.0.0.1:8420", "HTTPS_PROXY", wrong, "", true},
	} {
		c := Consumer{Partner: Partner{APIURL: test.api, APIKey: "k", SigningKey: "f", SigningKeyID: "i"}}
		_, err := c.CheckPartner(func(name string) string {
			return map[string]string{
				"OFFBLOCKS_API_SECRET": "s", test.variable: test.proxy, "no_proxy": test.none,
			}[name]
		})
		var setting *Error
		switch {
		case test.good:
			if err != nil {
				t.Errorf("%s %s, except for %q: got %v, want none", test.api, test.proxy, test.none, err)
			}
		case !errors.As(err, &setting), setting.Setting != "HTTPS_PROXY", strings.Contains(err.Error(), "word@"):
			t.Errorf("%s %s: got %v, want an Error of HTTPS_PROXY without the password", test.api, test.proxy, err)
		}
	}
}

func TestAuthorities(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	good := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	bad := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der[:len(der)/2]}))
	dir := t.TempDir()
	for name, test := range map[string]struct{ url, content, want string }{
		"good":      {"https://api.example", "# the bank's own\n" + good + good, ""},
		"no PEM":    {"https://api.example", "certificate", "contains no PEM certificate"},
		"empty":     {"https://api.example", "", "contains no PEM certificate"},
		"spoiled":   {"https://api.example", good + bad, "certificate 2 cannot be read"},
		"over http": {"http://localhost", good, "has no effect"},
	} {
		file := filepath.Join(dir, name+".pem")
		if err := os.WriteFile(file, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		pool, err := Partner{APIURL: test.url, APICA: file}.Authorities()
		var setting *Error
		switch {
		case test.want == "":
			if err != nil || pool == nil {
				t.Errorf("%s: got %v, %v; want a pool", name, pool, err)
			}
		case !errors.As(err, &setting), setting.Setting != "--api-ca", !strings.Contains(setting.Problem, test.want):
			t.Errorf("%s: got %v, want an Error of --api-ca with %q", name, err, test.want)
		}
	}
	_, err = Partner{APIURL: "https://api.example", APICA: filepath.Join(dir, "missing")}.Authorities()
	if err == nil || !strings.Contains(err.Error(), "--api-ca") || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("missing file: got %v, want an error of --api-ca about the file", err)
	}
	if pool, err := (Partner{}).Authorities(); pool != nil || err != nil {
		t.Errorf("without --api-ca: got %v, %v; want nil", pool, err)
	}
}
