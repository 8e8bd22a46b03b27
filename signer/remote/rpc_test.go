package remote

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
)

func TestRead(t *testing.T) {
	const id = `"jsonrpc":"2.0","id":7`
	tests := map[string]struct{ answer, want, err string }{
		"result":             {`{` + id + `,"result":"x"}`, `"x"`, ""},
		"falsy result":       {`{` + id + `,"result":[]}`, `[]`, ""},
		"null error":         {`{` + id + `,"result":1,"error":null}`, `1`, ""},
		"error":              {`{` + id + `,"error":{"code":-32000,"message":"unknown\naccount"}}`, "", "error -32000: unknown\\naccount"},
		"error, null result": {`{` + id + `,"result":null,"error":{"code":1,"message":""}}`, "", "error 1"},
		"error without id":   {`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse"}}`, "", "error -32700"},
		"result without id":  {`{"jsonrpc":"2.0","id":null,"result":1}`, "", "another call"},
		"no id":              {`{"jsonrpc":"2.0","result":1}`, "", "another call"},
		"another id":         {`{"jsonrpc":"2.0","id":8,"result":1}`, "", "another call"},
		"another's error":    {`{"jsonrpc":"2.0","id":8,"error":{"code":1,"message":""}}`, "", "another call"},
		"id as text":         {`{"jsonrpc":"2.0","id":"7","result":1}`, "", "another call"},
		"version 1":          {`{"id":7,"result":1}`, "", "not 2.0"},
		"both":               {`{` + id + `,"result":1,"error":{"code":1,"message":""}}`, "", "a result and an error"},
		"neither":            {`{` + id + `}`, "", "no result"},
		"null result":        {`{` + id + `,"result":null}`, "", "no result"},
		"code missing":       {`{` + id + `,"error":{"message":"x"}}`, "", "no code"},
		"error as text":      {`{` + id + `,"error":"x"}`, "", "not a JSON object"},
		"batch":              {`[{` + id + `,"result":1}]`, "", "not a JSON object"},
		"no JSON":            {`<html>`, "", "not a JSON object"},
		"empty":              {``, "", "not a JSON object"},
		"more after it":      {`{` + id + `,"result":1} {}`, "", "not a JSON object"},
	}
	r := &RPC{at: address{socket: "s"}}
	for name, test := range tests {
		got, err := r.read([]byte(test.answer), 7, "m")
		if test.err == "" && (err != nil || string(got) != test.want) ||
			test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: %s, %v; want %s, %q", name, got, err, test.want, test.err)
		}
		var answered *RPCError
		if errors.As(err, &answered) == errors.Is(err, errMalformed) && err != nil {
			t.Errorf("%s: got error %v, want an *RPCError or a malformed answer", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":7,"result":"x"}`))
	f.Add([]byte(`{"jsonrpc":"2.0","id":7,"error":{"code":-32000,"message":"x"}}`))
	r := &RPC{at: address{socket: "s"}}
	f.Fuzz(func(t *testing.T, answer []byte) {
		got, err := r.read(answer, 7, "m")
		if (err == nil) == (len(got) == 0) || err == nil && !json.Valid(got) {
			t.Fatalf("%q, %v", got, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\r\x1b") {
			t.Fatalf("got error %q, want one line", err)
		}
	})
}

func TestCall(t *testing.T) {
	var seen string
	handler := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("got error %v, want none", err)
		}
		seen = string(body)
		if r.URL.Path != "/s3cret" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("got request %s with header %v, want /s3cret and application/json", r.URL, r.Header)
		}
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":`+seen[strings.Index(seen, `"id":`)+5:strings.Index(seen, `,"method"`)]+`,"result":"x"}`)
	}
	r := &RPC{}
	r.http = openTest(t, handler)
	r.at = r.http.at
	for i, want := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"m","params":[]}`,
		`{"jsonrpc":"2.0","id":2,"method":"m","params":["a",1]}`,
	} {
		var result string
		if err := r.Call(t.Context(), 100, &result, "m", []any{"a", 1}[:2*i]...); err != nil || result != "x" || seen != want {
			t.Errorf("%q, %v, sent %s, want %s", result, err, seen, want)
		}
	}
	var number int
	if err := r.Call(t.Context(), 100, &number, "m"); err == nil || !strings.Contains(err.Error(), "malformed result") {
		t.Errorf("a result of another type: got error %v, want \"malformed result\"", err)
	}
}

func TestParseSignature(t *testing.T) {
	digits := strings.Repeat("0a", 64) + "1c"
	if sig, err := ParseSignature("0x" + digits); err != nil || sig[0] != 10 || sig[64] != 28 {
		t.Errorf("ParseSignature = %x, %v; want 10 first and 28 last", sig, err)
	}
	for _, text := range []string{"", "0x", digits, "0x" + digits[2:], "0x" + digits + "00", "0X" + digits,
		"0x" + digits[1:] + "g", "0x" + digits + "\n"} {
		if sig, err := ParseSignature(text); err == nil || sig != [65]byte{} || strings.Contains(err.Error(), "0a0a") {
			t.Errorf("ParseSignature(%q) = %x, %v; want an error without the digits", text, sig, err)
		}
	}
}

func TestAddressSet(t *testing.T) {
	const a = "0x00000000000000000000000000000000000000aB"
	set, err := addressSet([]string{a, strings.ToLower(a)})
	if _, ok := set[common.HexToAddress(a)]; err != nil || !ok || len(set) != 1 {
		t.Errorf("addressSet = %v, %v; want only %s", set, err, a)
	}
	for _, bad := range []string{"", a[2:], a[:41], a + "0", "0x" + strings.Repeat("g", 40)} {
		if _, err := addressSet([]string{a, bad}); err == nil || !strings.Contains(err.Error(), "entry 2") {
			t.Errorf("addressSet with %q: got error %v, want one about entry 2", bad, err)
		}
	}
}
