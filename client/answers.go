package client

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/purser-onboard/purser/printable"
)

// wireCustomer is a customer as it is received. What identifies the customer is checked strictly, the rest is not.
type wireCustomer struct {
	ID         onceText  `json:"id"`
	ChainID    onceText  `json:"chainId"`
	ExternalID onceText  `json:"externalId"`
	Status     onceText  `json:"status"`
	CreatedAt  looseTime `json:"createdAt"`
	UpdatedAt  looseTime `json:"updatedAt"`
	Challenge  string    `json:"challenge"`
}

func (w wireCustomer) customer() Customer {
	return Customer{ID: w.ID.text, ChainID: w.ChainID.text, ExternalID: w.ExternalID.text,
		Status: ParseStatus(w.Status.text), CreatedAt: time.Time(w.CreatedAt), UpdatedAt: time.Time(w.UpdatedAt),
		Challenge: w.Challenge}
}

// onceText is a text that an object may not have twice with different values. encoding/json takes the last of them,
// also of names that differ in their case: a customer would count as onboarded or not by the order of its members.
type onceText struct {
	text string
	set  bool
}

// twoValues is the Value of the error for a onceText with two of them.
const twoValues = "two values"

func (t *onceText) UnmarshalJSON(value []byte) error {
	var text string
	if n := len(value); n >= 2 && value[0] == '"' && !bytes.ContainsFunc(value, escapedOrNotASCII) {
		text = string(value[1 : n-1])
	} else if err := json.Unmarshal(value, &text); err != nil {
		return err
	}
	if t.set && text != t.text {
		return &json.UnmarshalTypeError{Value: twoValues, Type: reflect.TypeFor[string]()}
	}
	t.text, t.set = text, true
	return nil
}

func escapedOrNotASCII(r rune) bool { return r == '\\' || r >= utf8.RuneSelf }

// looseTime is zero if the partner's time is not RFC 3339. No decision depends on it.
type looseTime time.Time

func (t *looseTime) UnmarshalJSON(text []byte) error {
	parsed, err := time.Parse(time.RFC3339Nano, string(bytes.Trim(text, `"`)))
	if err == nil {
		*t = looseTime(parsed)
	}
	return nil
}

// decodeOne reads exactly one JSON value.
func decodeOne(body []byte, into any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return errors.New("the response is empty")
	}
	err := json.Unmarshal(body, into)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) && syntax.Offset >= int64(len(body)) {
		return fmt.Errorf("the response is truncated: %w", io.ErrUnexpectedEOF)
	}
	if err != nil {
		return fmt.Errorf("the response is not the expected JSON: %w", err)
	}
	return nil
}

// decodeShaped reads exactly one JSON value. If a member has another type than into expects, or the value is not an
// object (then the error names want), it fails as misshapen does.
func decodeShaped(endpoint, want string, body []byte, into any) error {
	err := decodeOne(body, into)
	if e := (*json.UnmarshalTypeError)(nil); errors.As(err, &e) {
		err = misshapen(endpoint, cmp.Or(e.Field, want), body)
		if shape := (*shapeError)(nil); errors.As(err, &shape) {
			shape.Twice = e.Value == twoValues
		}
	}
	return err
}

// misshapen returns the error for a complete JSON value in which want is missing or unusable. It is a *shapeError
// unless the value is neither object nor array, or has a member "error" or "errors".
func misshapen(endpoint, want string, body []byte) error {
	body = bytes.TrimSpace(body)
	if body[0] != '{' && body[0] != '[' {
		return fmt.Errorf("the response has no %q: it is not an object", want)
	}
	var wire struct {
		Error  json.RawMessage `json:"error"`
		Errors json.RawMessage `json:"errors"`
	}
	if err := json.Unmarshal(body, &wire); err == nil {
		for _, words := range []json.RawMessage{wire.Error, wire.Errors} {
			if err := reportedError(words); err != nil {
				return err
			}
		}
	}
	return &shapeError{Endpoint: endpoint, Want: want, Have: memberNames(body)}
}

// errReported is a 2xx answer that reports an error.
var errReported = errors.New("the response reports an error")

// reportedError returns the error in the member "error" of a 2xx answer, nil when the member is empty.
func reportedError(member json.RawMessage) error {
	if empty(member) {
		return nil
	}
	code, message, _ := jsonWords(member)
	return fmt.Errorf("%w: %s", errReported, printable.Line(joined(code, ": ", message), mostMessage))
}

// empty reports whether a member is null, false, 0, or an empty text or container.
func empty(member json.RawMessage) bool {
	switch string(bytes.TrimSpace(member)) {
	case "", "null", "false", "0", `""`, "[]", "{}":
		return true
	}
	return false
}

// created reads the answer to a creation and compares it with the body that was sent.
func created(sent []byte, a answer) (Customer, error) {
	const endpoint = "POST /customers"
	var got, want wireCustomer
	if err := decodeShaped(endpoint, "id", a.body, &got); err != nil {
		return Customer{}, err
	}
	if err := json.Unmarshal(sent, &want); err != nil {
		return Customer{}, fmt.Errorf("the body sent is not a JSON object: %w", err)
	}
	switch {
	case !isUUID(got.ID.text):
		return Customer{}, misshapen(endpoint, "id", a.body)
	case got.ChainID.text != "" && !strings.EqualFold(got.ChainID.text, want.ChainID.text):
		return Customer{}, fmt.Errorf("the created customer has chainId %s, want %q",
			printable.Quote(got.ChainID.text, mostCode), want.ChainID.text)
	case got.ExternalID.text != "" && got.ExternalID.text != want.ExternalID.text:
		return Customer{}, fmt.Errorf("the created customer has externalId %s, want %s",
			printable.Quote(got.ExternalID.text, mostCode), printable.Quote(want.ExternalID.text, mostCode))
	}
	return got.customer(), nil
}

// found reads the answer to a read of one customer.
func found(id string, a answer) (Customer, error) {
	const endpoint = "GET /customers/{id}"
	var got wireCustomer
	if err := decodeShaped(endpoint, "id", a.body, &got); err != nil {
		return Customer{}, err
	}
	customer := got.customer()
	switch {
	case !isUUID(got.ID.text):
		return Customer{}, misshapen(endpoint, "id", a.body)
	case !strings.EqualFold(got.ID.text, id):
		return Customer{}, fmt.Errorf("the response has the customer %q, want %q", got.ID.text, id)
	case customer.Status == "":
		return Customer{}, misshapen(endpoint, "status", a.body)
	}
	return customer, nil
}

// challengeIn finds the challenge in the answer, whose shape is not published. It does not check that a member is
// base64: a challenge that is not must be refused by the policy, not fetched again.
func challengeIn(a answer) (string, error) {
	const endpoint = "GET /customers/{id}/challenge"
	body := bytes.TrimSpace(a.body)
	if len(body) == 0 {
		return "", errors.New("the response is empty")
	}
	switch {
	case body[0] == '{', body[0] == '[' && json.Valid(body):
		var wire struct {
			Challenge string `json:"challenge"`
		}
		if err := decodeShaped(endpoint, "challenge", body, &wire); err != nil {
			return "", err
		}
		if wire.Challenge == "" {
			return "", misshapen(endpoint, "challenge", body)
		}
		return wire.Challenge, nil
	case body[0] == '"':
		var challenge string
		if err := decodeOne(body, &challenge); err != nil {
			return "", err
		}
		if challenge == "" {
			return "", errors.New("the response is an empty string")
		}
		return challenge, nil
	}
	if _, err := DecodeChallenge(string(body)); err != nil {
		return "", err
	}
	return string(body), nil
}

// ErrUnproven is a 2xx answer to a submission that is not the documented 204. The signature may have been accepted or
// not; the customer's status says which.
var ErrUnproven = errors.New("no proof that the signature was accepted")

// submitted returns nil for the documented response, 204 without a body, and an error for any other, whatever its
// content.
func submitted(id string, a answer) error {
	if a.status == http.StatusNoContent && len(a.body) == 0 && !a.bodied {
		return nil
	}
	have := "a body that is not JSON"
	if a.status == http.StatusNoContent && a.bodied {
		have = "a body"
	} else if len(a.body) == 0 {
		have = "no body"
	} else if json.Valid(a.body) {
		have = "no members"
		if names := memberNames(a.body); len(names) > 0 {
			have = quoted(names)
		}
	}
	return fmt.Errorf("customer %s: %w: HTTP %d with %s, want 204 without a body", id, ErrUnproven, a.status, have)
}
