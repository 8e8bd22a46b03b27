package fireblocks

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/purser-onboard/purser/loopback"
	"github.com/purser-onboard/purser/secretfile"
	"github.com/purser-onboard/purser/signer"
)

const (
	scheme       = "fireblocks"
	defaultBase  = "https://api.fireblocks.io"
	defaultAsset = "ETH" // all EVM networks share its address; a testnet workspace has ETH_TEST5 or the like
	mostFile     = 64 << 10
	leastBits    = 2048
)

// settings is a parsed URI.
type settings struct {
	apiKey     string
	apiKeyFile string // instead of apiKey
	keyFile    string
	mapFile    string // empty: addresses are read from Fireblocks
	asset      string
	base       string // without /v1
}

func parse(uri string) (settings, error) {
	fail := func(problem string) (settings, error) {
		return settings{}, &signer.URIError{Scheme: signer.Scheme(uri), Problem: problem, Shape: Shape}
	}
	if signer.Scheme(uri) != scheme {
		return fail("is not a " + scheme)
	}
	rest, ok := strings.CutPrefix(uri[len(scheme)+1:], "//")
	if !ok || rest == "" || rest[0] == '/' {
		return fail("does not have the host vault")
	}
	u, err := signer.ParseURI(scheme+":"+rest, Shape,
		"api-key", "api-key-file", "private-key-file", "vault-map", "asset", "base-url")
	if err != nil {
		return settings{}, err
	}
	s := settings{
		apiKey: u.Params["api-key"], apiKeyFile: u.Params["api-key-file"], keyFile: u.Params["private-key-file"],
		mapFile: u.Params["vault-map"], asset: u.Params["asset"], base: u.Params["base-url"],
	}
	switch {
	case u.Path != "vault" && u.Path != "vault/":
		return fail("has a host other than vault, or a path")
	case (s.apiKey == "") == (s.apiKeyFile == ""):
		return fail("must have either api-key or api-key-file")
	case s.apiKey != "" && !plainKey(s.apiKey):
		return fail("has an api-key with characters other than letters, digits and -")
	case s.keyFile == "":
		return fail("has no private-key-file")
	}
	if s.asset == "" {
		s.asset = defaultAsset
	}
	if !plainAsset(s.asset) {
		return fail("has an asset with characters other than letters, digits, _, - and .")
	}
	if s.base == "" {
		s.base = defaultBase
		return s, nil
	}
	base, err := url.Parse(s.base)
	switch {
	case err != nil || base.Hostname() == "":
		return fail("has a base-url that is not a URL")
	case base.User != nil, base.RawQuery != "", base.Fragment != "":
		return fail("has a base-url with more than scheme, host and port")
	case base.Path != "" && base.Path != "/" && base.Path != "/v1" && base.Path != "/v1/": // the vendor writes it with /v1
		return fail("has a base-url with a path other than /v1")
	case base.Scheme != "https" && (base.Scheme != "http" || !loopback.Is(base.Hostname())):
		return fail("has a base-url that is neither https nor on a loopback address")
	}
	s.base = base.Scheme + "://" + base.Host
	return s, nil
}

// plainKey reports whether s is an API key, which becomes a header's value.
func plainKey(s string) bool { return only(s, "-") && len(s) <= 128 }

// plainAsset reports whether s is an asset id, which becomes a part of a path.
func plainAsset(s string) bool { return only(s, "_-.") && len(s) <= 64 && strings.Trim(s, ".") != "" }

// only reports whether s is not empty and consists of ASCII letters, digits and the characters of more.
func only(s, more string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"+more) == ""
}

// readKey reads our RSA key, as PKCS#8 ("PRIVATE KEY") or PKCS#1 ("RSA PRIVATE KEY"). No error quotes the file or the
// parser.
func readKey(path string, insecure bool) (key *rsa.PrivateKey, exposed bool, err error) {
	text, exposed, err := secretfile.Read(path, mostFile, insecure)
	if err != nil {
		return nil, false, err
	}
	defer clear(text)
	block, rest := pem.Decode(text)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, false, errors.New("is not one PEM block")
	}
	defer clear(block.Bytes)
	var parsed any
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, false, errors.New("is encrypted; Purser takes no password for it")
	default:
		return nil, false, errors.New("is not a PEM private key")
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok || len(block.Headers) > 0 {
		return nil, false, errors.New("contains no unencrypted RSA private key")
	}
	if key.N.BitLen() < leastBits {
		return nil, false, fmt.Errorf("holds a key of %d bits, want at least %d", key.N.BitLen(), leastBits)
	}
	return key, exposed, nil
}

func readAPIKey(path string) (string, error) {
	text, _, err := secretfile.Read(path, mostFile, true) // an id and no secret
	if err != nil {
		return "", err
	}
	key := string(bytes.TrimSpace(text))
	if !plainKey(key) {
		return "", errors.New("does not hold one API key (letters, digits and -)")
	}
	return key, nil
}
