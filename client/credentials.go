package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
)

const (
	pathSigning     = "/auth/signing"
	pathCredentials = "/auth/credentials" //nolint:gosec // G101: a path, no credential
)

// RegisterKey sends PUT /auth/signing with a public key in PEM form, which replaces the registered key, and returns the
// id that the partner gives it. The body is {"publicKey":"<the PEM in base64>"}: the base64 is documented, the member's
// name is not. The id is taken from keyId, keyid, key_id or id, in the answer or in an object in it. If the answer has
// none, the key is registered all the same, and the error is Unrecognized.
func (c *Client) RegisterKey(ctx context.Context, publicPEM []byte) (keyID string, err error) {
	body := appendString([]byte(`{"publicKey":`), base64.StdEncoding.EncodeToString(publicPEM))
	a, op, err := c.change(ctx, http.MethodPut, pathSigning, append(body, '}'))
	if err != nil {
		return "", err
	}
	if keyID = keyIDIn(a.body); keyID == "" {
		return "", c.malformed(op, a, &shapeError{Endpoint: op, Want: "keyId", Have: memberNames(a.body)})
	}
	return keyID, nil
}

// DeleteKey sends DELETE /auth/signing: the partner forgets the registered key.
func (c *Client) DeleteKey(ctx context.Context) error {
	_, _, err := c.change(ctx, http.MethodDelete, pathSigning, nil)
	return err
}

// ReplaceSecret sends PUT /auth/credentials: the partner replaces the API secret and invalidates every token. Any 2xx
// is success. This client keeps its secret. After an error without an answer either secret may be valid: try
// Authenticate of a client with the new secret.
func (c *Client) ReplaceSecret(ctx context.Context, secret string) error {
	c.tokens.hide(secret)
	_, _, err := c.change(ctx, http.MethodPut, pathCredentials, tokenBody(c.config.APIKey, secret))
	return err
}

// change sends a request about the credentials, under a random idempotency key, because the request is idempotent by
// itself.
func (c *Client) change(ctx context.Context, method, path string, body []byte) (a answer, op string, err error) {
	op = method + " " + path
	key, err := c.newID()
	if err != nil {
		return answer{}, op, &Error{Op: op, Kind: Unsendable, Err: err}
	}
	a, err = c.do(ctx, call{op: op, name: Credentials, method: method, path: path, key: key, body: body})
	return a, op, err
}

// keyIDIn returns the key id in an answer, "" if there is none that a signature can have. A member named after the key
// goes before "id".
func keyIDIn(body []byte) string {
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return ""
	}
	objects := []map[string]json.RawMessage{members}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		var inner map[string]json.RawMessage
		if json.Unmarshal(members[name], &inner) == nil && inner != nil {
			objects = append(objects, inner)
		}
	}
	for _, names := range [][]string{{"keyId", "keyid", "key_id"}, {"id"}} {
		for _, object := range objects {
			for _, name := range names {
				if id := keyIDOf(object[name]); id != "" {
					return id
				}
			}
		}
	}
	return ""
}

// keyIDOf reads a string or a number. A key id is printable ASCII (RFC 9421 section 2.3: keyid is a String).
func keyIDOf(value json.RawMessage) string {
	var number json.Number
	var id string
	if json.Unmarshal(value, &id) != nil && json.Unmarshal(value, &number) == nil {
		id = number.String()
	}
	if len(id) > mostMessage || strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' }) {
		return ""
	}
	return id
}
