package client

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// SignatureEncoding is the form of a wallet signature inside of its base64.
type SignatureEncoding string

const (
	// EncodingHex encodes the hex text, "0x…", as the vendor's guide has it. The zero value means the same.
	EncodingHex SignatureEncoding = "hex"
	// EncodingRaw encodes the 65 bytes.
	EncodingRaw SignatureEncoding = "raw"
)

// CreateBody returns the body of POST /customers. The same arguments give the same bytes in every version of this
// program, because an idempotency key can only be used with the same bytes again. So it does not use encoding/json,
// whose choice of escapes has changed before.
func CreateBody(chainID, externalID string) []byte {
	return twoMembers(`{"chainId":`, chainID, `,"externalId":`, externalID)
}

// SubmitBody returns the body of POST /customers/{id}/challenge/sign, like CreateBody's the same bytes in every
// version. ownerID is the CAIP-10 account, signatureHex the wallet signature as 0x and 130 hex digits. It returns
// nil, which SubmitSignature does not send, when the encoding is EncodingRaw and signatureHex is not hex.
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

// appendString appends s as a JSON string (RFC 8259 §7) and escapes only what must be escaped. Invalid UTF-8, which no
// valid row has, becomes U+FFFD.
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

// maxChallenge is the greatest length of a challenge's text, in bytes.
const maxChallenge = 8 << 10

// DecodeChallenge returns the text of a challenge in base64 (RFC 4648 §4 or §5, padded or not; line breaks inside are
// skipped). It fails when the text is empty, longer than 8 KiB, or not UTF-8, and does not check what it means.
func DecodeChallenge(b64 string) (string, error) {
	b64 = strings.Trim(b64, " \t\r\n")
	if base64.StdEncoding.DecodedLen(len(b64)) > 2*maxChallenge {
		return "", fmt.Errorf("challenge is longer than %d bytes", maxChallenge)
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
	case len(text) > maxChallenge:
		return "", fmt.Errorf("challenge is longer than %d bytes", maxChallenge)
	case !utf8.Valid(text):
		return "", errors.New("challenge is not UTF-8 text")
	}
	return string(text), nil
}
