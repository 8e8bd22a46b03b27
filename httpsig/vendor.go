package httpsig

import (
	"net"
	"net/http"
	"strings"
)

// message is a request whose components can be read and asked for.
type message interface {
	source
	// has reports whether the component has a value: derived ones always do, fields when they are in the message.
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

// authority keeps the port as it was sent: net/http leaves URL.Scheme of an origin-form request empty, and without a
// scheme no port is the default one.
func (r served) authority() string {
	host, port, err := net.SplitHostPort(r.Host)
	if scheme := strings.ToLower(r.URL.Scheme); err == nil && (scheme == "http" && port == "80" ||
		scheme == "https" && port == "443") {
		return strings.ToLower(host)
	}
	return strings.ToLower(r.Host)
}

// appendField collapses white space and puts one space behind each comma, in structured fields and others alike. Host
// cannot be covered: net/http moves it out of the header.
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
