package pkcs11

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/purser-onboard/purser/signer"
)

// Shape is how the URI looks (RFC 7512, and the parameter sessions). Open says what else may stand in it.
const Shape = "pkcs11:token=label;object=label?module-path=/module.so&pin-source=file:/pin"

const (
	usualSessions = 4
	mostSessions  = 64
)

// location is a signer URI taken apart. An empty text means that the URI does not say.
type location struct {
	token, manufacturer, model, serial string
	slot                               *uint
	object                             string // CKA_LABEL that the keys must have
	id                                 string // CKA_ID that the key must have, as bytes
	module                             string
	pin                                pinSource
	sessions                           int
}

// named is the label in quotes and with a space before it, if the URI gives one.
func (w *location) named() string {
	if w.token == "" {
		return ""
	}
	return fmt.Sprintf(" %q", w.token)
}

// parseURI reads the URI by hand. The one library there is for Go (go-pkcs11uri) takes any attribute it does not know
// without a word and cannot be asked which there were, so that a misspelled serial= would choose another token; it
// knows a PIN by value; its errors quote values; and its release is a commit of 2023. Our tests hold what is accepted
// here against it.
//
// Every error is a *signer.URIError, which quotes no value: what is misplaced in a URI may be a PIN.
func parseURI(uri string) (location, error) {
	where := location{sessions: usualSessions}
	scheme := signer.Scheme(uri)
	fail := func(format string, a ...any) (location, error) {
		return location{}, &signer.URIError{Scheme: scheme, Problem: fmt.Sprintf(format, a...), Shape: Shape}
	}
	if scheme != "pkcs11" {
		return fail("is not of the scheme pkcs11")
	}
	path, query, hasQuery := strings.Cut(uri[len(scheme)+1:], "?")
	if strings.HasPrefix(path, "//") {
		return fail("names a host (attributes follow the colon at once)")
	}
	seen := map[string]bool{}
	read := func(part, separator string, set func(name, value string) string) string {
		for i, pair := range strings.Split(part, separator) {
			name, value, ok := strings.Cut(pair, "=")
			if !ok {
				return fmt.Sprintf("has an attribute that is not name=value, the %d. of its part", i+1)
			}
			shown := fmt.Sprintf("%q", name)
			if len(name) > 24 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz-") != "" {
				shown = fmt.Sprintf("that is the %d. of its part", i+1)
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

// setPath takes the attributes of RFC 7512, section 2.3, that choose a token and its keys.
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

// setQuery takes the attributes of RFC 7512, section 2.4, and ours.
func (w *location) setQuery(name, value string) (problem string) {
	switch name {
	case "module-path":
		// A bare name would be looked for along LD_LIBRARY_PATH, and what is found is given the PIN.
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

// wellFormed: what may stand in a URI at all (RFC 3986, section 2); the separators are gone by now.
func wellFormed(value string) bool {
	for i := 0; i < len(value); i++ {
		if c := value[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\^`{}#", c) >= 0 {
			return false
		}
	}
	return true
}
