package pipeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MessageVersion is the version of the work message that this program writes and reads.
const MessageVersion = 1

// maxImportID and maxFile bound what a message may carry besides the row itself.
const (
	maxImportID = 64
	maxFile     = 255
)

type wireRow struct {
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
	return appendMessage(dst, r.Account.String(), r)
}

func appendMessage[T string | []byte](dst []byte, account T, r Row) []byte {
	dst = append(dst, `{"v":1,"chainId":"`...)
	dst = append(dst, account...)
	dst = append(dst, `","externalId":`...)
	dst = appendJSONString(dst, r.ExternalID)
	dst = append(dst, `,"importId":`...)
	dst = appendJSONString(dst, r.ImportID)
	dst = append(dst, `,"file":`...)
	dst = appendJSONString(dst, r.File)
	dst = append(dst, `,"line":`...)
	dst = strconv.AppendInt(dst, int64(r.Line), 10)
	return append(dst, '}')
}

// appendJSONString quotes s; what needs no escape, nearly everything, is copied without a detour through reflection.
func appendJSONString(dst []byte, s string) []byte {
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

// MessageError says why a message of the work topic cannot be processed. Such a message goes to the dead letters.
type MessageError struct {
	Class  string // "version", "syntax", "row" or "partition"
	Reason string
}

func (e *MessageError) Error() string { return e.Reason }

// ParseMessage reads a work message, strictly: version 1, no unknown fields, nothing behind the object, and a row that
// passes the importer's own checks. Errors are *MessageError.
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
	if err := CheckExternalID(w.ExternalID); err != nil {
		return Row{}, &MessageError{Class: "row", Reason: err.Error()}
	}
	if w.ImportID == "" || len(w.ImportID) > maxImportID || !printable(w.ImportID) {
		return Row{}, &MessageError{Class: "row", Reason: "importId is empty, too long or unprintable"}
	}
	if len(w.File) > maxFile || !printable(w.File) || w.Line < 0 {
		return Row{}, &MessageError{Class: "row", Reason: "file is too long or unprintable, or line is negative"}
	}
	return Row{Account: account, ExternalID: w.ExternalID, ImportID: w.ImportID, File: w.File, Line: w.Line}, nil
}

// readJSON reads any spelling of the message.
func readJSON(value []byte) (w wireRow, err error) {
	var version struct {
		V *int `json:"v"`
	}
	if err := json.Unmarshal(value, &version); err != nil {
		return w, &MessageError{Class: "syntax", Reason: "message is not a JSON object: " + err.Error()}
	}
	if version.V == nil {
		return w, &MessageError{Class: "version", Reason: "message has no version (field v)"}
	}
	if *version.V != MessageVersion {
		return w, &MessageError{Class: "version",
			Reason: fmt.Sprintf("message version %d is unknown: this program reads version %d", *version.V, MessageVersion)}
	}
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&w); err != nil {
		return w, &MessageError{Class: "syntax", Reason: "message: " + err.Error()}
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return w, &MessageError{Class: "syntax", Reason: "message has text behind its JSON object"}
	}
	return w, nil
}

// readPlain reads the message as AppendMessage spells it, which is how nearly all come, when no text in it needs an
// escape. It costs a fraction of readJSON, and a replay is little else than reading. What it does not know it leaves to
// that one.
func readPlain(text string) (w wireRow, ok bool) {
	w.V = MessageVersion
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

func printable(s string) bool {
	if needsNoEscape(s) && !strings.Contains(s, "\x7f") { // the usual text, without a look into tables
		return true
	}
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
