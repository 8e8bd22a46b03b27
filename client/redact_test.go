package client

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// TestEchoedSecretsAreNotShown: whatever part of a secret the partner repeats, wherever and in whatever encoding, no 16
// consecutive characters of it are in an error or a customer.
func TestEchoedSecretsAreNotShown(t *testing.T) {
	const secret = `k9/Qx+7vB"2m%T4z<Lw8&Rp1?Yd6=Hs3~Nf5>Jc0_Ga-Eu.Ki;Ov:Zb\Xt!Me@Wq`
	const token = "Tok3n/Tok3n/Tok3n/aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789-._~+"
	for name, text := range map[string]string{"secret": secret, "token": token} {
		std, urlSafe := base64.StdEncoding, base64.URLEncoding
		for way, echo := range map[string]string{
			"whole":          text,
			"beginning":      text[:40],
			"middle":         text[10:26],
			"end":            text[len(text)-16:],
			"query":          url.QueryEscape(text),
			"path":           url.PathEscape(text),
			"JSON":           jsonText(t, text),
			"base64":         std.EncodeToString([]byte(text)),
			"base64, part":   std.EncodeToString([]byte(text[20:50])),
			"base64, URL":    base64.RawURLEncoding.EncodeToString([]byte(text)),
			"login":          std.EncodeToString([]byte(testKey + ":" + text)),
			"login, shifted": urlSafe.EncodeToString([]byte("id:" + text + ":x")),
			"login, by one":  std.EncodeToString([]byte("id=1:" + text + ":xy")),
		} {
			for where, answer := range map[string]*canned{
				"request id":       response(400, "", "X-Request-Id", echo),
				"location":         response(302, "", "Location", "https://x.example/"+url.PathEscape(echo)),
				"text":             response(400, "got "+echo),
				"code and message": response(400, `{"code":`+jsonText(t, echo)+`,"message":`+jsonText(t, "got "+echo)+`}`),
				"nested":           response(400, `{"x":{"y":`+jsonText(t, echo)+`}}`),
				"escaped":          response(400, `{"x":"`+escapedText(echo)+`"}`),
				"member":           response(200, `{`+jsonText(t, echo)+`:1}`),
				"status":           response(200, `{"id":"`+testID+`","status":`+jsonText(t, echo)+`}`),
				"list":             response(200, `[{"id":"`+testID+`","status":`+jsonText(t, echo)+`}]`),
				"end of a list":    response(200, `{"data":[],`+jsonText(t, echo)+`:{"next":1}}`),
			} {
				config := testConfig("https://api.example/v1")
				config.APISecret = secret
				config.Transport = roundTripper(func(r *http.Request) *canned {
					if strings.HasSuffix(r.URL.Path, "/auth/token") {
						return response(200, `{"token":"`+token+`"}`)
					}
					return answer
				})
				c := newClient(t, config)
				var shown strings.Builder
				show := func(customer Customer, err error) {
					shown.WriteString(string(customer.Status))
					if e := (*Error)(nil); errors.As(err, &e) {
						shown.WriteString(e.Code + "\n" + e.Message + "\n" + e.RequestID + "\n")
					}
					if err != nil {
						shown.WriteString(err.Error())
					}
				}
				if strings.Contains(where, "list") {
					show(Customer{}, customersOf(t.Context(), c, func(customer Customer) error {
						show(customer, nil)
						return nil
					}))
				} else {
					show(c.Customer(t.Context(), testID))
				}
				if !strings.Contains(shown.String(), redacted) {
					t.Errorf("%s, %s, %s: got %q, want it to hold %s", name, way, where, shown.String(), redacted)
				}
				for i := range len(echo) - 15 {
					if part := echo[i : i+16]; strings.Contains(shown.String(), part) {
						t.Errorf("%s, %s, %s: got %q, want it without %q", name, way, where, shown.String(), part)
						break
					}
				}
			}
		}
	}
}

func jsonText(t *testing.T, text string) string {
	t.Helper()
	quoted, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(quoted)
}

// escapedText is text with every character escaped as \uXXXX.
func escapedText(text string) string {
	var b strings.Builder
	for _, r := range text {
		b.WriteString(`\u` + strconv.FormatInt(int64(r)+0x10000, 16)[1:])
	}
	return b.String()
}

func TestRedactor(t *testing.T) {
	r := newRedactor("", "abc", "four", "0123456789abcdefghij")
	for text, want := range map[string]string{
		"":                                       "",
		"abc":                                    "abc",
		"0123456789abcde":                        "0123456789abcde",
		"0123456789abcdef":                       redacted,
		"456789abcdefghij":                       redacted,
		"x0123456789abcdefghijy":                 "x" + redacted + "y",
		"0123456789abcdefghij0123456789ab":       redacted + "0123456789ab",
		"four, Zm91cg==":                         redacted + ", " + redacted,
		"fou r":                                  "fou r",
		"0123456789abcdefg and 456789abcdefghij": redacted + " and " + redacted,
	} {
		if got := r.redact(text); got != want {
			t.Errorf("redact(%q): got %q, want %q", text, got, want)
		}
	}
}
