package siwe

import (
	"fmt"
	"net/netip"
	"strings"
)

// uriParts are the parts of a URI that the policy checks.
type uriParts struct {
	scheme    string
	authority string // empty also when the URI has none
	tail      string // path, query and fragment with their delimiters, as written
}

// splitURI checks s against the rule URI of RFC 3986 (appendix A) and splits it. net/url is not used because it accepts
// and repairs more than the grammar allows, and an attacker can exploit what two parsers read differently.
func splitURI(s string) (parts uriParts, problem string) {
	scheme, rest, found := strings.Cut(s, ":")
	if !found || !isScheme(scheme) {
		return parts, "does not begin with a scheme and a colon"
	}
	parts.scheme, parts.tail = scheme, rest
	rest, fragment, _ := strings.Cut(rest, "#")
	if i := notIn(fragment, inQuery); i >= 0 {
		return parts, fmt.Sprintf("%s in the fragment", quote(fragment[i:i+1]))
	}
	rest, query, _ := strings.Cut(rest, "?")
	if i := notIn(query, inQuery); i >= 0 {
		return parts, fmt.Sprintf("%s in the query", quote(query[i:i+1]))
	}
	path := rest
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		parts.authority, path = after, ""
		if i := strings.IndexByte(after, '/'); i >= 0 {
			parts.authority, path = after[:i], after[i:]
		}
		parts.tail = parts.tail[len("//")+len(parts.authority):]
		if problem := checkAuthority(parts.authority); problem != "" {
			return parts, problem
		}
	}
	if i := notIn(path, inPath); i >= 0 {
		return parts, fmt.Sprintf("%s in the path", quote(path[i:i+1]))
	}
	return parts, ""
}

// checkAuthority checks s against the rule authority, [ userinfo "@" ] host [ ":" port ].
func checkAuthority(s string) (problem string) {
	host := s
	if userinfo, after, found := strings.Cut(s, "@"); found {
		if i := notIn(userinfo, inUserinfo); i >= 0 {
			return fmt.Sprintf("%s in the user information", quote(userinfo[i:i+1]))
		}
		host = after
	}
	var port string
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return "an IP literal without its closing bracket"
		}
		if !isIPLiteral(host[1:end]) {
			return fmt.Sprintf("%s is not an IP literal", quote(host[:end+1]))
		}
		after := host[end+1:]
		if after != "" && after[0] != ':' {
			return fmt.Sprintf("%s after an IP literal", quote(after))
		}
		port = strings.TrimPrefix(after, ":")
	} else {
		var name string
		name, port, _ = strings.Cut(host, ":")
		if i := notIn(name, inRegName); i >= 0 {
			return fmt.Sprintf("%s in the host", quote(name[i:i+1]))
		}
	}
	if i := notIn(port, isDigit); i >= 0 {
		return fmt.Sprintf("port %s is not a number", quote(port))
	}
	return ""
}

// isIPLiteral reports whether s may be between the brackets of an IP literal: an IPv6 address without a zone (netip
// accepts exactly the grammar's forms), or IPvFuture.
func isIPLiteral(s string) bool {
	if s != "" && (s[0] == 'v' || s[0] == 'V') {
		version, rest, found := strings.Cut(s[1:], ".")
		return found && version != "" && notIn(version, isHexDigit) < 0 && rest != "" &&
			notIn(rest, func(r rune) bool { return isUnreserved(r) || isSubDelim(r) || r == ':' }) < 0
	}
	address, err := netip.ParseAddr(s)
	return err == nil && address.Is6() && address.Zone() == ""
}

func isScheme(s string) bool {
	return s != "" && isAlpha(rune(s[0])) &&
		notIn(s, func(r rune) bool { return isAlpha(r) || isDigit(r) || r == '+' || r == '-' || r == '.' }) < 0
}

// notIn returns the index of the first byte of s that is not in the class, or -1. Where the class has '%', it must
// begin a pct-encoded octet.
func notIn(s string, class func(rune) bool) int {
	for i := 0; i < len(s); i++ {
		if !class(rune(s[i])) {
			return i
		}
		if s[i] == '%' {
			if i+2 >= len(s) || !isHexDigit(rune(s[i+1])) || !isHexDigit(rune(s[i+2])) {
				return i
			}
			i += 2
		}
	}
	return -1
}

func inRegName(r rune) bool  { return isUnreserved(r) || isSubDelim(r) || r == '%' }
func inUserinfo(r rune) bool { return inRegName(r) || r == ':' }
func isPchar(r rune) bool    { return inUserinfo(r) || r == '@' }
func inPath(r rune) bool     { return isPchar(r) || r == '/' }
func inQuery(r rune) bool    { return inPath(r) || r == '?' }

// inStatement is reserved / unreserved / " ": of the printable ASCII characters all but "%<>\^`{|}.
func inStatement(r rune) bool {
	return r == ' ' || isUnreserved(r) || isSubDelim(r) || isOneOf(r, ":/?#[]@")
}

func isUnreserved(r rune) bool { return isAlpha(r) || isDigit(r) || isOneOf(r, "-._~") }
func isSubDelim(r rune) bool   { return isOneOf(r, "!$&'()*+,;=") }
func isAlpha(r rune) bool      { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
func isDigit(r rune) bool      { return r >= '0' && r <= '9' }

func isHexDigit(r rune) bool {
	return isDigit(r) || r >= 'a' && r <= 'f' || r >= 'A' && r <= 'F'
}

func isOneOf(r rune, set string) bool { return strings.ContainsRune(set, r) }
