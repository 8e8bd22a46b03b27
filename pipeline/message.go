package pipeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/purser-onboard/purser/printable"
)

// Header is a header of a Kafka message.
type Header struct {
	Key   string
	Value []byte
}

// Message is a Kafka message. When publishing, the broker chooses Topic, Partition and Offset unless stated otherwise.
type Message struct {
	Topic     string
	Partition int
	Offset    int64
	Key       []byte
	Value     []byte
	Headers   []Header
	Time      time.Time
}

// Header returns the value of the first header of that name, "" if there is none.
func (m Message) Header(key string) string {
	for _, h := range m.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// messageVersion is the version of the work message that this program writes and reads.
const messageVersion = 1

// maxImportID bounds an import's id, in bytes.
const maxImportID = 64

// MaxFile is the greatest length of the name of a row's export, in bytes.
const MaxFile = 255

// messageJSON is the form of a work message.
type messageJSON struct {
	V          int    `json:"v"`
	ChainID    string `json:"chainId"`
	ExternalID string `json:"externalId"`
	ImportID   string `json:"importId"`
	File       string `json:"file"`
	Line       int    `json:"line"`
}

// AppendMessage appends the work message of a row and returns the longer slice:
// {"v":1,"chainId":…,"externalId":…,"importId":…,"file":…,"line":…}. The same row always gives the same bytes.
func AppendMessage(dst []byte, r Row) []byte {
	return new(MessageEncoder).Append(dst, []byte(r.Account.String()), r)
}

// MessageEncoder is AppendMessage for many rows: it encodes import and file only when they change. The zero value is
// ready to use. Not safe for concurrent use.
type MessageEncoder struct {
	importID, file string
	middle         []byte // what is between the externalId and the line
}

// Append appends the work message of a row whose account is given as Account.String has it.
func (e *MessageEncoder) Append(dst, account []byte, r Row) []byte {
	if e.middle == nil || r.ImportID != e.importID || r.File != e.file {
		e.importID, e.file = r.ImportID, r.File
		e.middle = append(e.middle[:0], `,"importId":`...)
		e.middle = AppendJSONString(e.middle, r.ImportID)
		e.middle = append(e.middle, `,"file":`...)
		e.middle = AppendJSONString(e.middle, r.File)
		e.middle = append(e.middle, `,"line":`...)
	}
	dst = append(dst, `{"v":1,"chainId":"`...)
	dst = append(dst, account...)
	dst = append(dst, `","externalId":`...)
	dst = AppendJSONString(dst, r.ExternalID)
	dst = append(dst, e.middle...)
	dst = strconv.AppendInt(dst, int64(r.Line), 10)
	return append(dst, '}')
}

// AppendJSONString appends s as json.Marshal encodes it. Text that needs no escapes, nearly all, is copied without
// reflection.
func AppendJSONString(dst []byte, s string) []byte {
	if !needsNoEscape(s) {
		quoted, _ := json.Marshal(s) // a string always marshals
		return append(dst, quoted...)
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// needsNoEscape reports whether s is ASCII that JSON has as it is, and package json, too.
func needsNoEscape(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

// MessageError reports why a message of the work topic cannot be processed. The message becomes a dead letter.
type MessageError struct {
	Class  string // "version", "syntax", "row", "partition" or "unauthenticated"
	Reason string
}

func (e *MessageError) Error() string { return e.Reason }

// ParseMessage parses a work message strictly: version 1, each member once and under its exact name, no unknown
// members, text in valid UTF-8, nothing after the object, and a row that passes the importer's own checks. The file is
// only a label: it is escaped, never an error. Errors are *MessageError. The row is the zero value then, unless only
// its externalId is invalid and a ledger may have it from an earlier version (CheckStoredID).
func ParseMessage(value []byte) (Row, error) {
	w, plain := readPlain(string(value))
	if !plain {
		var err error
		if w, err = readJSON(value); err != nil {
			return Row{}, err
		}
	}
	account, err := ParseAccount(w.ChainID)
	if err != nil {
		return Row{}, &MessageError{Class: "row", Reason: "chainId: " + err.Error()}
	}
	if err := CheckStoredID(w.ExternalID); err != nil {
		return Row{}, &MessageError{Class: "row", Reason: err.Error()}
	}
	if w.ImportID == "" || len(w.ImportID) > maxImportID || !printable.Is(w.ImportID) {
		return Row{}, &MessageError{Class: "row", Reason: "importId is empty, too long or unprintable"}
	}
	if w.Line < 0 {
		return Row{}, &MessageError{Class: "row", Reason: "line is negative"}
	}
	row := Row{
		Account: account, ExternalID: w.ExternalID, ImportID: w.ImportID, File: printable.Line(w.File, MaxFile), Line: w.Line,
	}
	if err := CheckExternalID(w.ExternalID); err != nil {
		return row, &MessageError{Class: "row", Reason: err.Error()}
	}
	return row, nil
}

// readJSON parses the message as general JSON. Package json alone accepts duplicate members, names in another case, and
// invalid UTF-8: each can turn it into another customer's message.
func readJSON(value []byte) (w messageJSON, err error) {
	decoder := json.NewDecoder(bytes.NewReader(value))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return w, syntaxError("message is not a JSON object")
	}
	members := map[string]any{
		"v": &w.V, "chainId": &w.ChainID, "externalId": &w.ExternalID,
		"importId": &w.ImportID, "file": &w.File, "line": &w.Line,
	}
	seen := map[string]bool{}
	var first error // of a member; an unknown version goes before it, as its cause
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return w, syntaxError("message is not valid JSON: %v", err)
		}
		name, _ := token.(string) // only a name can be here
		var raw json.RawMessage
		if err := decoder.Decode(&raw); err != nil {
			return w, syntaxError("message is not valid JSON: %v", err)
		}
		switch problem := readMember(members, seen, name, raw); {
		case problem == nil:
		case name == "v":
			return w, problem
		case first == nil:
			first = problem
		}
	}
	if _, err := decoder.Token(); err != nil {
		return w, syntaxError("message is not valid JSON: %v", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return w, syntaxError("message has text after its JSON object")
	}
	switch {
	case !seen["v"]:
		return w, &MessageError{Class: "version", Reason: "message has no version (member v)"}
	case w.V != messageVersion:
		return w, &MessageError{Class: "version",
			Reason: fmt.Sprintf("message version %d is unknown: this program reads version %d", w.V, messageVersion)}
	}
	return w, first
}

// readMember reads the value of a member into its place.
func readMember(members map[string]any, seen map[string]bool, name string, raw json.RawMessage) error {
	place, known := members[name]
	switch {
	case !known:
		return syntaxError("message has the unknown member %s (the case of a name counts)", printable.Quote(name, 40))
	case seen[name]:
		return syntaxError("message has the member %q twice", name)
	case name != "file" && !utf8.Valid(raw):
		return syntaxError("message: %s is not valid UTF-8", name)
	case name != "file" && loneSurrogate(raw):
		return syntaxError(`message: %s has half of a surrogate pair (\ud800 to \udfff)`, name)
	}
	seen[name] = true
	if err := json.Unmarshal(raw, place); err != nil {
		return syntaxError("message: %s: %v", name, err)
	}
	return nil
}

func syntaxError(format string, args ...any) error {
	return &MessageError{Class: "syntax", Reason: fmt.Sprintf(format, args...)}
}

// loneSurrogate reports whether a valid JSON value escapes half of a surrogate pair, which is not a character (RFC
// 8259, section 8.2).
func loneSurrogate(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++ // valid JSON: a backslash is followed by something, and u by four hex digits
		if raw[i] != 'u' {
			continue
		}
		r := escaped(raw[i+1:])
		i += 4
		if !utf16.IsSurrogate(r) {
			continue
		}
		if !bytes.HasPrefix(raw[i+1:], []byte(`\u`)) || utf16.DecodeRune(r, escaped(raw[i+3:])) == unicode.ReplacementChar {
			return true
		}
		i += 6
	}
	return false
}

// escaped is the UTF-16 code unit of four hex digits.
func escaped(digits []byte) rune {
	unit, _ := strconv.ParseUint(string(digits[:4]), 16, 16) // valid JSON: they are digits
	return rune(unit)
}

// readPlain is the fast path for messages in AppendMessage's form, without escapes; ok is false for any other form.
func readPlain(text string) (w messageJSON, ok bool) {
	w.V = messageVersion
	rest := text
	for _, field := range [...]struct {
		name  string
		value *string
	}{
		{`{"v":1,"chainId":"`, &w.ChainID},
		{`,"externalId":"`, &w.ExternalID},
		{`,"importId":"`, &w.ImportID},
		{`,"file":"`, &w.File},
	} {
		if rest, ok = strings.CutPrefix(rest, field.name); !ok {
			return w, false
		}
		end := strings.IndexByte(rest, '"')
		if end < 0 || !needsNoEscape(rest[:end]) {
			return w, false
		}
		*field.value, rest = rest[:end], rest[end+1:]
	}
	if rest, ok = strings.CutPrefix(rest, `,"line":`); !ok {
		return w, false
	}
	if rest, ok = strings.CutSuffix(rest, "}"); !ok || len(rest) > 9 { // so many digits are an int anywhere
		return w, false
	}
	for i := 0; i < len(rest); i++ {
		if rest[i] < '0' || rest[i] > '9' || rest[0] == '0' && i > 0 {
			return w, false
		}
		w.Line = 10*w.Line + int(rest[i]-'0')
	}
	return w, rest != ""
}
