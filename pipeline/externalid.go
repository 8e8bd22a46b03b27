package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// CheckExternalID returns an error for an invalid externalId of an export or a message. It must pass CheckStoredID and
// not be damaged: no number in scientific notation or error value from a spreadsheet, no invisible character, no
// character that imitates another one, and composed (NFC) or decomposed (NFD) but not a mixture. Each of these has
// split one customer into two, or merged two.
func CheckExternalID(id string) error {
	if err := CheckStoredID(id); err != nil {
		return err
	}
	switch {
	case isPlain(id):
		return nil
	case isScientific(id):
		return errors.New("externalId is in a spreadsheet's scientific notation: " +
			"its digits are lost")
	case isErrorValue(id):
		return errors.New("externalId is an error value or placeholder of a spreadsheet")
	}
	ascii := true
	for i, r := range id {
		switch {
		case r < utf8.RuneSelf:
			continue
		case r == utf8.RuneError:
			return fmt.Errorf("externalId has the replacement character %U at byte %d: a conversion has lost a character",
				r, i+1)
		case isInvisible(r):
			return fmt.Errorf("externalId has the invisible character %U at byte %d", r, i+1)
		case '！' <= r && r <= '～': // full-width ASCII
			return fmt.Errorf("externalId has the full-width character %U at byte %d, which looks like %q", r, i+1,
				r-'！'+'!')
		case 0x1d400 <= r && r <= 0x1d7ff:
			return fmt.Errorf("externalId has the mathematical letter or digit %U at byte %d, which looks like an ordinary one",
				r, i+1)
		}
		ascii = false
	}
	switch {
	case ascii:
		return nil
	case inTypographicQuotes(id):
		return errors.New("externalId is in typographic quotes, which are not CSV quotes")
	case !norm.NFC.IsNormalString(id) && !norm.NFD.IsNormalString(id):
		return errors.New("externalId mixes composed and decomposed characters (Unicode NFC and NFD)")
	}
	return nil
}

// CheckStoredID returns an error for an invalid externalId of a ledger, which may be older than the rest of
// CheckExternalID: it must be present, valid UTF-8, printable, without space at either end, at most maxExternalID
// bytes, and not a spreadsheet formula.
func CheckStoredID(id string) error {
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

// OtherForms returns the other forms of an externalId that are canonically equivalent in Unicode (UAX #15): composed
// and decomposed.
func OtherForms(id string) []string {
	ascii := true
	for i := 0; i < len(id) && ascii; i++ {
		ascii = id[i] < utf8.RuneSelf
	}
	if ascii {
		return nil
	}
	var forms []string
	for _, form := range []norm.Form{norm.NFC, norm.NFD} {
		if other := form.String(id); other != id && !slices.Contains(forms, other) {
			forms = append(forms, other)
		}
	}
	return forms
}

// isScientific reports whether a text is a number as spreadsheets shorten long ones: 1.23457E+15, with a comma in some
// languages.
func isScientific(id string) bool {
	mantissa, exponent, ok := strings.Cut(strings.ToUpper(strings.TrimPrefix(id, "-")), "E+")
	whole, fraction, _ := strings.Cut(strings.Replace(mantissa, ",", ".", 1), ".")
	return ok && len(whole) == 1 && len(exponent) >= 2 && len(exponent) <= 3 &&
		isDigits(whole) && isDigits(fraction) && isDigits(exponent)
}

func isDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// isErrorValue reports whether a text is a spreadsheet's error value or placeholder.
func isErrorValue(id string) bool {
	if id[0] != '#' {
		return false
	}
	switch strings.ToUpper(id) {
	case "#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!", "#SPILL!", "#CALC!", "#GETTING_DATA",
		"#FIELD!", "#BLOCKED!", "#CONNECT!", "#BUSY!", "#UNKNOWN!", "#ERROR!", "#NV", "#BEZUG!", "#WERT!":
		return true
	}
	return strings.Trim(id, "#") == "" // a column that was too narrow
}

// isInvisible reports whether a character that counts as graphic is invisible: fillers, variation selectors and other
// default-ignorable characters.
func isInvisible(r rune) bool {
	switch r {
	case 0x2800, 0xfffc, 0x1d159: // the braille blank, the object replacement character, the null notehead
		return true
	}
	return unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// inTypographicQuotes reports whether a text is in the quotes that word processors substitute for straight quotes.
func inTypographicQuotes(id string) bool {
	const quotes = "“”„‟‘’‚‛«»‹›"
	first, size := utf8.DecodeRuneInString(id)
	last, _ := utf8.DecodeLastRuneInString(id[size:])
	return strings.ContainsRune(quotes, first) && last != utf8.RuneError && strings.ContainsRune(quotes, last)
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

// looksLikeFormula reports whether a spreadsheet would run the text: it begins with =, or with +, - or @ and is not
// just a telephone number or a handle.
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
