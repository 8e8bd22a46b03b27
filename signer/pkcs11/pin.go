package pkcs11

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/purser-onboard/purser/secretfile"
	"github.com/purser-onboard/purser/signer"
)

// pinVariable is the variable that holds the PIN when the URI has no pin-source.
const pinVariable = "PURSER_PKCS11_PIN"

// mostPIN bounds a PIN. Tokens allow at most 255 bytes (CK_TOKEN_INFO.ulMaxPinLen); AWS CloudHSM's is a user's name and
// password.
const mostPIN = 1 << 10

// pinSource is where the PIN is: in a file, in a variable, or, if both are empty, in pinVariable.
type pinSource struct {
	file     string
	variable string
}

// parsePINSource accepts file:/path, file:///path, /path, and env:NAME. RFC 7512, section 2.4, lets the reader choose;
// other programs also accept |command, but Purser runs no program that a URI names.
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

// read returns the PIN without the newline at its end. exposed reports whether everybody on the machine may read the
// file, which Check reports. No error contains a part of the PIN.
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
	if name != strings.ToUpper(name) { // it may be a PIN instead of a name
		shown = "variable that pin-source names"
	}
	if s.variable == "" {
		shown += " (there is no pin-source)"
	}
	// A text that cannot be a PIN must not cost one of the few tries that a device allows.
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
