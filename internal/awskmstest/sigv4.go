package awskmstest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// mostSkew is how far a request's date may be from ours.
const mostSkew = 5 * time.Minute

// authenticate recomputes the signature of a request from what arrived (AWS Signature Version 4, "Create a signed AWS
// API request").
func (s *Server) authenticate(r *http.Request, service string, body []byte) *failure {
	header := r.Header.Get("Authorization")
	if header == "" {
		return fail("MissingAuthenticationTokenException", "Missing Authentication Token")
	}
	parameters, ok := strings.CutPrefix(header, "AWS4-HMAC-SHA256 ")
	if !ok {
		return fail("IncompleteSignatureException", "the algorithm is none of ours")
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(parameters, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || value == "" || fields[name] != "" {
			return fail("IncompleteSignatureException", "malformed part %q", part)
		}
		fields[name] = value
	}
	signedNames := strings.Split(fields["SignedHeaders"], ";")
	scope := strings.Split(fields["Credential"], "/")
	if len(fields) != 3 || fields["Signature"] == "" || len(scope) != 5 {
		return fail("IncompleteSignatureException", "want Credential, SignedHeaders and Signature")
	}
	date := r.Header.Get("X-Amz-Date")
	at, err := time.Parse("20060102T150405Z", date)
	if err != nil {
		return fail("IncompleteSignatureException", "X-Amz-Date %q", date)
	}
	if scope[1] != date[:8] || scope[2] != s.config.Region || scope[3] != service || scope[4] != "aws4_request" {
		return fail("InvalidSignatureException",
			"Credential should be scoped to %s/%s, is %v", s.config.Region, service, scope[1:])
	}
	if skew := s.config.Now().Sub(at); skew > mostSkew || skew < -mostSkew {
		return fail("InvalidSignatureException", "Signature expired or not yet current: %s", date)
	}
	if scope[0] != s.config.AccessKeyID {
		return fail("UnrecognizedClientException", "The security token included in the request is invalid.")
	}
	if problem := unsigned(r, signedNames); problem != "" {
		return fail("InvalidSignatureException", "%s", problem)
	}
	if r.Header.Get("X-Amz-Security-Token") != s.config.SessionToken {
		return fail("ExpiredTokenException", "The security token included in the request is expired")
	}
	digest := sha256.Sum256(body)
	canonical := strings.Join([]string{
		r.Method, r.URL.EscapedPath(), canonicalQuery(r), canonicalHeaders(r, signedNames),
		fields["SignedHeaders"], hex.EncodeToString(digest[:]),
	}, "\n")
	request := sha256.Sum256([]byte(canonical))
	text := "AWS4-HMAC-SHA256\n" + date + "\n" + strings.Join(scope[1:], "/") + "\n" + hex.EncodeToString(request[:])
	signingKey := []byte("AWS4" + s.config.SecretAccessKey)
	for _, part := range scope[1:] {
		signingKey = mac(signingKey, part)
	}
	if want := hex.EncodeToString(mac(signingKey, text)); !hmac.Equal([]byte(want), []byte(fields["Signature"])) {
		return fail("InvalidSignatureException",
			"The request signature we calculated does not match the signature you provided.")
	}
	return nil
}

// unsigned names a header that has to be signed and is not: the host, the content type, and all of AWS's own.
func unsigned(r *http.Request, signed []string) string {
	if !slices.IsSorted(signed) {
		return "SignedHeaders are not sorted"
	}
	must := []string{"host", "content-type", "x-amz-date"}
	for name := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") {
			must = append(must, name)
		}
	}
	for _, name := range must {
		if !slices.Contains(signed, name) {
			return name + " is not signed"
		}
	}
	return ""
}

func canonicalHeaders(r *http.Request, names []string) string {
	var b strings.Builder
	for _, name := range names {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length": // net/http takes it out of the headers
			value = r.Header.Get("Content-Length")
			if value == "" {
				value = strconv.FormatInt(r.ContentLength, 10)
			}
		}
		b.WriteString(name + ":" + strings.Join(strings.Fields(value), " ") + "\n")
	}
	return b.String()
}

func canonicalQuery(r *http.Request) string {
	pairs := strings.FieldsFunc(r.URL.RawQuery, func(c rune) bool { return c == '&' })
	sort.Strings(pairs)
	return strings.Join(pairs, "&")
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
