package signer

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Scheme returns the part of a signer URI before its first colon, in lower case (RFC 3986, section 3.1); "" if uri has
// none or an invalid scheme.
func Scheme(uri string) string {
	scheme, _, ok := strings.Cut(uri, ":")
	if !ok || scheme == "" {
		return ""
	}
	for i := 0; i < len(scheme); i++ {
		c := scheme[i] | 0x20
		switch {
		case c >= 'a' && c <= 'z':
		case i > 0 && (scheme[i] >= '0' && scheme[i] <= '9' || strings.IndexByte("+-.", scheme[i]) >= 0):
		default:
			return ""
		}
	}
	return strings.ToLower(scheme)
}

// URI is a signer URI that names a file or a directory, parsed and with its percent-escapes decoded.
type URI struct {
	Scheme string
	Path   string            // absolute after scheme:///path, relative to the working directory after scheme:path
	Params map[string]string // none of them empty
}

// ParseURI parses a URI of the form scheme:path?name=value&…, for backends that use files; those with a host use
// net/url. shape is the form of the URI, for the error. parameters are the allowed names, each at most once; none is
// required. A plus sign is literal. Every error is a *URIError.
func ParseURI(uri, shape string, parameters ...string) (URI, error) {
	scheme := Scheme(uri)
	fail := func(format string, a ...any) (URI, error) {
		return URI{}, &URIError{Scheme: scheme, Problem: fmt.Sprintf(format, a...), Shape: shape}
	}
	if scheme == "" {
		return fail("has no scheme")
	}
	rest := uri[len(scheme)+1:]
	if strings.Contains(rest, "#") {
		return fail("has a fragment (a # in a file name is written %%23)")
	}
	path, query, hasQuery := strings.Cut(rest, "?")
	if after, ok := strings.CutPrefix(path, "//"); ok {
		if !strings.HasPrefix(after, "/") {
			return fail("names a host (an absolute path follows three slashes, a relative one none)")
		}
		path = after
	}
	path, err := url.PathUnescape(path)
	if err != nil {
		return fail("has a malformed percent-escape in its path")
	}
	if path == "" || strings.ContainsRune(path, 0) {
		return fail("names no path")
	}
	u := URI{Scheme: scheme, Path: path, Params: map[string]string{}}
	if !hasQuery {
		return u, nil
	}
	for i, pair := range strings.Split(query, "&") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return fail("parameter %d is not name=value", i+1)
		}
		if !slices.Contains(parameters, name) {
			if len(name) > 24 {
				return fail("has an unknown parameter (number %d)", i+1)
			}
			return fail("has the unknown parameter %q", name)
		}
		if _, again := u.Params[name]; again {
			return fail("has parameter %q twice", name)
		}
		value, err := url.PathUnescape(value)
		if err != nil {
			return fail("has a malformed percent-escape in parameter %q", name)
		}
		if value == "" || strings.ContainsRune(value, 0) {
			return fail("has an empty parameter %q", name)
		}
		u.Params[name] = value
	}
	return u, nil
}

// URIError reports a malformed signer URI. Its text quotes no path and no value, because URIs may contain passwords.
type URIError struct {
	Scheme  string // empty when the URI has none
	Problem string // "has no password-file"
	Shape   string // "keystore:///directory?password-file=/file"
}

func (e *URIError) Error() string {
	subject := "signer URI"
	if e.Scheme != "" && len(e.Scheme) <= 24 { // a longer one is not a known scheme, and may be a key
		subject = "signer URI " + e.Scheme + ":…"
	}
	return fmt.Sprintf("%s %s (want %s)", subject, e.Problem, e.Shape)
}
