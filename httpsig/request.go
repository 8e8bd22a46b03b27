package httpsig

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"
)

// request is the source of a request's components. With an empty RequestURI, which net/http requires of clients, it is
// a request to be sent, otherwise a received request.
type request struct {
	*http.Request
	outer string // scheme that the client of a received request used; empty: https with TLS, otherwise http
}

func (r request) received() bool { return r.RequestURI != "" }

func (r request) has(c component) bool {
	if c.key == "" {
		return true
	}
	if _, special := r.special(c.name); special {
		return true
	}
	return len(r.Header[c.key]) > 0 && !r.ignored(c.name)
}

func (r request) hasQuery() bool {
	_, query, err := r.target()
	return err == nil && query != ""
}

func (r request) appendValue(dst []byte, c component) ([]byte, error) {
	if c.params != nil {
		return nil, componentError(c.name, ErrUnsupported, "component parameters are not supported")
	}
	if c.key != "" {
		return r.appendField(dst, c)
	}
	switch c.name {
	case "@method": // RFC 9421 §2.2.1: case-sensitive
		if r.Method == "" {
			return append(dst, http.MethodGet...), nil // the default of http.Client
		}
		return append(dst, r.Method...), nil
	case "@target-uri":
		return r.appendTargetURI(dst)
	case "@authority":
		scheme, err := r.scheme()
		if err != nil {
			return nil, err
		}
		return r.appendAuthority(dst, scheme)
	case "@scheme": // RFC 9421 §2.2.4: lower case
		scheme, err := r.scheme()
		return append(dst, scheme...), err
	case "@path":
		path, _, err := r.target()
		return append(dst, path...), err
	case "@query": // RFC 9421 §2.2.7: with the question mark; an absent query is "?"
		_, query, err := r.target()
		query = cmp.Or(query, "?")
		return append(dst, query...), err
	case "@request-target":
		return r.appendRequestTarget(dst)
	}
	return nil, componentError(c.name, ErrUnsupported, "component is not supported")
}

// appendField combines the field's lines (RFC 9421 §2.1): trimmed, unfolded and joined by a comma and a space.
func (r request) appendField(dst []byte, c component) ([]byte, error) {
	if value, special := r.special(c.name); special {
		return append(dst, value...), nil
	}
	values := r.Header[c.key]
	if len(values) == 0 || r.ignored(c.name) {
		return nil, componentError(c.name, ErrMissing, "the request has no such field")
	}
	for i, value := range values {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = appendUnfolded(dst, strings.Trim(value, " \t\r\n"))
	}
	return dst, nil
}

// appendUnfolded replaces each obsolete line folding (RFC 9112 §5.2), with the white space around it, by a single
// space.
func appendUnfolded(dst []byte, value string) []byte {
	for {
		i := strings.IndexByte(value, '\n')
		if i < 0 || i+1 == len(value) || (value[i+1] != ' ' && value[i+1] != '\t') {
			return append(dst, value...) // appendBase returns an error for a bare line break
		}
		dst = append(dst, strings.TrimRight(strings.TrimSuffix(value[:i], "\r"), " \t")...)
		dst = append(dst, ' ')
		value = strings.TrimLeft(value[i+1:], " \t")
	}
}

// special returns the fields that net/http keeps outside of Header: Host, and for a request to be sent Content-Length
// as the transport will write it.
func (r request) special(name string) (string, bool) {
	switch name {
	case "host":
		host := r.host()
		return host, host != ""
	case "content-length":
		if r.received() {
			return "", false
		}
		if r.ContentLength > 0 {
			return strconv.FormatInt(r.ContentLength, 10), true
		}
		if r.Body == nil || r.Body == http.NoBody {
			switch r.Method {
			case http.MethodPost, http.MethodPut, http.MethodPatch:
				return "0", true
			}
		}
	}
	return "", false
}

// ignored reports whether net/http ignores the field in Header, so that the value there must not be signed.
func (r request) ignored(name string) bool {
	switch name {
	case "host":
		return true
	case "content-length", "transfer-encoding", "trailer":
		return !r.received()
	}
	return false
}

func (r request) host() string {
	if r.Host == "" && !r.received() && r.URL != nil {
		return r.URL.Host
	}
	return r.Host
}

func (r request) scheme() (string, error) {
	var scheme string
	switch {
	case !r.received():
		if r.URL != nil {
			scheme = strings.ToLower(r.URL.Scheme)
		}
	case r.outer != "":
		scheme = r.outer
	case r.URL != nil && r.URL.Scheme != "":
		scheme = strings.ToLower(r.URL.Scheme) // absolute form
	case r.TLS != nil:
		scheme = "https"
	default:
		scheme = "http"
	}
	if scheme == "" {
		return "", componentError("@scheme", ErrRequest, "the request's URL has no scheme")
	}
	return scheme, nil
}

// appendAuthority writes the host in lower case, without the scheme's default port (RFC 9421 §2.2.3).
func (r request) appendAuthority(dst []byte, scheme string) ([]byte, error) {
	host := r.host()
	switch scheme {
	case "http":
		host = strings.TrimSuffix(host, ":80")
	case "https":
		host = strings.TrimSuffix(host, ":443")
	}
	host = strings.TrimSuffix(host, ":") // an empty port is the default port
	if host == "" {
		return nil, componentError("@authority", ErrRequest, "the request has no host")
	}
	for i := 0; i < len(host); i++ {
		c := host[i]
		if c <= 0x20 || c > 0x7e || strings.IndexByte("/?#@%\\", c) >= 0 {
			return nil, componentError("@authority", ErrRequest, "the request's host is not an ASCII host name with a port")
		}
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst, nil
}

// appendTargetURI writes the absolute URI (RFC 9421 §2.2.2), normalised according to RFC 9110 §4.2.3: scheme and host
// in lower case, no default port, "/" for an empty path.
func (r request) appendTargetURI(dst []byte) ([]byte, error) {
	scheme, err := r.scheme()
	if err != nil {
		return nil, err
	}
	path, query, err := r.target()
	if err != nil {
		return nil, err
	}
	dst = append(dst, scheme...)
	dst = append(dst, "://"...)
	if dst, err = r.appendAuthority(dst, scheme); err != nil {
		return nil, err
	}
	dst = append(dst, path...)
	return append(dst, query...), nil
}

// target returns the path ("/" if empty, RFC 9421 §2.2.6) and the query with its question mark (empty if absent), byte
// for byte as sent.
func (r request) target() (path, query string, err error) {
	if r.Method == http.MethodConnect || (!r.received() && r.URL == nil) {
		return "", "", componentError("@path", ErrRequest, "the request's target has no path")
	}
	if !r.received() {
		if r.URL.Opaque != "" {
			return "", "", componentError("@path", ErrRequest, "the request's URL is opaque")
		}
		path = r.URL.EscapedPath()
		if r.URL.RawQuery != "" || r.URL.ForceQuery {
			query = "?" + r.URL.RawQuery
		}
	} else {
		path = r.RequestURI
		if !strings.HasPrefix(path, "/") { // absolute form, RFC 9112 §3.2.2
			_, rest, ok := strings.Cut(path, "://")
			if !ok {
				return "", "", componentError("@path", ErrRequest, "the request's target has no path")
			}
			path = ""
			if i := strings.IndexAny(rest, "/?"); i >= 0 {
				path = rest[i:]
			}
		}
		if i := strings.IndexByte(path, '?'); i >= 0 {
			path, query = path[:i], path[i:]
		}
	}
	path = cmp.Or(path, "/")
	if path[0] != '/' {
		return "", "", componentError("@path", ErrRequest, "the request's path does not begin with a slash")
	}
	return path, query, nil
}

// appendRequestTarget writes the request target of the request line (RFC 9421 §2.2.5). For a request to be sent it is
// the origin form; an http request through a proxy has the absolute form, which is not supported.
func (r request) appendRequestTarget(dst []byte) ([]byte, error) {
	if r.received() {
		return append(dst, r.RequestURI...), nil
	}
	if r.Method == http.MethodConnect {
		return append(dst, r.host()...), nil
	}
	path, query, err := r.target()
	if err != nil {
		return nil, err
	}
	dst = append(dst, path...)
	return append(dst, query...), nil
}
