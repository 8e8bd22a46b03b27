package client

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestCreateAnswers(t *testing.T) {
	const truncated = "TRUNCATED"
	for name, tt := range map[string]struct {
		status  int
		body    string
		problem string // empty: success
	}{
		"as documented": {201, `{"id":"` + testID + `","chainId":"` + testChain + `","externalId":"` + testExtern +
			`","status":"initiating","createdAt":"2024-01-17T18:21:53Z","updatedAt":"2024-01-17T18:21:53.123Z",` +
			`"challenge":"aGk="}`, ""},
		"200":            {200, `{"id":"` + testID + `"}`, ""},
		"extra fields":   {201, `{"id":"` + testID + `","tags":[1],"name":{"a":null}}`, ""},
		"odd times":      {201, `{"id":"` + testID + `","createdAt":17,"updatedAt":"yesterday"}`, ""},
		"null times":     {201, `{"id":"` + testID + `","createdAt":null,"updatedAt":{}}`, ""},
		"lower-case":     {201, `{"id":"` + testID + `","chainId":"` + strings.ToLower(testChain) + `"}`, ""},
		"future status":  {201, `{"id":"` + testID + `","status":"on-hold"}`, ""},
		"empty":          {201, ``, "empty"},
		"204":            {204, ``, "empty"},
		"garbage":        {201, `<html>hello</html>`, "not the JSON"},
		"cut JSON":       {201, `{"id":"` + testID, "cut off"},
		"cut connection": {201, truncated, "unexpected EOF"},
		"two values":     {201, `{"id":"` + testID + `"}{}`, "not the JSON"},
		"null":           {201, `null`, "no UUID"},
		"array":          {201, `[]`, "not the JSON"},
		"no id":          {201, `{"status":"initiating"}`, "no UUID"},
		"id no UUID":     {201, `{"id":"../../x"}`, "no UUID"},
		"id a number":    {201, `{"id":7}`, "not the JSON"},
		"another account": {201, `{"id":"` + testID + `","chainId":"eip155:1:0x00"}`,
			`has chainId "eip155:1:0x00", sent was "` + testChain},
		"another external": {201, `{"id":"` + testID + `","externalId":"x"}`, `has externalId "x", sent was "` + testExtern},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := dial(t, func(w http.ResponseWriter, r *http.Request) {
				if tt.body == truncated {
					w.Header().Set("Content-Length", "1000")
					replying(tt.status, `{"id":"`+testID+`"}`)(w, r)
					return
				}
				replying(tt.status, tt.body)(w, r)
			})
			got, err := c.CreateCustomer(t.Context(), testIdem, CreateBody(testChain, testExtern))
			if tt.problem == "" {
				if err != nil || got.ID != testID {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			e := asError(t, err)
			if e.Kind != Malformed || e.Status != tt.status || !strings.Contains(e.Error(), tt.problem) {
				t.Errorf("got %v, want %q", e, tt.problem)
			}
		})
	}
}

func TestCustomerAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		body   string
		ok     bool
	}{
		"as documented": {200, `{"id":"` + testID + `","chainId":"c","externalId":"e","status":"active",` +
			`"createdAt":"2024-01-17T18:21:53Z"}`, true},
		"id in upper case": {200, `{"id":"` + strings.ToUpper(testID) + `","status":"active"}`, true},
		"another id":       {200, `{"id":"11111111-2222-4333-8444-555555555555","status":"active"}`, false},
		"no status":        {200, `{"id":"` + testID + `"}`, false},
		"a part":           {206, `{"id":"` + testID + `","status":"active"}`, false},
		"empty":            {204, ``, false},
	} {
		c, _ := dial(t, replying(tt.status, tt.body))
		got, err := c.Customer(t.Context(), testID)
		if tt.ok {
			if err != nil || got.Status != StatusActive {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		} else if e := asError(t, err); e.Kind != Malformed {
			t.Errorf("%s: %v", name, e)
		}
		if name == "as documented" && !got.CreatedAt.Equal(time.Date(2024, 1, 17, 18, 21, 53, 0, time.UTC)) {
			t.Errorf("createdAt: %v", got.CreatedAt)
		}
	}
}

func TestChallengeAnswers(t *testing.T) {
	for body, want := range map[string]string{
		`{"challenge":"aGk="}`:                "aGk=",
		`{"id":"x","challenge":"aGk=","n":1}`: "aGk=",
		`"aGk="`:                              "aGk=",
		" aGk=\n":                             "aGk=",
		`aGk`:                                 "aGk",
		`{"challenge":"not base64: the policy's"}`: "not base64: the policy's",
		``:                         "",
		`{}`:                       "",
		`{"challenge":7}`:          "",
		`{"challenge":"aGk="`:      "",
		`""`:                       "",
		`[]`:                       "",
		`<html>log in</html>`:      "",
		`example.com wants you to`: "",
	} {
		c, _ := dial(t, reply200(body))
		got, err := c.Challenge(t.Context(), testID)
		if want != "" && (err != nil || got != want) {
			t.Errorf("%s: %q, %v", body, got, err)
		}
		if want == "" && asError(t, err).Kind != Malformed {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestSubmitAnswers(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		ok     bool
	}{
		{204, ``, true},
		{200, ``, true},
		{201, ``, true},
		{200, `{}`, true},
		{200, `{"id":"` + testID + `","status":"screening"}`, true},
		{200, `{"success":true,"error":null}`, true},
		{202, `{"id":"` + testID + `","status":"verifying"}`, true},
		{202, ``, false}, // RFC 9110 §15.3.3: accepted for processing, the outcome is open
		{202, `{}`, false},
		{203, ``, false},
		{200, `{"status":"initiating"}`, false},
		{200, `{"id":"11111111-2222-4333-8444-555555555555","status":"screening"}`, false},
		{200, `{"error":{"code":"x"}}`, false},
		{200, `{"status":"scr`, false},
		{200, `<html>log in</html>`, false},
		{200, `OK`, false},
		{206, `{"status":"screening"}`, false},
	} {
		c, _ := dial(t, replying(tt.status, tt.body))
		err := c.SubmitSignature(t.Context(), testID, testIdem, SubmitBody("a", "0x00", EncodingHex))
		if tt.ok && err != nil {
			t.Errorf("%d %s: %v", tt.status, tt.body, err)
		}
		if !tt.ok && asError(t, err).Kind != Malformed {
			t.Errorf("%d %s: %v", tt.status, tt.body, err)
		}
	}
}

func TestBodies(t *testing.T) {
	signature := "0x" + strings.Repeat("ab", 64) + "1b"
	for _, tt := range []struct {
		got  []byte
		want string
	}{
		{CreateBody(testChain, testExtern), `{"chainId":"` + testChain + `","externalId":"` + testExtern + `"}`},
		{CreateBody("c", "a\"b\\c<d>&e\u2028\t\x00é😀"),
			`{"chainId":"c","externalId":"a\"b\\c<d>&e` + "\u2028" + `\u0009\u0000é😀"}`},
		{CreateBody("c", "\xff"), `{"chainId":"c","externalId":"` + "\ufffd" + `"}`},
		{SubmitBody("o", "0xab", EncodingHex), `{"ownerId":"o","signature":"MHhhYg=="}`},
		{SubmitBody("o", "0xab", ""), `{"ownerId":"o","signature":"MHhhYg=="}`},
		{SubmitBody("o", "0xab", EncodingRaw), `{"ownerId":"o","signature":"qw=="}`},
		{SubmitBody("o", "ab", EncodingRaw), ``},
		{SubmitBody("o", "0x", EncodingRaw), ``},
		{SubmitBody("o", "0xzz", EncodingRaw), ``},
		{SubmitBody("o", signature, EncodingHex),
			`{"ownerId":"o","signature":"` + base64.StdEncoding.EncodeToString([]byte(signature)) + `"}`},
	} {
		if string(tt.got) != tt.want {
			t.Errorf("got  %s\nwant %s", tt.got, tt.want)
		}
	}
}

func FuzzCreateBody(f *testing.F) {
	f.Add("eip155:1:0x", "a\"\\\x00\u2028")
	f.Fuzz(func(t *testing.T, chain, external string) {
		if !utf8.ValidString(chain) || !utf8.ValidString(external) {
			t.Skip()
		}
		var got wireCustomer
		if err := json.Unmarshal(CreateBody(chain, external), &got); err != nil {
			t.Fatal(err)
		}
		if got.ChainID != chain || got.ExternalID != external {
			t.Errorf("%q %q became %q %q", chain, external, got.ChainID, got.ExternalID)
		}
	})
}

func TestDecodeChallenge(t *testing.T) {
	text := "ÿ?> wants you to sign in\n>>>???" // needs both characters in which the alphabets differ
	for name, encoding := range map[string]*base64.Encoding{"std": base64.StdEncoding, "raw": base64.RawStdEncoding,
		"url": base64.URLEncoding, "raw url": base64.RawURLEncoding} {
		for n := range 4 {
			want := text + strings.Repeat(".", n)
			if got, err := DecodeChallenge(encoding.EncodeToString([]byte(want))); err != nil || got != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	}
	wrapped := base64.StdEncoding.EncodeToString([]byte(text))
	if got, err := DecodeChallenge("\n" + wrapped[:8] + "\r\n" + wrapped[8:] + "\n"); err != nil || got != text {
		t.Errorf("wrapped: %q, %v", got, err)
	}
	longest := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", MaxChallenge)))
	if got, err := DecodeChallenge(longest); err != nil || len(got) != MaxChallenge {
		t.Errorf("the longest: %d bytes, %v", len(got), err)
	}
	for b64, problem := range map[string]string{
		"":       "empty",
		" \n":    "empty",
		"!":      "not base64",
		"aGk=x":  "not base64",
		"aGk==":  "not base64",
		"-_+/":   "not base64",
		"a":      "not base64",
		"/////w": "not UTF-8",
		base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", MaxChallenge+1))): "longer than 8192",
		strings.Repeat("x", 1<<20): "longer than 8192",
	} {
		if got, err := DecodeChallenge(b64); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%.20q: %q, %v, want %q", b64, fmt.Sprintf("%.20s", got), err, problem)
		}
	}
}
