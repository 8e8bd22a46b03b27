// Package messageauth authenticates Kafka messages: the writer adds a message authentication code (HMAC-SHA256, RFC
// 2104) in two headers, the reader verifies it. Brokers decide who may write to a topic but do not tell readers who
// wrote a message; a valid code shows that the writer had the key.
//
// A code covers the topic, the key and the value of a message. It does not cover the partition, the offset and the
// time, and does not prevent replay.
package messageauth

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"

	"github.com/purser-onboard/purser/pipeline"
)

// Headers of an authenticated message.
const (
	HeaderKeyID = "mac-key-id" // id of the key, 16 hex digits
	HeaderMAC   = "mac-sha256" // code, 64 hex digits
)

// Purpose separates keys: the same secret gives a different key for each purpose.
type Purpose string

// The purposes of keys.
const (
	Rows    Purpose = "purser row message v1"   // messages of the work topic
	Ledgers Purpose = "purser ledger record v1" // records of the ledger topic
)

// minSecret is the minimum length of a secret in bytes, the length of the key (RFC 2104 §3).
const minSecret = sha256.Size

// maxKeys is how many keys are accepted: the current key and, during a rotation, the previous or the next one.
const maxKeys = 2

// Keys authenticates the messages of one topic. It is safe for concurrent use.
type Keys struct {
	topic string
	keys  []key // the first one signs
}

type key struct {
	id     string
	secret []byte
}

// New derives the keys for a topic from the content of a key file: one secret per line, each at least 32 random bytes
// in base64 (RFC 4648 §4), as printed by `openssl rand -base64 32`. The first secret signs; codes of an optional second
// secret are accepted as well. Blank lines and lines that begin with # are skipped. A secret of one repeated byte is an
// error. Keys are derived with HKDF-SHA256 (RFC 5869), without salt and with the purpose as info. Error texts do not
// contain the content.
func New(content []byte, purpose Purpose, topic string) (*Keys, error) {
	k := &Keys{topic: topic}
	for n, line := range strings.Split(string(content), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		secret, err := base64.StdEncoding.DecodeString(line)
		switch {
		case err != nil:
			return nil, fmt.Errorf("line %d is not base64: %s", n+1, wantSecrets)
		case len(secret) < minSecret:
			return nil, fmt.Errorf("line %d has %d bytes, want at least %d: each line is a secret of its own, as "+
				"`openssl rand -base64 32` prints it", n+1, len(secret), minSecret)
		case bytes.Count(secret, secret[:1]) == len(secret):
			return nil, fmt.Errorf("line %d repeats one byte, which is no secret: `openssl rand -base64 32` makes one", n+1)
		}
		derived, err := derive(secret, purpose)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(k.keys, func(other key) bool { return other.id == derived.id }) {
			return nil, fmt.Errorf("line %d repeats a secret", n+1)
		}
		k.keys = append(k.keys, derived)
	}
	switch {
	case len(k.keys) == 0:
		return nil, errors.New("holds no secret: " + wantSecrets)
	case len(k.keys) > maxKeys:
		return nil, fmt.Errorf("holds %d secrets, want at most %d: the first signs, the second is accepted as well",
			len(k.keys), maxKeys)
	}
	return k, nil
}

const wantSecrets = "want one secret per line, as printed by `openssl rand -base64 32`"

func derive(secret []byte, purpose Purpose) (key, error) {
	mac, err := hkdf.Key(sha256.New, secret, nil, string(purpose), sha256.Size)
	if err != nil {
		return key{}, err
	}
	id, err := hkdf.Key(sha256.New, secret, nil, string(purpose)+" key id", 8)
	return key{id: hex.EncodeToString(id), secret: mac}, err
}

// Topic returns the topic that the keys are for.
func (k *Keys) Topic() string { return k.topic }

// ID returns the id of the key that signs.
func (k *Keys) ID() string { return k.keys[0].id }

// Current reports whether an authentic message carries the code of the key that signs now.
func (k *Keys) Current(m pipeline.Message) bool {
	id, _ := singleHeader(m, HeaderKeyID)
	return string(id) == k.keys[0].id
}

// Sign sets both headers of each message and keeps its other headers.
func (k *Keys) Sign(messages []pipeline.Message) {
	mac := hmac.New(sha256.New, k.keys[0].secret)
	headers := make([]pipeline.Header, 0, 2*len(messages)) // a single allocation for all messages
	codes := make([]byte, 0, 2*sha256.Size*len(messages))
	id := []byte(k.keys[0].id)
	var sum [sha256.Size]byte
	for i := range messages {
		m := &messages[i]
		from := len(codes)
		codes = hex.AppendEncode(codes, k.code(mac, m, sum[:0]))
		ours := append(headers[len(headers):],
			pipeline.Header{Key: HeaderKeyID, Value: id},
			pipeline.Header{Key: HeaderMAC, Value: codes[from:len(codes):len(codes)]})
		headers = headers[:len(headers)+2]
		if len(m.Headers) == 0 {
			m.Headers = ours[:2:2]
			continue
		}
		others := slices.DeleteFunc(slices.Clone(m.Headers), func(h pipeline.Header) bool {
			return h.Key == HeaderKeyID || h.Key == HeaderMAC
		})
		m.Headers = append(others, ours...)
	}
}

// Verify returns nil if the message carries a valid code under one of the keys, and otherwise an error that says why
// not.
func (k *Keys) Verify(m pipeline.Message) error {
	id, hasID := singleHeader(m, HeaderKeyID)
	code, hasCode := singleHeader(m, HeaderMAC)
	if !hasID || !hasCode {
		return fmt.Errorf("no message authentication code (headers %s and %s, each once)", HeaderKeyID, HeaderMAC)
	}
	if len(id) != len(k.keys[0].id) {
		return fmt.Errorf("header %s has %d characters, want %d", HeaderKeyID, len(id), len(k.keys[0].id))
	}
	i := slices.IndexFunc(k.keys, func(k key) bool { return k.id == string(id) })
	if i < 0 {
		return fmt.Errorf("authenticated with the unknown key %q", id)
	}
	want := k.code(hmac.New(sha256.New, k.keys[i].secret), &m, nil)
	got, err := hex.DecodeString(string(code))
	if err != nil || !hmac.Equal(got, want) {
		return errors.New("the message authentication code does not match topic, key and value")
	}
	return nil
}

// singleHeader returns the value of a header that the message has exactly once.
func singleHeader(m pipeline.Message, name string) (value []byte, ok bool) {
	for _, h := range m.Headers {
		if h.Key != name {
			continue
		}
		if ok {
			return nil, false
		}
		value, ok = h.Value, true
	}
	return value, ok
}

// code computes the code over topic, key and value, each preceded by its length in 8 bytes, so that the encoding is
// unambiguous. A null has the length 2⁶⁴-1.
func (k *Keys) code(mac hash.Hash, m *pipeline.Message, dst []byte) []byte {
	mac.Reset()
	var length [8]byte
	for i, part := range [...][]byte{[]byte(k.topic), m.Key, m.Value} {
		n := uint64(len(part))
		if part == nil && i > 0 {
			n = ^uint64(0)
		}
		binary.BigEndian.PutUint64(length[:], n)
		mac.Write(length[:])
		mac.Write(part)
	}
	return mac.Sum(dst)
}

// Publisher returns a publisher that signs messages and publishes them with p. Publishing to another topic than the
// keys' is an error.
func (k *Keys) Publisher(p pipeline.Publisher) pipeline.Publisher { return publisher{k, p} }

type publisher struct {
	keys *Keys
	pipeline.Publisher
}

// Publish implements pipeline.Publisher.
func (p publisher) Publish(ctx context.Context, topic string, messages []pipeline.Message) error {
	if topic != p.keys.topic {
		return fmt.Errorf("messages for topic %q cannot be signed with the key of topic %q", topic, p.keys.topic)
	}
	p.keys.Sign(messages)
	return p.Publisher.Publish(ctx, topic, messages)
}
