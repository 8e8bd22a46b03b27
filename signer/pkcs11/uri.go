package pkcs11

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/purser-onboard/purser/signer"
)

// Shape is how the URI looks (RFC 7512, and the parameter sessions). Modules.Open lists all attributes.
const Shape = "pkcs11:token=label;object=label?module-path=/module.so&pin-source=file:/pin"

const (
	usualSessions = 4
	mostSessions  = 64
)

// location is a parsed signer URI. An attribute that the URI does not have is empty.
type location struct {
	token, manufacturer, model, serial string
	slot                               *uint
	object                             string // CKA_LABEL that the keys must have
	id                                 string // CKA_ID that the key must have, as bytes
	module                             string
	pin                                pinSource
	sessions                           int
}

// named returns the label in quotes, after a space, if the URI has one.
func (w *location) named() string {
	if w.token == "" {
		return ""
	}
	return fmt.Sprintf(" %q", w.token)
}

// parseURI parses the URI without Go's one library for it, go-pkcs11uri, which ignores unknown attributes, so that a
// misspelled serial= would choose another token; accepts a PIN in the URI; quotes values in its errors; and was last
// released in 2023. Our tests compare the results with it.
//
// Every error is a *signer.URIError, which quotes no value, because a misplaced value may be a PIN.
func parseURI(uri string) (location, error) {
	where := location{sessions: usualSessions}
	scheme := signer.Scheme(uri)
	fail := func(format string, a ...any) (location, error) {
		return location{}, &signer.URIError{Scheme: scheme, Problem: fmt.Sprintf(format, a...), Shape: Shape}
	}
	if scheme != "pkcs11" {
		return fail("does not have the scheme pkcs11")
	}
	path, query, hasQuery := strings.Cut(uri[len(scheme)+1:], "?")
	if strings.HasPrefix(path, "//") {
		return fail("names a host (attributes must follow the colon directly)")
	}
	seen := map[string]bool{}
	read := func(part, separator string, set func(name, value string) string) string {
		for i, pair := range strings.Split(part, separator) {
			name, value, ok := strings.Cut(pair, "=")
			if !ok {
				return fmt.Sprintf("has an attribute that is not name=value (number %d of its part)", i+1)
			}
			shown := fmt.Sprintf("%q", name)
			if len(name) > 24 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz-") != "" {
				shown = fmt.Sprintf("number %d of its part", i+1)
			}
			if strings.EqualFold(name, "pin-value") {
				return "has a pin-value: a PIN in a URI shows in process lists and logs; " +
					"put it into a file only Purser can read and name that as pin-source"
			}
			if seen[name] {
				return fmt.Sprintf("has attribute %s twice", shown)
			}
			seen[name] = true
			if !wellFormed(value) {
				return fmt.Sprintf("has an unescaped character in attribute %s (a space is written %%20)", shown)
			}
			value, err := url.PathUnescape(value)
			if err != nil {
				return fmt.Sprintf("has a malformed percent-escape in attribute %s", shown)
			}
			if value == "" || strings.ContainsRune(value, 0) {
				return fmt.Sprintf("has an empty attribute %s", shown)
			}
			switch problem := set(name, value); problem {
			case "":
			case unknown:
				return fmt.Sprintf("has the unknown attribute %s", shown)
			default:
				return problem
			}
		}
		return ""
	}
	if path != "" {
		if problem := read(path, ";", where.setPath); problem != "" {
			return fail("%s", problem)
		}
	}
	if hasQuery {
		if problem := read(query, "&", where.setQuery); problem != "" {
			return fail("%s", problem)
		}
	}
	if where.module == "" {
		return fail("has no module-path")
	}
	return where, nil
}

const unknown = "unknown"

// setPath sets the attributes of RFC 7512, section 2.3, that choose a token and its keys.
func (w *location) setPath(name, value string) (problem string) {
	switch name {
	case "token":
		w.token = value
	case "manufacturer":
		w.manufacturer = value
	case "model":
		w.model = value
	case "serial":
		w.serial = value
	case "slot-id":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return "has a slot-id that is not a number"
		}
		slot := uint(n)
		w.slot = &slot
	case "object":
		w.object = value
	case "id":
		w.id = value
	case "type":
		if value != "private" {
			return "has a type other than private"
		}
	default:
		return unknown
	}
	return ""
}

// setQuery sets the attributes of RFC 7512, section 2.4, and ours.
func (w *location) setQuery(name, value string) (problem string) {
	switch name {
	case "module-path":
		// A bare name would be searched in LD_LIBRARY_PATH, and the library that is found there would get the PIN.
		if !filepath.IsAbs(value) {
			return "has a module-path that is not absolute"
		}
		w.module = filepath.Clean(value)
	case "pin-source":
		w.pin, problem = parsePINSource(value)
		return problem
	case "sessions":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > mostSessions {
			return fmt.Sprintf("has sessions that are not a number from 1 to %d", mostSessions)
		}
		w.sessions = n
	default:
		return unknown
	}
	return ""
}

// wellFormed reports whether value has only characters that a URI may have (RFC 3986, section 2), without separators.
func wellFormed(value string) bool {
	for i := 0; i < len(value); i++ {
		if c := value[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\^`{}#", c) >= 0 {
			return false
		}
	}
	return true
}
