package config

import (
	"cmp"
	"crypto/x509"
	"errors"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"github.com/purser-onboard/purser/loopback"
)

// parseAPIURL reads the API's base URL and brings it into its one form, which Host, the covered authority, the default
// challenge domain and the ledger's environment share: scheme and host in lower case, no default or empty port, no
// trailing dot of the host, IPv6 as RFC 5952 writes it, no slash at the end of the path.
func parseAPIURL(raw string) (*url.URL, error) {
	base, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, &Error{"--api-url", "", "is not a URL"} // url.Parse quotes its input, which may hold a password
	case base.User != nil:
		return nil, &Error{"--api-url", base.Redacted(), "must not contain a user name or password"}
	case base.Scheme != "https" && base.Scheme != "http" || base.Host == "" ||
		base.RawQuery != "" || base.ForceQuery || base.Fragment != "":
		return nil, &Error{"--api-url", raw, "want https://host/path"}
	}
	if base.Host, err = CanonicalHost(base.Scheme, base.Host); err != nil {
		return nil, &Error{"--api-url", raw, err.Error()}
	}
	if base.Scheme == "http" && !loopback.Is(base.Hostname()) {
		return nil, &Error{"--api-url", raw, "credentials are sent only over https, or over http to loopback"}
	}
	trimmed := strings.TrimRight(base.EscapedPath(), "/")
	if trimmed != "" && path.Clean(trimmed) != trimmed {
		return nil, &Error{"--api-url", raw, `its path must have no empty, "." or ".." segment`}
	}
	base.Path, base.RawPath = strings.TrimRight(base.Path, "/"), strings.TrimRight(base.RawPath, "/")
	return base, nil
}

// checkProxy refuses a proxy's URL that net/http would ignore, or take for another, and so connect past the proxy.
func checkProxy(api *url.URL, getenv func(string) string) error {
	proxy := cmp.Or(getenv("HTTPS_PROXY"), getenv("https_proxy"))
	exempt := httpproxy.Config{HTTPSProxy: "any", NoProxy: cmp.Or(getenv("NO_PROXY"), getenv("no_proxy"))}
	if through, err := exempt.ProxyFunc()(api); proxy == "" || through == nil || err != nil {
		return nil
	}
	if !strings.Contains(proxy, "://") {
		proxy = "http://" + proxy
	}
	u, err := url.Parse(proxy)
	if err != nil || u.Hostname() == "" || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") {
		return &Error{"HTTPS_PROXY", "", "is not a proxy's URL, http://host:port: special characters of a user name or " +
			"password must be percent-encoded, such as %23 for #"}
	}
	return nil
}

// CanonicalHost normalises host[:port] of a URL of that scheme; see parseAPIURL. Errors say what is wrong with the host
// and do not repeat it.
func CanonicalHost(scheme, hostport string) (string, error) {
	u, err := url.Parse("//" + hostport)
	if err != nil || u.User != nil || u.Host != hostport {
		return "", errors.New("want a host, or host:port")
	}
	host, err := canonicalName(u.Hostname())
	if err != nil {
		return "", err
	}
	if u.Port() == "" {
		return host, nil
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case err != nil || port == 0:
		return "", errors.New("its port must be between 1 and 65535")
	case scheme == "https" && port == 443, scheme == "http" && port == 80:
		return host, nil
	}
	return host + ":" + strconv.FormatUint(port, 10), nil
}

func canonicalName(host string) (string, error) {
	if strings.Contains(host, ":") {
		ip, err := netip.ParseAddr(host)
		if err != nil {
			return "", errors.New("its host is not an IPv6 address")
		}
		return "[" + ip.String() + "]", nil
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	for _, r := range host {
		switch {
		case r > '~':
			return "", errors.New("its host is an internationalized name: use its ASCII form, which begins with xn--")
		case (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.':
			return "", errors.New("its host may contain only letters, digits, hyphens, underscores and dots")
		}
	}
	if strings.HasPrefix(host, ".") || strings.Contains(host, "..") || host == "" || len(host) > 253 {
		return "", errors.New("its host is not a domain name")
	}
	return host, nil
}

// Authorities reads the certificates of --api-ca; nil without it: the system's certificates are used.
func (p Partner) Authorities() (*x509.CertPool, error) {
	switch {
	case p.APICA == "":
		return nil, nil
	case strings.HasPrefix(p.APIURL, "http://"):
		return nil, &Error{"--api-ca", p.APICA, "has no effect with an http API URL"}
	}
	return readAuthorities("--api-ca", p.APICA)
}
