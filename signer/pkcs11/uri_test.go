package pkcs11

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	pkcs11uri "github.com/stefanberger/go-pkcs11uri"

	"github.com/purser-onboard/purser/signer"
)

func TestParseURI(t *testing.T) {
	slot := uint(12)
	const m = "/usr/lib/softhsm/libsofthsm2.so"
	for uri, want := range map[string]location{
		"pkcs11:?module-path=" + m: {module: m, sessions: 4},
		"pkcs11:token=purser;object=customers?module-path=" + m + "&pin-source=file:/etc/pin": {
			token: "purser", object: "customers", module: m, pin: pinSource{file: "/etc/pin"}, sessions: 4},
		"PKCS11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;serial=;model=1.0": {}, // see below
		"pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0" +
			"?module-path=" + m: {token: "The Software PKCS#11 Softtoken", manufacturer: "Snake Oil, Inc.", model: "1.0",
			module: m, sessions: 4},
		"pkcs11:slot-id=12;id=%69%95%3e%5c;type=private;serial=00ff?sessions=16&pin-source=env:HSM_PIN&module-path=/a/../b%3b.so": {
			slot: &slot, id: "\x69\x95\x3e\x5c", serial: "00ff", module: "/b;.so", pin: pinSource{variable: "HSM_PIN"}, sessions: 16},
		"pkcs11:token=a=b?module-path=" + m + "&pin-source=file:///run/secrets/p%2525in": {
			token: "a=b", module: m, pin: pinSource{file: "/run/secrets/p%in"}, sessions: 4},
	} {
		got, err := parseURI(uri)
		if want.module == "" {
			if err == nil {
				t.Errorf("parseURI(%q) = %+v, want an error", uri, got)
			}
			continue
		}
		if err != nil {
			t.Errorf("parseURI(%q): got error %v, want none", uri, err)
			continue
		}
		if (got.slot == nil) != (want.slot == nil) || got.slot != nil && *got.slot != *want.slot {
			t.Errorf("parseURI(%q): slot %v", uri, got.slot)
		}
		got.slot, want.slot = nil, nil
		if got != want {
			t.Errorf("parseURI(%q) =\n%+v, want\n%+v", uri, got, want)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	const m = "module-path=/m.so"
	for uri, problem := range map[string]string{
		"":                                                        "not have the scheme",
		"keystore:///s3cret":                                      "not have the scheme",
		"pkcs11":                                                  "not have the scheme",
		"pkcs11:":                                                 "has no module-path",
		"pkcs11:token=a":                                          "has no module-path",
		"pkcs11://s3cret/?" + m:                                   "names a host",
		"pkcs11:token=a?":                                         "not name=value (number 1 of its part)",
		"pkcs11:token=a;?" + m:                                    "not name=value (number 2 of its part)",
		"pkcs11:s3cret?" + m:                                      "not name=value (number 1 of its part)",
		"pkcs11:token=a?" + m + "&s3cret":                         "not name=value (number 2 of its part)",
		"pkcs11:token=a?" + m + "&":                               "not name=value (number 2 of its part)",
		"pkcs11:token=?" + m:                                      `empty attribute "token"`,
		"pkcs11:token=%00?" + m:                                   `empty attribute "token"`,
		"pkcs11:token=s3cret%2?" + m:                              `malformed percent-escape in attribute "token"`,
		"pkcs11:token=s3cret%zz?" + m:                             `malformed percent-escape in attribute "token"`,
		"pkcs11:token=my s3cret?" + m:                             `a space is written %20`,
		"pkcs11:token=s3crét?" + m:                                `unescaped character in attribute "token"`,
		"pkcs11:token=a?" + m + "#s3cret":                         `unescaped character in attribute "module-path"`,
		"pkcs11:token=a;token=s3cret?" + m:                        `attribute "token" twice`,
		"pkcs11:tokens=s3cret?" + m:                               `unknown attribute "tokens"`,
		"pkcs11:Token=s3cret?" + m:                                `unknown attribute number 1 of its part`,
		"pkcs11:s3cret=a?" + m:                                    `unknown attribute number 1 of its part`,
		"pkcs11:library-version=3?" + m:                           `unknown attribute "library-version"`,
		"pkcs11:module-path=/m.so":                                `unknown attribute "module-path"`,
		"pkcs11:?token=a&" + m:                                    `unknown attribute "token"`,
		"pkcs11:type=public?" + m:                                 `type other than private`,
		"pkcs11:slot-id=s3cret?" + m:                              `slot-id that is not a number`,
		"pkcs11:slot-id=-1?" + m:                                  `slot-id that is not a number`,
		"pkcs11:?module-name=softhsm2":                            `unknown attribute "module-name"`,
		"pkcs11:?module-path=libs3cret.so":                        `module-path that is not absolute`,
		"pkcs11:?" + m + "&sessions=0":                            `from 1 to 64`,
		"pkcs11:?" + m + "&sessions=65":                           `from 1 to 64`,
		"pkcs11:?" + m + "&sessions=s3cret":                       `from 1 to 64`,
		"pkcs11:?" + m + "&pin-value=s3cret":                      `has a pin-value`,
		"pkcs11:pin-value=s3cret?" + m:                            `has a pin-value`,
		"pkcs11:?" + m + "&PIN-Value=s3cret":                      `has a pin-value`,
		"pkcs11:?" + m + "&pin-value=s3 cret%":                    `has a pin-value`,
		"pkcs11:?" + m + "&pin-source=file:/p&pin-value=s3cret":   `has a pin-value`,
		"pkcs11:?" + m + "&pin-source=s3cret":                     `pin-source that is neither`,
		"pkcs11:?" + m + "&pin-source=file:s3cret":                `pin-source that is neither`,
		"pkcs11:?" + m + "&pin-source=file://s3cret/pin":          `pin-source that is neither`,
		"pkcs11:?" + m + "&pin-source=|/bin/s3cret":               `pin-source that is neither`,
		"pkcs11:?" + m + "&pin-source=env:":                       `pin-source that is neither`,
		"pkcs11:?" + m + "&pin-source=env:s3cret%20":              `pin-source that is neither`,
		"pkcs11:?" + m + "&pin-source=file:/s3cret%2500":          `pin-source that is neither`,
		"pkcs11:?" + m + "&pin-source=file:/s3cret%25":            `malformed percent-escape`,
		"pkcs11:?" + m + "&pin-source=https://example.com/s3cret": `pin-source that is neither`,
	} {
		_, err := parseURI(uri)
		var u *signer.URIError
		if !errors.As(err, &u) {
			t.Errorf("parseURI(%q): error %v, want a URIError", uri, err)
			continue
		}
		if text := err.Error(); !strings.Contains(text, problem) || !strings.Contains(text, Shape) {
			t.Errorf("parseURI(%q): error %q, want %q and the shape", uri, text, problem)
		} else if strings.Contains(text, "s3c") {
			t.Errorf("parseURI(%q): got error %q, want no value of the URI in it", uri, text)
		}
	}
}

// What we accept, an RFC 7512 parser we did not write reads the same way.
func FuzzParseURI(f *testing.F) {
	f.Add("pkcs11:token=purser;object=customers?module-path=/m.so&pin-source=file:/pin")
	f.Add("pkcs11:slot-id=12;id=%69%95;type=private;serial=00?module-path=/m%20.so&sessions=9&pin-source=env:PIN")
	f.Add("pkcs11:model=a;manufacturer=b%3bc?pin-value=1234")
	f.Fuzz(func(t *testing.T, uri string) {
		where, err := parseURI(uri)
		if err != nil {
			var typed *signer.URIError
			if !errors.As(err, &typed) {
				t.Fatalf("got error %v, want a *URIError", err)
			}
			return
		}
		if !filepath.IsAbs(where.module) || where.sessions < 1 || where.pin.file != "" && where.pin.variable != "" {
			t.Fatalf("parseURI(%q) = %+v; want an absolute module, sessions, and one source of the PIN", uri, where)
		}
		theirs := pkcs11uri.New()
		if err := theirs.Parse("pkcs11:" + uri[len("pkcs11:"):]); err != nil {
			t.Fatalf("parseURI(%q) is content, the other parser says: got error %v, want none", uri, err)
		}
		for name, ours := range map[string]string{
			"token": where.token, "manufacturer": where.manufacturer, "model": where.model, "serial": where.serial,
			"object": where.object, "id": where.id,
		} {
			if value, _ := theirs.GetPathAttribute(name, false); value != ours {
				t.Errorf("%q: got %s %q, want the other parser's %q", uri, name, ours, value)
			}
		}
		if value, _ := theirs.GetQueryAttribute("module-path", false); filepath.Clean(value) != where.module {
			t.Errorf("%q: got module-path %q, want the other parser's %q", uri, where.module, value)
		}
		if _, ok := theirs.GetQueryAttribute("pin-value", false); ok {
			t.Errorf("%q: got no error, want one for its pin-value", uri)
		}
	})
}
