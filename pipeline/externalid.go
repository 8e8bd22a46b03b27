package pipeline

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

func checkExternalID(id string) error {
	switch {
	case id == "":
		return errors.New("externalId is empty")
	case len(id) > maxExternalID:
		return fmt.Errorf("externalId has %d bytes, at most %d are allowed", len(id), maxExternalID)
	case !utf8.ValidString(id):
		return errors.New("externalId is not valid UTF-8")
	}
	if isPlain(id) {
		return nil
	}
	for i, r := range id {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("externalId has the unprintable character %U at byte %d", r, i+1)
		}
	}
	if id[0] == ' ' || id[len(id)-1] == ' ' {
		return errors.New("externalId begins or ends with a space")
	}
	if looksLikeFormula(id) {
		return errors.New("externalId looks like a spreadsheet formula")
	}
	return nil
}

// isPlain is the fast path: most ids are letters, digits and a few signs, beginning with a letter or digit.
func isPlain(id string) bool {
	for i := 0; i < len(id); i++ {
		c := id[i]
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case i > 0 && (c == '-' || c == '_' || c == '.' || c == ':'):
		default:
			return false
		}
	}
	return true
}

// looksLikeFormula reports whether a spreadsheet would run the text: it begins with =, or with +, - or @ and goes on
// like more than a telephone number or a handle.
func looksLikeFormula(id string) bool {
	for _, wide := range []string{"＝", "＋", "－", "＠"} { // spreadsheets take these for the narrow ones
		if strings.HasPrefix(id, wide) {
			return true
		}
	}
	switch id[0] {
	case '=':
		return true
	case '+', '-', '@':
		for i := 1; i < len(id); i++ {
			c := id[i]
			plain := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' ||
				c == '-' || c == '_' || c == '.' || c == '@' || c == ':'
			if !plain {
				return true
			}
		}
	}
	return false
}
