package broker_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/broker"
)

func TestLoginErrors(t *testing.T) {
	dir := t.TempDir()
	bearer := func(file string) broker.Login { return broker.Login{Mechanism: broker.OAuthBearer, TokenFile: file} }
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		name  string
		login broker.Login
		part  string
	}{
		{"unknown", broker.Login{Mechanism: "GSSAPI"}, "SCRAM-SHA-512"},
		{"NUL", broker.Login{Mechanism: broker.Plain, Username: "u", Password: "hid\x00den"}, "NUL"},
		{"SASLprep", broker.Login{Mechanism: broker.ScramSHA256, Username: "u", Password: "hid\u0007den"}, "RFC 4013"},
		{"no file", bearer(filepath.Join(dir, "none")), "no such file"},
		{"empty", bearer(file("empty", "\n")), "is empty"},
		{"two lines", bearer(file("two", "hidden\nhidden\n")), "more than one line"},
		{"byte order mark", bearer(file("mark", "\xef\xbb\xbfhidden")), "byte order mark"},
		{"others may read it", bearer(readable(t, file("readable", "hidden"))), "chmod 600"},
		{"separator", bearer(file("sep", "hidden\x01host=evil")), "one bearer token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.login.SASL()
			if err == nil || !strings.Contains(err.Error(), tt.part) || strings.Contains(err.Error(), "hid") {
				t.Errorf("got %v, want an error with %q and no secret", err, tt.part)
			}
			var token *broker.TokenError
			if tt.login.TokenFile != "" && (!errors.As(err, &token) || token.File != tt.login.TokenFile) {
				t.Errorf("got %v, want a TokenError of file %s", err, tt.login.TokenFile)
			}
		})
	}
}

// TestBearer is the exchange of RFC 7628, with the token of its example (section 4.1, by the field names of Kafka).
func TestBearer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
	write(token)
	m, err := broker.Login{Mechanism: broker.OAuthBearer, TokenFile: file}.SASL()
	if err != nil || m.Name() != "OAUTHBEARER" {
		t.Fatalf("SASL: got %v, %v; want OAUTHBEARER", m, err)
	}
	accepted, first, err := m.Start(t.Context())
	if err != nil || string(first) != "n,,\x01auth=Bearer "+token+"\x01\x01" {
		t.Fatalf("Start: got %q, %v; want the token as in RFC 7628", first, err)
	}
	if done, response, err := accepted.Next(t.Context(), nil); !done || len(response) != 0 || err != nil {
		t.Errorf("Next after success: got %v, %q, %v; want true and no response", done, response, err)
	}
	write("renewed")
	failed, first, err := m.Start(t.Context())
	if err != nil || !strings.Contains(string(first), "Bearer renewed\x01") {
		t.Errorf("Start: got %q, %v; want the renewed token", first, err)
	}
	const reason = `{"status":"invalid_token"}`
	if done, response, err := failed.Next(t.Context(), []byte(reason)); done || string(response) != "\x01" || err != nil {
		t.Errorf("Next after a failure: got %v, %q, %v; want false and \\x01", done, response, err)
	}
	done, _, err := failed.Next(t.Context(), nil)
	if done || err == nil || !strings.Contains(err.Error(), "invalid_token") {
		t.Errorf("Next at the end: got %v, %v; want an error with invalid_token", done, err)
	}
	write("")
	if _, _, err := m.Start(t.Context()); !errors.As(err, new(*broker.TokenError)) {
		t.Errorf("Start with an empty file: got %v, want a TokenError", err)
	}
}

// readable makes a file readable for all users.
func readable(t *testing.T, path string) string {
	t.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
