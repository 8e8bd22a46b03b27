package client

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/purser-onboard/purser/printable"
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
		"garbage":        {201, `<html>hello</html>`, "not the expected JSON"},
		"cut JSON":       {201, `{"id":"` + testID, "truncated"},
		"cut connection": {201, truncated, "unexpected EOF"},
		"two values":     {201, `{"id":"` + testID + `"}{}`, "not the expected JSON"},
		"null":           {201, `null`, `no "id"`},
		"number":         {201, `7`, `no "id"`},
		"array":          {201, `[]`, `no "id"`},
		"no id":          {201, `{"status":"initiating"}`, `no "id"`},
		"id no UUID":     {201, `{"id":"../../x"}`, `no usable "id"`},
		"id a number":    {201, `{"id":7}`, `no usable "id"`},
		"error":          {201, `{"error":"upstream"}`, "reports an error: upstream"},
		"another account": {201, `{"id":"` + testID + `","chainId":"eip155:1:0x00"}`,
			`has chainId "eip155:1:0x00", want "` + testChain},
		"another external": {201, `{"id":"` + testID + `","externalId":"x"}`, `has externalId "x", want "` + testExtern},
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
					t.Errorf("got %+v, %v; want the customer %s, no error", got, err, testID)
				}
				return
			}
			e := asError(t, err)
			if e.Kind != unusable(e) || e.Status != tt.status || !strings.Contains(e.Error(), tt.problem) {
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
				t.Errorf("%s: got %+v, %v; want status %s, no error", name, got, err, StatusActive)
			}
		} else if e := asError(t, err); e.Kind != unusable(e) {
			t.Errorf("%s: got %v, want kind %s", name, e, unusable(e))
		}
		created := time.Date(2024, 1, 17, 18, 21, 53, 0, time.UTC)
		if name == "as documented" && !got.CreatedAt.Equal(created) {
			t.Errorf("createdAt: got %v, want %v", got.CreatedAt, created)
		}
	}
}

// TestTwoValues: a customer that has a member twice, with two values, says nothing of how it stands; the same value
// twice does.
func TestTwoValues(t *testing.T) {
	for name, tt := range map[string]struct{ members, want string }{
		"status":               {`"status":"initiating","status":"active"`, "status"},
		"status, another case": {`"status":"initiating","Status":"active"`, "status"},
		"status and null":      {`"status":"initiating","status":null`, "status"},
		"status, escaped":      {`"status":"initiating","status":"\u0061ctive"`, "status"},
		"externalId":           {`"status":"active","externalId":"a","externalID":"b"`, "externalId"},
		"chainId":              {`"status":"active","chainId":"eip155:1:0x0","chainID":"eip155:1:0x1"`, "chainId"},
		"id":                   {`"status":"active","ID":"11111111-2222-4333-8444-555555555555"`, "id"},
		"the same twice":       {`"status":"active","STATUS":"\u0061ctive"`, ""},
	} {
		customer := `{"id":"` + testID + `",` + tt.members + `}`
		c, _ := dial(t, reply200(customer))
		_, read := c.Customer(t.Context(), testID)
		_, create := c.CreateCustomer(t.Context(), testIdem, []byte("{}"))
		list, _ := dial(t, reply200("["+customer+"]"))
		listed := customersOf(t.Context(), list, func(Customer) error { return nil })
		for op, err := range map[string]error{"read": read, "create": create, "list": listed} {
			if tt.want == "" {
				if err != nil && op != "create" {
					t.Errorf("%s, %s: got %v, want no error", name, op, err)
				}
				continue
			}
			want := tt.want
			if op == "list" {
				want = "[0]." + want
			}
			e := asError(t, err)
			if e.Kind != Unrecognized || !strings.Contains(e.Error(), `two different values of "`+want+`"`) {
				t.Errorf("%s, %s: got %v, want kind %s for two values of %s", name, op, e, Unrecognized, want)
			}
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
			t.Errorf("%s: got %q, %v; want %q, no error", body, got, err, want)
		}
		if want == "" && asError(t, err).Kind != unusable(err) {
			t.Errorf("%s: got %v, want kind %s", body, err, unusable(err))
		}
	}
}

// TestSubmitAnswers: only the documented answer proves that the signature was accepted.
func TestSubmitAnswers(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		have   string // what the error says about the body; empty: accepted
	}{
		{204, ``, ""},
		{200, ``, "no body"},
		{201, ``, "no body"},
		{202, ``, "no body"},
		{203, ``, "no body"},
		{200, "\n", "a body that is not JSON"},
		{204, `{"status":"initiating"}`, `"status"`},
		{204, " ", "a body that is not JSON"},
		{200, `{}`, "no members"},
		{200, `null`, "no members"},
		{200, `{"id":"` + testID + `","status":"screening"}`, `"id", "status"`},
		{202, `{"data":{"status":"verifying"}}`, `"data", "data.status"`},
		{200, `{"success":true,"error":null}`, `"error", "success"`},
		{200, `{"status":"scr`, "a body that is not JSON"},
		{200, `<html>log in</html>`, "a body that is not JSON"},
	} {
		config := testConfig("https://api.example/v1")
		// A Transport of net/http shows no body with a 204; another one may.
		config.Transport = roundTripper(func(r *http.Request) *canned {
			if strings.HasSuffix(r.URL.Path, "/auth/token") {
				return response(200, `{"token":"t"}`)
			}
			return response(tt.status, tt.body)
		})
		err := newClient(t, config).SubmitSignature(t.Context(), testID, testIdem, SubmitBody("a", "0x00", EncodingHex))
		if tt.have == "" {
			if err != nil {
				t.Errorf("%d %q: got %v, want no error", tt.status, tt.body, err)
			}
			continue
		}
		want := fmt.Sprintf("HTTP %d with %s, want 204", tt.status, tt.have)
		if e := asError(t, err); e.Kind != Malformed || !errors.Is(e, ErrUnproven) || !strings.Contains(e.Error(), want) {
			t.Errorf("%d %q: got %v, want ErrUnproven and %q", tt.status, tt.body, e, want)
		}
	}
}

// answerOf returns the error of the endpoint's reader for a 2xx body.
func answerOf(endpoint, body string) error {
	a := answer{status: http.StatusOK, body: []byte(body)}
	var err error
	switch endpoint {
	case "POST /customers":
		_, err = created(CreateBody(testChain, testExtern), a)
	case "GET /customers/{id}":
		_, err = found(testID, a)
	case "GET /customers/{id}/challenge":
		_, err = challengeIn(a)
	}
	return err
}

func TestShapes(t *testing.T) {
	const create, read, challenge = "POST /customers", "GET /customers/{id}", "GET /customers/{id}/challenge"
	customer := `{"id":"` + testID + `","status":"active"}`
	for _, tt := range []struct {
		endpoint, body, want string
		have                 []string
	}{
		{create, `{"customer":` + customer + `}`, "id", []string{"customer", "customer.id", "customer.status"}},
		{create, `{"error":null,"errors":[],"data":{}}`, "id", []string{"data", "error", "errors"}},
		{create, `{}`, "id", nil},
		{create, `[` + customer + `]`, "id", []string{"[].id", "[].status"}},
		{create, `[]`, "id", nil},
		{create, `{"id":"c-17"}`, "id", []string{"id"}},
		{create, `{"id":17}`, "id", []string{"id"}},
		{create, `{"id":"` + testID + `","challenge":{"text":"x"}}`, "challenge",
			[]string{"challenge", "id", "challenge.text"}},
		{read, `{"data":` + customer + `}`, "id", []string{"data", "data.id", "data.status"}},
		{read, `{"customerId":"` + testID + `","status":"active"}`, "id", []string{"customerId", "status"}},
		{read, `{"id":"` + testID + `","state":"active"}`, "status", []string{"id", "state"}},
		{read, `{"id":"` + testID + `","status":""}`, "status", []string{"id", "status"}},
		{read, `{"id":"` + testID + `","status":5}`, "status", []string{"id", "status"}},
		{challenge, `{"message":"aGk="}`, "challenge", []string{"message"}},
		{challenge, `{"challenge":{"text":"aGk="}}`, "challenge", []string{"challenge", "challenge.text"}},
		{challenge, `{"challenge":""}`, "challenge", []string{"challenge"}},
		{challenge, ` ["aGk="] `, "challenge", nil},
	} {
		want := shapeError{Endpoint: tt.endpoint, Want: tt.want, Have: tt.have}
		var got *shapeError
		if err := answerOf(tt.endpoint, tt.body); !errors.As(err, &got) {
			t.Errorf("%s %s: got %v, want %v", tt.endpoint, tt.body, err, &want)
		} else if got.Endpoint != want.Endpoint || got.Want != want.Want || !slices.Equal(got.Have, want.Have) {
			t.Errorf("%s %s: got %+v, want %+v", tt.endpoint, tt.body, *got, want)
		}
		// Truncated anywhere, it has no shapeError.
		body := strings.TrimSpace(tt.body)
		for i := range len(body) {
			if err := answerOf(tt.endpoint, body[:i]); err == nil || errors.As(err, &got) {
				t.Errorf("%s %s: got %v, want an error but no shapeError", tt.endpoint, body[:i], err)
			}
		}
	}
	for _, body := range []string{``, ` `, `null`, `7`, `true`, `""`, `"text"`, `<html>log in</html>`,
		`{"error":"upstream"`, `{"error":"upstream"}`, `{"errors":[{"code":"x"}],"data":null}`,
		`{"id":"` + testID + `"}{}`, `upstream error`} {
		for _, endpoint := range []string{create, read, challenge} {
			err := answerOf(endpoint, body)
			if endpoint == challenge && body == `"text"` {
				continue // may be a challenge
			}
			if got := (*shapeError)(nil); err == nil || errors.As(err, &got) {
				t.Errorf("%s %q: got %v, want an error but no shapeError", endpoint, body, err)
			}
		}
	}
}

// TestShapeErrorsReachTheCaller: the client's error wraps the shapeError and shows no values.
func TestShapeErrorsReachTheCaller(t *testing.T) {
	c, _ := dial(t, reply200(`{"customer":{"id":"`+testID+`"},"apiSecret":"`+testSecret+`"}`))
	_, err := c.Customer(t.Context(), testID)
	want := `the response to GET /customers/{id} has no "id"; it has "apiSecret", "customer", "customer.id"`
	if got := (*shapeError)(nil); !errors.As(err, &got) || got.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if text := err.Error(); strings.Contains(text, testID) || strings.Contains(text, testSecret) {
		t.Errorf("got %q, want it without values", text)
	}
}

func TestMemberNames(t *testing.T) {
	many := make([]string, 0, 30)
	for i := range 30 {
		many = append(many, fmt.Sprintf(`"m%02d":{"x":1}`, i))
	}
	long := strings.Repeat("n", 100)
	for _, tt := range []struct {
		body string
		want []string
	}{
		{``, nil},
		{`{"a":`, nil},
		{`"a"`, nil},
		{`{}`, nil},
		{`[]`, nil},
		{`[7]`, nil},
		{`{"b":1,"a":{"d":{"e":1},"c":2},"B":[{"f":1}]}`, []string{"B", "a", "b", "a.c", "a.d"}},
		{`[{"b":{"c":1}},{"a":1}]`, []string{"[].b", "[].b.c"}},
		{`{"\u0000\u202ea\nb":1}`, []string{`\x00\u202ea\nb`}},
		{`{"` + long + `":1}`, []string{printable.Line(long, mostName)}},
		{`{"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln":1}`, []string{redacted}},
	} {
		if got := memberNames([]byte(tt.body)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.body, got, tt.want)
		}
	}
	got := memberNames([]byte(`{` + strings.Join(many, ",") + `}`))
	if len(got) != mostNames || got[0] != "m00" || got[mostNames-1] != "m19" {
		t.Errorf("got %d names, %q, want m00 to m19", len(got), got)
	}
}

func TestParseStatus(t *testing.T) {
	for word, want := range map[string]Status{
		"initiating": StatusInitiating, "Initiating": StatusInitiating, "SCREENING": StatusScreening,
		"vErifying": StatusVerifying, "Active": StatusActive, "INACTIVE": StatusInactive, "REJECTED": StatusRejected,
	} {
		got := ParseStatus(word)
		if past := want != StatusInitiating && want != StatusRejected; got != want || !got.Known() || got.Past() != past {
			t.Errorf("%q: got %q, known %v, past %v; want %q, known, past %v", word, got, got.Known(), got.Past(), want, past)
		}
	}
	for word, want := range map[string]Status{
		"": "", "pending": "pending", "Suspended": "Suspended",
		"Active ": `"Active "`, "active" + strings.Repeat(" ", 74): Status(`"active` + strings.Repeat(" ", 69) + `"…`),
		"\x00active": `\x00active`, "act\x00ive": `act\x00ive`,
		"ſcreening": "ſcreening", "actİve": "actİve", "in-active": "in-active",
		strings.Repeat("x", 200): Status(printable.Line(strings.Repeat("x", 200), 80)),
	} {
		if got := ParseStatus(word); got != want || got.Known() || got.Past() {
			t.Errorf("%q: got %q, known %v, past %v; want %q, unknown", word, got, got.Known(), got.Past(), want)
		}
	}
}

// TestStatusesAreReadWithoutCase: every reader of a customer goes through ParseStatus.
func TestStatusesAreReadWithoutCase(t *testing.T) {
	body := `{"id":"` + testID + `","status":"Initiating"}`
	a := answer{status: http.StatusOK, body: []byte(body)}
	if got, err := created(CreateBody(testChain, testExtern), a); err != nil || got.Status != StatusInitiating {
		t.Errorf("created: got %q, %v, want %q", got.Status, err, StatusInitiating)
	}
	if got, err := found(testID, a); err != nil || got.Status != StatusInitiating {
		t.Errorf("found: got %q, %v, want %q", got.Status, err, StatusInitiating)
	}
	c, _ := dial(t, reply200(`[`+body+`]`))
	if err := customersOf(t.Context(), c, func(got Customer) error {
		if got.Status != StatusInitiating {
			t.Errorf("listed: got %q, want %q", got.Status, StatusInitiating)
		}
		return nil
	}); err != nil {
		t.Errorf("listed: got %v, want no error", err)
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
		if got.ChainID.text != chain || got.ExternalID.text != external {
			t.Errorf("got %q %q, want %q %q", got.ChainID.text, got.ExternalID.text, chain, external)
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
				t.Errorf("%s: got %q, %v; want %q, no error", name, got, err, want)
			}
		}
	}
	wrapped := base64.StdEncoding.EncodeToString([]byte(text))
	if got, err := DecodeChallenge("\n" + wrapped[:8] + "\r\n" + wrapped[8:] + "\n"); err != nil || got != text {
		t.Errorf("wrapped: got %q, %v; want %q, no error", got, err, text)
	}
	longest := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", maxChallenge)))
	if got, err := DecodeChallenge(longest); err != nil || len(got) != maxChallenge {
		t.Errorf("the longest: got %d bytes, %v; want %d, no error", len(got), err, maxChallenge)
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
		base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", maxChallenge+1))): "longer than 8192",
		strings.Repeat("x", 1<<20): "longer than 8192",
	} {
		if got, err := DecodeChallenge(b64); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%.20q: got %q, %v; want an error with %q", b64, fmt.Sprintf("%.20s", got), err, problem)
		}
	}
}
