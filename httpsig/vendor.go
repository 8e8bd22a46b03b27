package httpsig

import (
	"net"
	"net/http"
	"strings"
)

// message is the source of a request to verify.
type message interface {
	source
	// has reports whether the component has a value. Derived components always have; a field has if the message has it.
	has(c component) bool
	hasQuery() bool
}

// served is a received request as the partner's own server library reads it (VerifyOptions.Vendor).
type served struct{ *http.Request }

func (r served) has(c component) bool { return c.key == "" || len(r.Header[c.key]) > 0 }

func (r served) hasQuery() bool { return r.URL.RawQuery != "" || r.URL.ForceQuery }

func (r served) appendValue(dst []byte, c component) ([]byte, error) {
	if c.params != nil {
		return nil, componentError(c.name, ErrUnsupported, "component parameters are not supported")
	}
	if c.key != "" {
		return r.appendField(dst, c)
	}
	switch c.name {
	case "@method":
		return append(dst, strings.ToUpper(r.Method)...), nil
	case "@target-uri":
		return append(dst, r.URL.String()...), nil
	case "@authority":
		return append(dst, r.authority()...), nil
	case "@scheme":
		return append(dst, strings.ToLower(r.URL.Scheme)...), nil
	case "@path":
		path := r.URL.EscapedPath()
		if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		return append(dst, path...), nil
	case "@query":
		return append(append(dst, '?'), r.URL.RawQuery...), nil
	case "@request-target":
		return append(dst, r.URL.RequestURI()...), nil
	}
	return nil, componentError(c.name, ErrUnsupported, "component is not supported")
}

// authority keeps the port of an origin-form request: net/http leaves its URL.Scheme empty, and without a scheme there
// is no default port.
func (r served) authority() string {
	host, port, err := net.SplitHostPort(r.Host)
	if scheme := strings.ToLower(r.URL.Scheme); err == nil && (scheme == "http" && port == "80" ||
		scheme == "https" && port == "443") {
		return strings.ToLower(host)
	}
	return strings.ToLower(r.Host)
}

// appendField collapses white space and puts a single space after each comma, in structured and other fields. Host
// cannot be covered, because net/http moves it out of the header.
func (r served) appendField(dst []byte, c component) ([]byte, error) {
	values := r.Header[c.key]
	if len(values) == 0 {
		return nil, componentError(c.name, ErrMissing, "the request has no such field")
	}
	for i, value := range values {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		for j, part := range strings.Split(value, ",") {
			if j > 0 {
				dst = append(dst, ", "...)
			}
			dst = append(dst, strings.Join(strings.Fields(part), " ")...)
		}
	}
	return dst, nil
}
