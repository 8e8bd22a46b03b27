package remote

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/purser-onboard/purser/loopback"
	"github.com/purser-onboard/purser/signer"
)

// The parameters that an https URI may have.
const (
	caFile   = "ca-file"   // PEM certificates that are trusted instead of the system's
	certFile = "cert-file" // our own PEM certificate, and those between it and its root
	keyFile  = "key-file"  // its PEM key
)

// address is a remote signer's parsed URI.
type address struct {
	scheme string // as in the URI: "clef+http"
	socket string // path of a Unix socket; empty for HTTP
	secure bool   // TLS
	host   string // with the port, if there is one
	path   string // of the URL, as it was written; may be empty
	params map[string]string
}

// name returns the address for messages.
func (a address) name() string {
	switch {
	case a.socket != "":
		return "unix:" + a.socket
	case a.secure:
		return "https://" + a.host
	}
	return "http://" + a.host
}

// url returns the URL of path, which begins with no slash, below the address's own path, or of the address if path is
// empty.
func (a address) url(path string) string {
	scheme := "http://"
	if a.secure {
		scheme = "https://"
	}
	if path == "" {
		return scheme + a.host + a.path
	}
	return scheme + a.host + strings.TrimSuffix(a.path, "/") + "/" + path
}

// exposed reports whether the connection is in clear text between machines: others on the network can read what is
// signed and ask for signatures.
func (a address) exposed() bool {
	return a.socket == "" && !a.secure && !loopback.Is((&url.URL{Host: a.host}).Hostname())
}

// parseAddress parses kind+http://…, kind+https://… and, if sockets are allowed, kind+unix:///…. Every error is a
// *signer.URIError.
func parseAddress(uri, kind, shape string, sockets bool) (address, error) {
	a := address{scheme: signer.Scheme(uri)}
	fail := func(problem string) (address, error) {
		return address{}, &signer.URIError{Scheme: a.scheme, Problem: problem, Shape: shape}
	}
	if a.scheme == "" {
		return fail("has no scheme")
	}
	switch a.scheme {
	case kind + "+https":
		a.secure = true
	case kind + "+http":
	case kind + "+unix":
		if !sockets {
			return fail("names a socket, but only HTTP is supported")
		}
		u, err := signer.ParseURI(uri, shape)
		a.socket = u.Path
		return a, err
	default:
		return fail("is of another scheme")
	}
	rest, query, hasQuery := strings.Cut(uri[len(a.scheme)+1:], "?")
	u, err := url.Parse("http:" + rest)
	switch {
	case err != nil: // its text quotes the whole URI
		return fail("is malformed after its scheme")
	case u.User != nil:
		return fail("has a user or password in it, which are not sent")
	case u.Fragment != "" || strings.Contains(query, "#"):
		return fail("has a fragment")
	case u.Opaque != "" || u.Hostname() == "":
		return fail("names no host")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fail("has a port that is not from 1 to 65535")
		}
	}
	a.host = strings.TrimSuffix(u.Host, ":")
	a.path = u.EscapedPath()
	if !hasQuery {
		return a, nil
	}
	if !a.secure {
		return fail("has parameters, which only https takes")
	}
	p, err := signer.ParseURI(a.scheme+":files?"+query, shape, caFile, certFile, keyFile)
	if err != nil {
		return address{}, err
	}
	if (p.Params[certFile] == "") != (p.Params[keyFile] == "") {
		return fail("has one of cert-file and key-file without the other")
	}
	a.params = p.Params
	return a, nil
}
