package awskms

import (
	"net/url"
	"strings"

	"github.com/purser-onboard/purser/loopback"
	"github.com/purser-onboard/purser/signer"
)

const (
	scheme        = "awskms"
	defaultPrefix = "alias/purser/"
	// mostAlias is the most characters of an alias's name (API_CreateAlias); the address takes 42 of them.
	mostAlias = 256
)

// settings is a parsed URI.
type settings struct {
	region   string // empty: from the environment or a profile
	prefix   string
	endpoint string // empty: the region's own
	loopback bool   // endpoint is on this machine
}

func parse(uri string) (settings, error) {
	u, err := signer.ParseURI(uri, Shape, "region", "alias-prefix", "endpoint")
	if err != nil {
		return settings{}, err
	}
	fail := func(problem string) (settings, error) {
		return settings{}, &signer.URIError{Scheme: u.Scheme, Problem: problem, Shape: Shape}
	}
	if u.Scheme != scheme {
		return fail("is not an " + scheme)
	}
	if u.Path != "/" {
		return fail("has a path (everything is in its parameters)")
	}
	s := settings{region: u.Params["region"], prefix: u.Params["alias-prefix"], endpoint: u.Params["endpoint"]}
	if s.prefix == "" {
		s.prefix = defaultPrefix
	}
	if !only(s.region, "-") { // it becomes a part of host names
		return fail("has a region with characters other than a-z, 0-9 and -")
	}
	switch {
	case !strings.HasPrefix(s.prefix, "alias/"), strings.HasPrefix(s.prefix, "alias/aws/"):
		return fail("has an alias-prefix that does not begin with alias/, or begins with alias/aws/, which are AWS's own")
	case len(s.prefix) > mostAlias-42 || !only(strings.ToLower(s.prefix), "/_-"):
		return fail("has an alias-prefix that is too long or has characters other than a-z, A-Z, 0-9, /, _ and -")
	}
	if s.endpoint == "" {
		return s, nil
	}
	endpoint, err := url.Parse(s.endpoint)
	switch {
	case err != nil || endpoint.Hostname() == "":
		return fail("has an endpoint that is not a URL")
	case endpoint.User != nil, endpoint.RawQuery != "", endpoint.Fragment != "", strings.Trim(endpoint.Path, "/") != "":
		return fail("has an endpoint with more than scheme, host and port")
	}
	s.loopback = loopback.Is(endpoint.Hostname())
	if endpoint.Scheme != "https" && (endpoint.Scheme != "http" || !s.loopback) {
		return fail("has an endpoint that is neither https nor on a loopback address")
	}
	return s, nil
}

// only reports whether s consists of a-z, 0-9 and the characters of more.
func only(s, more string) bool {
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789"+more) == ""
}
