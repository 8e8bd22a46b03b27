package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/purser-onboard/purser/printable"
)

// mostQuoted limits how much of a client's input an error quotes, in bytes.
const mostQuoted = 60

// decodeStrings reads a JSON object whose members are exactly names, each a string, each once, with nothing after the
// object. encoding/json alone would also accept names in another case, repeated names and invalid UTF-8.
func decodeStrings(body []byte, names ...string) (map[string]string, error) {
	if !utf8.Valid(body) {
		return nil, errors.New("body is not valid UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("body is not a JSON object")
	}
	out := make(map[string]string, len(names))
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, errors.New("body is not valid JSON")
		}
		name, _ := t.(string)
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("unknown field %s", printable.Quote(name, mostQuoted))
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("field %q occurs twice", name)
		}
		if t, err = dec.Token(); err != nil {
			return nil, errors.New("body is not valid JSON")
		}
		value, ok := t.(string)
		if !ok {
			return nil, fmt.Errorf("field %q is not a string", name)
		}
		out[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("body is not valid JSON")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("body has data after its JSON object")
	}
	for _, name := range names {
		if _, ok := out[name]; !ok {
			return nil, fmt.Errorf("field %q is missing", name)
		}
	}
	return out, nil
}

func isJSON(contentType []string) bool {
	if len(contentType) != 1 {
		return false
	}
	media, params, err := mime.ParseMediaType(contentType[0])
	if err != nil || media != "application/json" {
		return false
	}
	for name, value := range params {
		if name != "charset" || !strings.EqualFold(value, "utf-8") {
			return false
		}
	}
	return true
}

// account is a CAIP-10 account id as it was sent, and its parts.
type account struct {
	text    string
	folded  string // lower case: what is compared
	chain   uint64
	address string // 0x and 40 hex digits, in the case as sent
}

// parseAccount checks the syntax of CAIP-10, and that the account can have a challenge. Challenges are "currently
// only supported on EVM networks" [doc], so other namespaces are a 400 [inferred]. A wrong EIP-55 checksum is
// accepted and the text kept as it was sent. [inferred]
func parseAccount(text string) (account, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 ||
		!consistsOf(parts[0], 3, 8, "-", false) || !consistsOf(parts[1], 1, 32, "-_", true) ||
		!consistsOf(parts[2], 1, 128, "-.%", true) {
		return account{}, errors.New("is not a CAIP-10 account id")
	}
	if parts[0] != "eip155" {
		return account{}, fmt.Errorf("namespace %q is not supported: challenges need an EVM network (eip155)", parts[0])
	}
	chain, err := strconv.ParseUint(parts[1], 10, 63)
	if err != nil || chain == 0 || parts[1] != strconv.FormatUint(chain, 10) {
		return account{}, errors.New("has no decimal EIP-155 chain id")
	}
	if !isHex(parts[2], 40) {
		return account{}, errors.New("has no address of 0x and 40 hex digits")
	}
	return account{text, strings.ToLower(text), chain, parts[2]}, nil
}

// consistsOf reports whether s has least to most characters, all of them lower-case letters, digits, in more, or, if
// upper, upper-case letters.
func consistsOf(s string, least, most int, more string, upper bool) bool {
	if len(s) < least || len(s) > most {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		ok := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || upper && c >= 'A' && c <= 'Z' || strings.IndexByte(more, c) >= 0
		if !ok {
			return false
		}
	}
	return true
}

// isHex reports whether s is 0x and that many hex digits.
func isHex(s string, digits int) bool {
	if len(s) != digits+2 || s[0] != '0' || s[1] != 'x' {
		return false
	}
	for i := 2; i < len(s); i++ {
		if !isHexDigit(s[i]) {
			return false
		}
	}
	return true
}

func isHexDigit(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func checkExternalID(id string) error {
	switch {
	case id == "":
		return errors.New("is empty")
	case len(id) > 255:
		return fmt.Errorf("has %d bytes, at most 255 are allowed", len(id))
	}
	for _, r := range id {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("has the unprintable character %U", r)
		}
	}
	return nil
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if !isHexDigit(c) {
			return false
		}
	}
	return true
}
