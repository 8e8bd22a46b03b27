package pkcs11

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/purser-onboard/purser/secretfile"
	"github.com/purser-onboard/purser/signer"
)

// pinVariable is where the PIN is looked for when the URI has no pin-source.
const pinVariable = "PURSER_PKCS11_PIN"

// mostPIN: tokens say at most 255 (CK_TOKEN_INFO.ulMaxPinLen); AWS CloudHSM's is a user's name and password.
const mostPIN = 1 << 10

// pinSource is where the PIN is: in a file or in a variable, neither meaning pinVariable.
type pinSource struct {
	file     string
	variable string
}

// parsePINSource takes file:/path, file:///path, /path, and env:NAME. RFC 7512, section 2.4, leaves to the reader which
// URIs it knows; others know |command as well, but nothing that Purser runs is said in a URI.
func parsePINSource(value string) (pinSource, string) {
	const want = "has a pin-source that is neither file: and an absolute path nor env: and a variable's name"
	if name, ok := strings.CutPrefix(value, "env:"); ok {
		if name == "" || strings.ContainsAny(name, "= \t\r\n") {
			return pinSource{}, want
		}
		return pinSource{variable: name}, ""
	}
	path, isURI := strings.CutPrefix(value, "file:")
	if isURI {
		if after, ok := strings.CutPrefix(path, "//"); ok {
			path = strings.TrimPrefix(after, "localhost") // RFC 8089, section 2
		}
		var err error
		if path, err = url.PathUnescape(path); err != nil {
			return pinSource{}, "has a pin-source with a malformed percent-escape"
		}
	}
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return pinSource{}, want
	}
	return pinSource{file: filepath.Clean(path)}, ""
}

// read gives the PIN, without the newline that editors leave at its end. exposed says that everybody on the machine may
// read the file; Check tells the operator. No error holds any of the PIN.
func (s pinSource) read(getenv func(string) string, insecure bool) (pin []byte, exposed bool, err error) {
	if s.file != "" {
		pin, exposed, err = readPIN(s.file, insecure)
		if err != nil {
			return nil, false, fmt.Errorf("%w: the file of pin-source %w", signer.ErrUnusable, err)
		}
		return pin, exposed, nil
	}
	name := s.variable
	if name == "" {
		name = pinVariable
	}
	if getenv != nil {
		pin = []byte(getenv(name))
	}
	shown := "variable " + name
	if name != strings.ToUpper(name) { // perhaps a PIN that was taken for a name
		shown = "variable that pin-source names"
	}
	if s.variable == "" {
		shown += " (there is no pin-source)"
	}
	// A PIN that is surely none must not cost one of the few tries a device grants.
	if len(pin) > mostPIN {
		err = fmt.Errorf("has more than %d bytes", mostPIN)
	} else {
		pin, err = secretfile.Line(pin)
	}
	if err != nil {
		return nil, false, fmt.Errorf("%w: PIN in the %s %w", signer.ErrUnusable, shown, err)
	}
	return pin, false, nil
}

func readPIN(path string, insecure bool) (pin []byte, exposed bool, err error) {
	pin, exposed, err = secretfile.Read(path, mostPIN, insecure)
	if err != nil {
		return nil, false, err
	}
	line, err := secretfile.Line(pin)
	if err != nil {
		clear(pin)
		return nil, false, err
	}
	return line, exposed, nil
}
