package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// wireCustomer is a customer as tolerantly read as is safe: what identifies it must be right, the rest may be odd.
type wireCustomer struct {
	ID         string    `json:"id"`
	ChainID    string    `json:"chainId"`
	ExternalID string    `json:"externalId"`
	Status     Status    `json:"status"`
	CreatedAt  looseTime `json:"createdAt"`
	UpdatedAt  looseTime `json:"updatedAt"`
	Challenge  string    `json:"challenge"`
}

func (w wireCustomer) customer() Customer {
	return Customer{ID: w.ID, ChainID: w.ChainID, ExternalID: w.ExternalID, Status: w.Status,
		CreatedAt: time.Time(w.CreatedAt), UpdatedAt: time.Time(w.UpdatedAt), Challenge: w.Challenge}
}

// looseTime is zero where the partner's time is not RFC 3339: nothing depends on it.
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
		return errors.New("the answer is empty")
	}
	err := json.Unmarshal(body, into)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) && syntax.Offset >= int64(len(body)) {
		return fmt.Errorf("the answer is cut off: %w", io.ErrUnexpectedEOF)
	}
	if err != nil {
		return fmt.Errorf("the answer is not the JSON it should be: %w", err)
	}
	return nil
}

// created reads the answer to a creation and compares it with what was sent.
func created(sent []byte, a answer) (Customer, error) {
	var got, want wireCustomer
	if err := decodeOne(a.body, &got); err != nil {
		return Customer{}, err
	}
	if err := json.Unmarshal(sent, &want); err != nil {
		return Customer{}, fmt.Errorf("the body sent was no JSON object: %w", err)
	}
	switch {
	case !isUUID(got.ID):
		return Customer{}, errors.New("the customer has no UUID as its id")
	case got.ChainID != "" && !strings.EqualFold(got.ChainID, want.ChainID):
		return Customer{}, fmt.Errorf("the customer created has chainId %q, sent was %q",
			clip(got.ChainID, mostCode), want.ChainID)
	case got.ExternalID != "" && got.ExternalID != want.ExternalID:
		return Customer{}, fmt.Errorf("the customer created has externalId %q, sent was %q",
			clip(got.ExternalID, mostCode), clip(want.ExternalID, mostCode))
	}
	return got.customer(), nil
}

// found reads the answer to a single read.
func found(id string, a answer) (Customer, error) {
	var got wireCustomer
	if err := decodeOne(a.body, &got); err != nil {
		return Customer{}, err
	}
	switch {
	case !strings.EqualFold(got.ID, id):
		return Customer{}, fmt.Errorf("the customer read has id %q, asked was %q", clip(got.ID, mostCode), id)
	case got.Status == "":
		return Customer{}, errors.New("the customer has no status")
	}
	return got.customer(), nil
}

// challengeIn finds the challenge in the answer, whose shape is not published. Whether an object's member is base64 is
// not asked here: a challenge that is none must be refused, not asked for again.
func challengeIn(a answer) (string, error) {
	body := bytes.TrimSpace(a.body)
	if len(body) == 0 {
		return "", errors.New("the answer is empty")
	}
	var challenge string
	switch body[0] {
	case '{':
		var wire struct {
			Challenge string `json:"challenge"`
		}
		if err := decodeOne(body, &wire); err != nil {
			return "", err
		}
		challenge = wire.Challenge
	case '"':
		if err := decodeOne(body, &challenge); err != nil {
			return "", err
		}
	default:
		if _, err := DecodeChallenge(string(body)); err != nil {
			return "", err
		}
		challenge = string(body)
	}
	if challenge == "" {
		return "", errors.New(`the answer has no "challenge"`)
	}
	return challenge, nil
}

// submitted decides whether a 2xx says that the signature was accepted.
func submitted(id string, a answer) error {
	if a.status == http.StatusNoContent {
		return nil
	}
	done := a.status == http.StatusOK || a.status == http.StatusCreated
	if len(bytes.TrimSpace(a.body)) == 0 {
		if done {
			return nil
		}
		return errors.New("the answer does not say that the signature was accepted (want 204)")
	}
	var got struct {
		ID     string          `json:"id"`
		Status Status          `json:"status"`
		Error  json.RawMessage `json:"error"`
	}
	if err := decodeOne(a.body, &got); err != nil {
		return err
	}
	switch past := got.Status.past(); {
	case len(got.Error) > 0 && string(got.Error) != "null":
		return errors.New("the answer tells of an error (want 204)")
	case got.ID != "" && !strings.EqualFold(got.ID, id):
		return fmt.Errorf("the answer is about customer %q, sent was %q", clip(got.ID, mostCode), id)
	case got.Status == StatusInitiating, !done && !past:
		return errors.New("the answer does not say that the signature was accepted (want 204)")
	}
	return nil
}

// past reports whether a customer in this state has proved that it owns the account.
func (s Status) past() bool {
	switch s {
	case StatusScreening, StatusVerifying, StatusActive, StatusInactive:
		return true
	}
	return false
}
