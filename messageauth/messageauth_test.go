package messageauth

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/pipeline"
)

// secret returns the nth secret as a line of a key file: the bytes n, n+1 and so on.
func secret(n byte) string {
	text := make([]byte, 32)
	for i := range text {
		text[i] = n + byte(i)
	}
	return base64.StdEncoding.EncodeToString(text) + "\n"
}

func keys(t testing.TB, content string, purpose Purpose, topic string) *Keys {
	t.Helper()
	k, err := New([]byte(content), purpose, topic)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func message() pipeline.Message {
	return pipeline.Message{Key: []byte("eip155:300:0x1"), Value: []byte(`{"v":1}`)}
}

func signed(t testing.TB, k *Keys) pipeline.Message {
	t.Helper()
	batch := []pipeline.Message{message()}
	k.Sign(batch)
	return batch[0]
}

// TestVector: the code of a known message. It was computed with Python's hmac, HKDF being RFC 5869 §2
// over it, not with this package:
//
//	key = hkdf(secret=bytes(range(1, 33)), salt=bytes(32), info=b"purser row message v1", length=32)
//	part = lambda b: len(b).to_bytes(8, "big") + b
//	hmac.new(key, part(b"rows") + part(b"eip155:300:0x1") + part(b'{"v":1}'), "sha256").hexdigest()
func TestVector(t *testing.T) {
	m := signed(t, keys(t, secret(1), Rows, "rows"))
	for name, want := range map[string]string{
		HeaderKeyID: "85199a20dbe26757",
		HeaderMAC:   "21ffe06b09b6652ecbdf69b524c29508d93854561d3d391c0ba33b13d7d0801e",
	} {
		if got, _ := singleHeader(m, name); string(got) != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func TestVerify(t *testing.T) {
	k := keys(t, secret(1), Rows, "rows")
	for name, tt := range map[string]struct {
		change func(m *pipeline.Message)
		reason string // empty: authentic
	}{
		"as signed":      {func(*pipeline.Message) {}, ""},
		"another offset": {func(m *pipeline.Message) { m.Partition, m.Offset = 3, 17 }, ""},
		"other headers":  {func(m *pipeline.Message) { m.Headers = append(m.Headers, pipeline.Header{Key: "trace"}) }, ""},
		"no headers":     {func(m *pipeline.Message) { m.Headers = nil }, "no message authentication code"},
		"value":          {func(m *pipeline.Message) { m.Value = []byte(`{"v":2}`) }, "does not match"},
		"key":            {func(m *pipeline.Message) { m.Key = []byte("eip155:300:0x2") }, "does not match"},
		"null key":       {func(m *pipeline.Message) { m.Key = nil }, "does not match"},
		"null value":     {func(m *pipeline.Message) { m.Value = nil }, "does not match"},
		"moved characters": {func(m *pipeline.Message) {
			m.Key, m.Value = m.Key[:3], append(m.Key[3:], m.Value...)
		}, "does not match"},
		"code twice":  {func(m *pipeline.Message) { m.Headers = append(m.Headers, m.Headers[1]) }, "each once"},
		"no hex":      {func(m *pipeline.Message) { m.Headers[1].Value = []byte("zz") }, "does not match"},
		"half a code": {func(m *pipeline.Message) { m.Headers[1].Value = m.Headers[1].Value[:32] }, "does not match"},
		"empty code":  {func(m *pipeline.Message) { m.Headers[1].Value = nil }, "does not match"},
		"unknown key": {func(m *pipeline.Message) {
			m.Headers[0].Value = []byte("0123456789abcdef")
		}, `unknown key "0123456789abcdef"`},
		"long key id": {func(m *pipeline.Message) { m.Headers[0].Value = make([]byte, 1<<20) }, "1048576 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			m := signed(t, k)
			m.Headers = slices.Clone(m.Headers)
			tt.change(&m)
			err := k.Verify(m)
			if tt.reason == "" {
				if err != nil {
					t.Errorf("got %v, want it authentic", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.reason) {
				t.Errorf("got %v, want an error with %q", err, tt.reason)
			}
		})
	}
}

// TestSeparation: a code is good for one topic, one purpose and one secret.
func TestSeparation(t *testing.T) {
	m := signed(t, keys(t, secret(1), Rows, "rows"))
	for name, other := range map[string]*Keys{
		"topic":   keys(t, secret(1), Rows, "rows2"),
		"purpose": keys(t, secret(1), Ledgers, "rows"),
		"secret":  keys(t, secret(2), Rows, "rows"),
	} {
		if err := other.Verify(m); err == nil {
			t.Errorf("another %s: got it authentic, want an error", name)
		}
	}
}

// TestRotation: first the new key is accepted everywhere, then it signs, then the old one goes.
func TestRotation(t *testing.T) {
	files := []string{secret(1), secret(1) + secret(2), secret(2) + secret(1), secret(2)}
	for i := range files[1:] {
		before, after := keys(t, files[i], Ledgers, "t"), keys(t, files[i+1], Ledgers, "t")
		if err := after.Verify(signed(t, before)); err != nil {
			t.Errorf("step %d: the new file on the old file's message: got %v, want it authentic", i, err)
		}
		if err := before.Verify(signed(t, after)); err != nil {
			t.Errorf("step %d: the old file on the new file's message: got %v, want it authentic", i, err)
		}
		if got, want := after.Current(signed(t, before)), before.ID() == after.ID(); got != want {
			t.Errorf("step %d: got current %v for the old file's message, want %v", i, got, want)
		}
	}
	if err := keys(t, files[3], Ledgers, "t").Verify(signed(t, keys(t, files[0], Ledgers, "t"))); err == nil {
		t.Error("got the first key accepted after the rotation, want an error")
	}
}

func TestNewInvalid(t *testing.T) {
	for name, tt := range map[string]struct{ content, problem string }{
		"empty":     {"", "holds no secret"},
		"comment":   {"# none yet\n\n", "holds no secret"},
		"short":     {"c2hvcnQ=\n", "line 1 has 5 bytes, want at least 32"},
		"no base64": {"# ours\nhunter2 hunter2 hunter2\n", "line 2 is not base64"},
		"three":     {secret(1) + secret(2) + secret(3), "holds 3 secrets, want at most 2"},
		// openssl rand -base64 64 breaks the line.
		"two lines": {strings.Repeat("0123456789abcdef", 4) + "\n0123456789abcdefABCDEw==\n",
			"line 2 has 16 bytes, want at least 32: each line is a secret of its own"},
		"zeros": {base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n", "line 1 repeats one byte"},
		"ones":  {secret(1) + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 40)), "line 2 repeats one byte"},
		"twice": {secret(1) + secret(1), "line 2 repeats a secret"},
	} {
		_, err := New([]byte(tt.content), Rows, "rows")
		if err == nil || !strings.Contains(err.Error(), tt.problem) {
			t.Errorf("%s: got %v, want %q", name, err, tt.problem)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want an error without the content", name, err)
		}
	}
	if _, err := New([]byte("# ours\r\n"+strings.TrimSpace(secret(1))+"\r\n"), Rows, "rows"); err != nil {
		t.Errorf("lines that end with CR LF: got %v, want them read", err)
	}
}

// TestSignReplaces: a message that has been signed, or claims to be, has one code afterwards, and keeps its other
// headers.
func TestSignReplaces(t *testing.T) {
	k := keys(t, secret(1), Rows, "rows")
	m := message()
	m.Headers = []pipeline.Header{{Key: "trace", Value: []byte("t")}, {Key: HeaderMAC, Value: []byte("forged")}}
	batch := []pipeline.Message{message(), m, message()}
	k.Sign(batch)
	k.Sign(batch)
	for i, m := range batch {
		if err := k.Verify(m); err != nil {
			t.Errorf("message %d: got %v, want it authentic", i, err)
		}
	}
	if got := len(batch[1].Headers); got != 3 || batch[1].Headers[0].Key != "trace" {
		t.Errorf("got headers %v, want trace and the two of the code", batch[1].Headers)
	}
}

func BenchmarkSign(b *testing.B) {
	k := keys(b, secret(1), Rows, "rows")
	batch := make([]pipeline.Message, 1000)
	for i := range batch {
		batch[i] = message()
		batch[i].Value = bytes.Repeat([]byte("x"), 180)
	}
	for b.Loop() {
		for i := range batch {
			batch[i].Headers = nil
		}
		k.Sign(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/message")
}
