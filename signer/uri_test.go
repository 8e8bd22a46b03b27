package signer_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/signer"
)

const shape = "keystore:///directory?password-file=/file"

func TestScheme(t *testing.T) {
	for uri, want := range map[string]string{
		"keystore:///keys": "keystore", "KeyStore:keys": "keystore", "clef+http://localhost:8550": "clef+http",
		"insecure-file:keys.csv": "insecure-file", "pkcs11:token=a?module-path=b": "pkcs11",
		"": "", ":": "", "/keys": "", "keys": "", "./a:b": "", "1a:b": "", "a b:c": "", "ключ:c": "",
	} {
		if got := signer.Scheme(uri); got != want {
			t.Errorf("Scheme(%q) = %q, want %q", uri, got, want)
		}
	}
}

func TestParseURI(t *testing.T) {
	params := func(file string) map[string]string { return map[string]string{"password-file": file} }
	for uri, want := range map[string]signer.URI{
		"keystore:///keys":                           {Path: "/keys", Params: map[string]string{}},
		"keystore:/keys":                             {Path: "/keys", Params: map[string]string{}},
		"keystore:keys/live":                         {Path: "keys/live", Params: map[string]string{}},
		"KEYSTORE:../keys?password-file=p":           {Path: "../keys", Params: params("p")},
		"keystore:///a%20b%3f?password-file=/c%26d+": {Path: "/a b?", Params: params("/c&d+")},
		"keystore:k?password-file=a=b?c":             {Path: "k", Params: params("a=b?c")},
	} {
		want.Scheme = "keystore"
		got, err := signer.ParseURI(uri, shape, "password-file")
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseURI(%q) = %+v, %v; want %+v", uri, got, err, want)
		}
	}
}

func TestParseURIErrors(t *testing.T) {
	for uri, problem := range map[string]string{
		"":                                              "has no scheme",
		"/s3cret":                                       "has no scheme",
		"keystore:":                                     "names no path",
		"keystore:?password-file=s3cret":                "names no path",
		"keystore://":                                   "names a host",
		"keystore://s3cret/keys":                        "names a host",
		"keystore:///s3cret%2":                          "malformed percent-escape in its path",
		"keystore:s3cret%00":                            "names no path",
		"keystore:k#s3cret":                             "%23",
		"keystore:k?":                                   "parameter 1 is not name=value",
		"keystore:k?s3cret":                             "parameter 1 is not name=value",
		"keystore:k?password-file=a&":                   "parameter 2 is not name=value",
		"keystore:k?password=s3cret":                    `unknown parameter "password"`,
		"keystore:k?s3cret0123456789012345678=x":        "unknown parameter (number 1)",
		"keystore:k?password-file=":                     `empty parameter "password-file"`,
		"keystore:k?password-file=s3cret%":              `malformed percent-escape in parameter "password-file"`,
		"keystore:k?password-file=a&password-file=b":    `parameter "password-file" twice`,
		"keystore:k?Password-File=s3cret":               `unknown parameter "Password-File"`,
		"s3cret0123456789abcdef012345678901234567890:#": "fragment",
	} {
		_, err := signer.ParseURI(uri, shape, "password-file")
		var u *signer.URIError
		if !errors.As(err, &u) {
			t.Errorf("ParseURI(%q): error %v, want a URIError", uri, err)
			continue
		}
		text := err.Error()
		if !strings.Contains(text, problem) || !strings.Contains(text, shape) {
			t.Errorf("ParseURI(%q): error %q, want %q and the shape", uri, text, problem)
		}
		if strings.Contains(text, "s3cret") {
			t.Errorf("ParseURI(%q): got error %q, want no value of the URI in it", uri, text)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("keystore:///keys?password-file=/p")
	f.Add("insecure-file:keys.csv")
	f.Add("keystore:a%20b?password-file=%2f&x")
	f.Fuzz(func(t *testing.T, uri string) {
		u, err := signer.ParseURI(uri, shape, "password-file")
		if err != nil {
			var typed *signer.URIError
			if !errors.As(err, &typed) {
				t.Fatalf("got error %v, want a *URIError", err)
			}
			return
		}
		if u.Scheme != signer.Scheme(uri) || u.Path == "" || strings.ContainsRune(u.Path, 0) || len(u.Params) > 1 {
			t.Fatalf("ParseURI(%q) = %+v; want its scheme, a path, and at most one parameter", uri, u)
		}
	})
}
