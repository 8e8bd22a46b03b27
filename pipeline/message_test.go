package pipeline

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ethereum/go-ethereum/common"
)

func TestMessage(t *testing.T) {
	account, err := ParseAccount("eip155:300:" + goodAddress)
	if err != nil {
		t.Fatal(err)
	}
	row := Row{Account: account, ExternalID: `a"b<é>`, ImportID: "0190", File: "export.csv", Line: 17}
	raw := string(AppendMessage(nil, row))
	if got, err := ParseMessage([]byte(raw)); err != nil || got != row {
		t.Errorf("round trip of %s: got %+v, %v; want %+v", raw, got, err, row)
	}
	for name, tt := range map[string]struct{ message, class string }{
		"not JSON":            {"hello", "syntax"},
		"not an object":       {`[1]`, "syntax"},
		"no version":          {`{"chainId":"x"}`, "version"},
		"other version":       {`{"v":2}`, "version"},
		"unknown field":       {strings.Replace(raw, `"v":1`, `"v":1,"x":1`, 1), "syntax"},
		"text behind":         {raw + "x", "syntax"},
		"second object":       {raw + "{}", "syntax"},
		"bad account":         {strings.Replace(raw, "5aAe", "5aae", 1), "row"},
		"empty externalId":    {`{"v":1,"chainId":"eip155:300:` + goodAddress + `","externalId":"","importId":"i","file":"f","line":1}`, "row"},
		"no importId":         {`{"v":1,"chainId":"eip155:300:` + goodAddress + `","externalId":"e","file":"f","line":1}`, "row"},
		"line out of range":   {strings.Replace(raw, `"line":17`, `"line":9223372036854775808`, 1), "syntax"},
		"line is a text":      {strings.Replace(raw, `"line":17`, `"line":"17"`, 1), "syntax"},
		"externalId twice":    {strings.Replace(raw, `"importId"`, `"externalId":"other","importId"`, 1), "syntax"},
		"other case":          {strings.Replace(raw, `"externalId"`, `"externalID"`, 1), "syntax"},
		"both cases":          {strings.Replace(raw, `"importId"`, `"externalid":"other","importId"`, 1), "syntax"},
		"not UTF-8":           {strings.Replace(raw, "é", "M\xfcller-17", 1), "syntax"},
		"name is not UTF-8":   {strings.Replace(raw, `"externalId"`, "\"externalId\xfc\"", 1), "syntax"},
		"lone surrogate":      {strings.Replace(raw, "é", `\ud800`, 1), "syntax"},
		"half of a pair":      {strings.Replace(raw, "é", `\ude00\ud83d`, 1), "syntax"},
		"cut short":           {raw[:len(raw)-1], "syntax"},
		"version twice":       {strings.Replace(raw, `"v":1`, `"v":2,"v":1`, 1), "syntax"},
		"version is a text":   {strings.Replace(raw, `"v":1`, `"v":"1"`, 1), "syntax"},
		"version 2 with more": {strings.Replace(raw, `"v":1`, `"v":2,"x":[{}]`, 1), "version"},
		"negative line":       {`{"v":1,"chainId":"eip155:300:` + goodAddress + `","externalId":"e","importId":"i","file":"f","line":-1}`, "row"},
	} {
		_, err := ParseMessage([]byte(tt.message))
		var m *MessageError
		if !errors.As(err, &m) || m.Class != tt.class {
			t.Errorf("%s: ParseMessage(%q): got %v, want a *MessageError of class %q", name, tt.message, err, tt.class)
		}
	}
}

// TestParseMessageOfAnEarlierVersion: an externalId that an earlier version accepted, and only that, is returned with
// the error.
func TestParseMessageOfAnEarlierVersion(t *testing.T) {
	account := Account{Chain: 300, Address: common.Address{1}}
	for id, want := range map[string]string{"“17”": "“17”", "1.23457E+15": "1.23457E+15", "": "", "=1+1": ""} {
		row, err := ParseMessage(AppendMessage(nil, Row{Account: account, ExternalID: id, ImportID: "i", File: "f"}))
		if !errors.As(err, new(*MessageError)) || row.ExternalID != want {
			t.Errorf("externalId %q: got %+v, %v; want externalId %q and a *MessageError", id, row, err, want)
		}
	}
}

// messageSeeds are messages in the spellings of former bugs, and valid ones.
func messageSeeds() []string {
	plain := Row{Account: Account{Chain: 300, Address: common.Address{1}}, ExternalID: "e", ImportID: "i", File: "f", Line: 17}
	named := plain
	named.ExternalID, named.File = `a"b<é>`, "export 27 Nov 2026, 10.15\u202fAM.csv"
	raw := string(AppendMessage(nil, plain))
	member := func(old, replacement string) string { return strings.Replace(raw, old, replacement, 1) }
	return []string{
		raw, string(AppendMessage(nil, named)),
		member(`"line":17`, `"line":0`), member(`"line":17`, `"line":01`), member(`"line":17`, `"line":1,"line":2`),
		member(`"line":17`, `"line":9223372036854775808`), member(`"line":17`, `"line":1e1`), member(`"line":17`, `"line":null`),
		member(`"line":17`, `"line":999999999`), member(`"line":17`, `"line":-0`), member(`"line":17`, `"line":"17"`),
		member(`"externalId":"e"`, `"externalId":"M\xfcller-17"`), member(`"externalId":"e"`, `"externalId":"a\ud800"`),
		member(`"externalId":"e"`, `"externalId":"a\udc00\ud83d"`), member(`"externalId":"e"`, `"externalId":"\ud83d\ude00"`),
		member(`"externalId":"e"`, `"externalId":"a\\ud800"`), member(`"externalId":"e"`, `"externalId":"e","externalId":"f"`),
		member(`"externalId":"e"`, `"externalID":"e"`), member(`"externalId":"e"`, `"external\u0049d":"e"`),
		member(`"externalId":"e"`, `"externalId":"\u0041","externalid":"b"`),
		member(`"file":"f"`, "\"file\":\"f\xfc.csv\""), member(`"file":"f"`, `"file":"f\ud800.csv"`),
		member(`"v":1`, `"v":2,"new":{"a":[1]}`), member(`"v":1`, `"v":1,"v":1`), member(`"v":1`, `"V":1`),
		raw + " ", raw + "x", raw + raw, raw[:len(raw)-1], raw[:len(raw)-1] + ",}", "{}", "{}x", "null", "[]", `{"v"}`, "",
	}
}

// FuzzMessage: both parsers of a message agree with each other, and with package json where that is strict.
func FuzzMessage(f *testing.F) {
	for _, seed := range messageSeeds() {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		strict, err := readJSON(value)
		if plain, ok := readPlain(string(value)); ok && (err != nil || plain != strict) {
			t.Errorf("readPlain(%q): got %+v, want the result of readJSON, %+v, %v", value, plain, strict, err)
		}
		var m *MessageError
		if err != nil {
			if !errors.As(err, &m) {
				t.Errorf("readJSON(%q): got %v, want a *MessageError", value, err)
			}
			return
		}
		var want messageJSON
		if err := json.Unmarshal(value, &want); err != nil || strict != want {
			t.Errorf("readJSON(%q): got %+v, want the result of package json, %+v, %v", value, strict, want, err)
		}
		row, err := ParseMessage(value)
		if err != nil {
			return
		}
		if !utf8.Valid(value) && !strings.Contains(strict.File, "\ufffd") {
			t.Errorf("ParseMessage(%q): got %+v, want an error: not UTF-8 outside of file", value, row)
		}
		if again, err := ParseMessage(AppendMessage(nil, row)); err != nil || again != row {
			t.Errorf("ParseMessage(%q), written and read again: got %+v, %v; want %+v", value, again, err, row)
		}
	})
}

// TestPlainMessage: a message that the importer wrote is read by readPlain.
func TestPlainMessage(t *testing.T) {
	row := Row{Account: Account{Chain: 300, Address: common.Address{1}}, ExternalID: "e", ImportID: "i", File: "f", Line: 17}
	if w, plain := readPlain(string(AppendMessage(nil, row))); !plain || w.Line != row.Line {
		t.Errorf("got %+v, plain %t; want line %d, plain true", w, plain, row.Line)
	}
}

func BenchmarkParseMessage(b *testing.B) {
	value := AppendMessage(nil, Row{
		Account: Account{Chain: 300, Address: common.Address{1}}, ExternalID: "cust-00000017",
		ImportID: "019f0000-0000-7000-8000-000000000000", File: "export.csv", Line: 17,
	})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseMessage(value); err != nil {
			b.Fatal(err)
		}
	}
}

// TestMessageFile: a file's name is cleaned when it is read, and never makes a message invalid.
func TestMessageFile(t *testing.T) {
	row := Row{Account: Account{Chain: 300, Address: common.Address{1}}, ExternalID: "e", ImportID: "i", File: "FILE", Line: 1}
	raw := string(AppendMessage(nil, row))
	for name, want := range map[string]string{
		"export 27 Nov 2026, 10.15\u202fAM.csv": "export 27 Nov 2026, 10.15\u202fAM.csv",
		"M\xfcller.csv":                         "M\ufffdller.csv",
		`M\ud800ller.csv`:                       "M\ufffdller.csv",
		`tab\tand\nline.csv`:                    `tab\tand\nline.csv`,
		`\u001b[31mred.csv`:                     `\x1b[31mred.csv`,
		"экспорт 顧客 عملاء.csv":                  "экспорт 顧客 عملاء.csv",
		strings.Repeat("é", 200):                strings.Repeat("é", 126) + "…",
		"":                                      "",
	} {
		got, err := ParseMessage([]byte(strings.Replace(raw, "FILE", name, 1)))
		if err != nil || got.File != want {
			t.Errorf("file %q: got %q, %v, want %q", name, got.File, err, want)
		}
	}
}
