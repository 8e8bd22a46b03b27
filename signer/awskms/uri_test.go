package awskms

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/signer"
)

func TestOpenWithoutCredentials(t *testing.T) {
	environment(t, "", "", "")
	_, err := Open(t.Context(), uri("http://127.0.0.1:1"), signer.Environment{})
	if !errors.Is(err, signer.ErrUnusable) {
		t.Errorf("error %v, want ErrUnusable", err)
	}
}

// The region may come from where the SDK finds it, and must come from somewhere.
func TestRegion(t *testing.T) {
	environment(t, accessKey, secretKey, "")
	var bad *signer.URIError
	if _, err := Open(t.Context(), "awskms:///", signer.Environment{}); !errors.As(err, &bad) {
		t.Errorf("error %v, want a URIError", err)
	}
	t.Setenv("AWS_REGION", "ap-southeast-2")
	backend, err := Open(t.Context(), "awskms:///", signer.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := backend.(*KMS); !ok || k.region != "ap-southeast-2" {
		t.Errorf("got backend %+v, want one in ap-southeast-2", backend)
	}
}

func TestURI(t *testing.T) {
	for in, want := range map[string]settings{
		"awskms:///":                                       {prefix: "alias/purser/"},
		"awskms:///?region=eu-west-1":                      {region: "eu-west-1", prefix: "alias/purser/"},
		"awskms:///?alias-prefix=alias/Bank_7/":            {prefix: "alias/Bank_7/"},
		"awskms:///?endpoint=http://127.0.0.1:4566":        {prefix: "alias/purser/", endpoint: "http://127.0.0.1:4566", loopback: true},
		"awskms:///?endpoint=http://[::1]:4566/":           {prefix: "alias/purser/", endpoint: "http://[::1]:4566/", loopback: true},
		"AWSKMS:///?endpoint=https%3A%2F%2Fvpce-1.aws.com": {prefix: "alias/purser/", endpoint: "https://vpce-1.aws.com"},
	} {
		if got, err := parse(in); err != nil || got != want {
			t.Errorf("parse(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"awskms:":                                     "names no path",
		"awskms://host/":                              "names a host",
		"awskms:///keys":                              "has a path",
		"kms:///":                                     "is not an awskms",
		"awskms:///?secret=x":                         "unknown parameter",
		"awskms:///?region=a.b":                       "region",
		"awskms:///?region=a&region=b":                "twice",
		"awskms:///?alias-prefix=purser/":             "alias-prefix",
		"awskms:///?alias-prefix=alias/aws/x":         "alias-prefix",
		"awskms:///?alias-prefix=alias/p:":            "alias-prefix",
		"awskms:///?endpoint=http://kms.example.com":  "neither https nor on a loopback address",
		"awskms:///?endpoint=ftp://127.0.0.1":         "neither https",
		"awskms:///?endpoint=https://u:p@example.com": "more than scheme",
		"awskms:///?endpoint=https://example.com/x":   "more than scheme",
		"awskms:///?endpoint=nonsense":                "not a URL",
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
