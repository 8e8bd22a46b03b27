package client

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// SignatureEncoding says what is base64-encoded in a submitted signature.
type SignatureEncoding string

const (
	// EncodingHex encodes the hex text, "0x…": the vendor's guide reads so. The zero value means this too.
	EncodingHex SignatureEncoding = "hex"
	// EncodingRaw encodes the 65 bytes.
	EncodingRaw SignatureEncoding = "raw"
)

// CreateBody is the body of POST /customers. The same arguments give the same bytes in every version of this program:
// a stored idempotency key is only good with the bytes it was used with. So it is written by hand and does not follow
// encoding/json, whose choice of escapes has changed before.
func CreateBody(chainID, externalID string) []byte {
	return twoMembers(`{"chainId":`, chainID, `,"externalId":`, externalID)
}

// SubmitBody is the body of POST /customers/{id}/challenge/sign, with bytes as lasting as CreateBody's. ownerID is the
// CAIP-10 account, signatureHex the wallet signature as 0x and 130 hex digits. It is nil, which SubmitSignature refuses
// to send, when the encoding is EncodingRaw and signatureHex is not hex.
func SubmitBody(ownerID, signatureHex string, encoding SignatureEncoding) []byte {
	signature := []byte(signatureHex)
	if encoding == EncodingRaw {
		digits, prefixed := strings.CutPrefix(signatureHex, "0x")
		raw, err := hex.DecodeString(digits)
		if err != nil || !prefixed || len(raw) == 0 {
			return nil
		}
		signature = raw
	}
	return twoMembers(`{"ownerId":`, ownerID, `,"signature":`, base64.StdEncoding.EncodeToString(signature))
}

func tokenBody(key, secret string) []byte {
	return twoMembers(`{"apiKey":`, key, `,"apiSecret":`, secret)
}

func twoMembers(first, a, second, b string) []byte {
	body := make([]byte, 0, len(first)+len(a)+len(second)+len(b)+16)
	body = appendString(append(body, first...), a)
	body = appendString(append(body, second...), b)
	return append(body, '}')
}

// appendString appends s as a JSON string (RFC 8259 §7), escaping what must be and nothing else. Invalid UTF-8, which
// no checked row has, becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, size := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += size
			continue
		}
		i++
	}
	return append(b, '"')
}

// MaxChallenge is the greatest length of a challenge's text, in bytes.
const MaxChallenge = 8 << 10

// DecodeChallenge returns the text of a challenge in base64 (RFC 4648 §4 or §5, padded or not; line breaks inside are
// skipped). It is an error when it is empty, longer than MaxChallenge, or not UTF-8. Nothing is said about what the
// text means.
func DecodeChallenge(b64 string) (string, error) {
	b64 = strings.Trim(b64, " \t\r\n")
	if base64.StdEncoding.DecodedLen(len(b64)) > 2*MaxChallenge {
		return "", fmt.Errorf("challenge is longer than %d bytes", MaxChallenge)
	}
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(b64, "-_") {
		encoding = base64.RawURLEncoding
	}
	if strings.HasSuffix(b64, "=") {
		encoding = encoding.WithPadding(base64.StdPadding)
	}
	text, err := encoding.DecodeString(b64)
	switch {
	case err != nil:
		return "", fmt.Errorf("challenge is not base64: %w", err)
	case len(text) == 0:
		return "", errors.New("challenge is empty")
	case len(text) > MaxChallenge:
		return "", fmt.Errorf("challenge is longer than %d bytes", MaxChallenge)
	case !utf8.Valid(text):
		return "", errors.New("challenge is not UTF-8 text")
	}
	return string(text), nil
}
