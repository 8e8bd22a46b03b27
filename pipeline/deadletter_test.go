package pipeline

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/ethereum/go-ethereum/common"
)

// original returns a message as any producer may have written it.
func original(key, value []byte, headers ...Header) Message {
	return Message{Topic: "work", Partition: 3, Offset: 17, Key: key, Value: value, Headers: headers}
}

func TestDeadLetterIsCutToWhatFits(t *testing.T) {
	large := bytes.Repeat([]byte("x"), 100_000)
	for name, tt := range map[string]struct {
		message Message
		want    []string // headers that say what is missing
	}{
		"value":   {original([]byte("k"), large, Header{"trace", []byte("t")}), []string{HeaderValueTruncated}},
		"key":     {original(large, []byte("v")), []string{HeaderKeyLength}},
		"headers": {original([]byte("k"), []byte("v"), Header{"trace", large}), []string{HeaderDropped}},
		"header's name": {original(nil, nil, Header{string(large), nil}, Header{"b", nil}),
			[]string{HeaderDropped}},
		"all": {original(large, large, Header{"trace", large}),
			[]string{HeaderValueTruncated, HeaderKeyLength, HeaderDropped}},
	} {
		t.Run(name, func(t *testing.T) {
			whole := NewDeadLetter(tt.message, errors.New("junk"))
			const most = 1000
			got, ok := TruncateDeadLetter(whole, most)
			if !ok {
				t.Fatalf("got a dead letter of %d bytes left whole, want it cut to %d", len(whole.Key)+len(whole.Value), most)
			}
			size := len(got.Key) + len(got.Value)
			theirs, _ := splitHeaders(got)
			for _, h := range theirs {
				size += len(h.Key) + len(h.Value)
			}
			if size > most {
				t.Errorf("got %d bytes, want at most %d", size, most)
			}
			if !bytes.HasPrefix(whole.Value, got.Value) || !bytes.HasPrefix(whole.Key, got.Key) {
				t.Errorf("got key %.20q and value %.20q, want the beginning of the original's", got.Key, got.Value)
			}
			for _, header := range []string{HeaderValueTruncated, HeaderKeyLength, HeaderDropped} {
				if has := got.Header(header) != ""; has != slices.Contains(tt.want, header) {
					t.Errorf("got header %s %q, want headers %v", header, got.Header(header), tt.want)
				}
			}
			digest := sha256.Sum256(whole.Value)
			if slices.Contains(tt.want, HeaderValueTruncated) && (got.Header(HeaderValueLength) != "100000" ||
				got.Header(HeaderValueSHA256) != hex.EncodeToString(digest[:])) {
				t.Errorf("got length %s and digest %s, want 100000 and %x", got.Header(HeaderValueLength),
					got.Header(HeaderValueSHA256), digest)
			}
			if got.Header(ConnectMessage) != "junk" {
				t.Errorf("got header %s %q, want it kept: junk", ConnectMessage, got.Header(ConnectMessage))
			}
			d, err := ReadDeadLetter(got)
			if err != nil || !d.Truncated || d.Reason != "junk" || d.Where != "work/3 offset 17" {
				t.Errorf("got %+v (%v), want it read as truncated, with its reason and place", d, err)
			}
		})
	}
	if got, ok := TruncateDeadLetter(NewDeadLetter(original([]byte("key"), []byte("value")), errors.New("junk")), 1000); ok {
		t.Errorf("got %+v cut, want it whole", got)
	}
}

// TestDeadLetterAgain: a message that is put back has its row's account as key, and headers that its producer forged
// are not taken for ours.
func TestDeadLetterAgain(t *testing.T) {
	row := Row{Account: Account{Chain: 300, Address: common.HexToAddress("0x43158f45b5EbD7b1179130130DF00393928C2691")},
		ExternalID: "c1", ImportID: "i1", File: "export.csv", Line: 2}
	forged := []Header{{HeaderValueTruncated, []byte("true")}, {HeaderTopic, []byte("payments")},
		{HeaderAttempts, []byte("9223372036854775807")}, {"trace", []byte("t")}}
	m := NewDeadLetter(original([]byte("c1"), AppendMessage(nil, row), forged...), errors.New("wrong partition"))
	d, err := ReadDeadLetter(m)
	if err != nil || d.Truncated || d.Topic != "work" {
		t.Fatalf("got %+v (%v), want a whole one of topic work", d, err)
	}
	again := d.Again()
	if string(again.Key) != row.Account.String() || again.Header(HeaderAttempts) != "1" ||
		again.Header("trace") != "t" || again.Header(HeaderTopic) != "" {
		t.Errorf("got key %q, headers %q; want the account as key, 1 attempt, trace, and no topic", again.Key, again.Headers)
	}
	d.Value = []byte("junk")
	if got := string(d.Again().Key); got != "c1" {
		t.Errorf("got key %q of a message without a row, want c1", got)
	}
}

// TestConnectHeaders: a dead letter has the headers of Kafka Connect's, in their format and once, also after it was put
// back; those that the message had before are kept.
func TestConnectHeaders(t *testing.T) {
	const p = "__connect.errors."
	for class, stage := range map[string]string{
		"syntax": "VALUE_CONVERTER", "version": "VALUE_CONVERTER", "row": "VALUE_CONVERTER",
		"partition": "KAFKA_CONSUME", "unauthenticated": "HEADER_CONVERTER",
	} {
		want := []Header{
			{p + "topic", []byte("work")}, {p + "partition", []byte("3")}, {p + "offset", []byte("17")},
			{p + "connector.name", []byte("purser")}, {p + "stage", []byte(stage)},
			{p + "class.name", []byte("purser.consumer")}, {p + "exception.class.name", []byte("purser." + class)},
			{p + "exception.message", []byte(`not \x1b valid`)},
		}
		earlier := Header{p + "topic", []byte("orders")} // of a dead letter of a connector
		m := original([]byte("k"), []byte("v"), earlier, Header{"trace", []byte("t")})
		for attempt := range 3 {
			letter := NewDeadLetter(m, &MessageError{Class: class, Reason: "not \x1b valid"})
			var got []Header
			for _, h := range letter.Headers {
				if strings.HasPrefix(h.Key, p) {
					got = append(got, h)
				}
			}
			same := func(a, b Header) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }
			if all := append([]Header{earlier}, want...); !slices.EqualFunc(got, all, same) {
				t.Errorf("%s, attempt %d: got headers %q, want %q", class, attempt, got, all)
			}
			d, err := ReadDeadLetter(letter)
			if err != nil {
				t.Fatal(err)
			}
			again := d.Again()
			if len(again.Headers) != 3 { // earlier, trace, attempts
				t.Errorf("%s, attempt %d: got headers %q put back, want 3", class, attempt, again.Headers)
			}
			m.Headers = again.Headers
			if attempt == 1 {
				m.Headers = letter.Headers // copied back by another tool than redrive
			}
		}
	}
}

// FuzzDeadLetter: any message in the dead-letter topic is read, or an error, and what is printed of it is printable.
func FuzzDeadLetter(f *testing.F) {
	f.Add([]byte("k"), []byte("v"), "purser-topic", "work", "purser-reason", "\x1b[31mred\n", 10)
	f.Add([]byte(nil), []byte("{}x"), "purser-topic", "wo\nrk", "purser-attempts", "9223372036854775807", 0)
	f.Add(bytes.Repeat([]byte("k"), 900), bytes.Repeat([]byte("v"), 900), "purser-topic", "work", "trace", "\xff", 300)
	f.Add([]byte("k"), []byte("v"), "purser-topic", "work", "__connect.errors.topic", "orders", 1000)
	f.Add([]byte("k"), []byte(`{"v":2}`), "purser-value-truncated", "", "purser-topic", "work", 1)
	f.Fuzz(func(t *testing.T, key, value []byte, name1, header1, name2, header2 string, most int) {
		m := original(key, value, Header{name1, []byte(header1)}, Header{name2, []byte(header2)})
		unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
		d, err := ReadDeadLetter(m)
		if err == nil {
			if text := d.Class + d.Reason + d.Topic + d.Where; strings.ContainsFunc(text, unprintable) {
				t.Errorf("got %q, want it printable", text)
			}
			again := d.Again()
			if _, ours := splitHeaders(again); len(ours) != 1 {
				t.Errorf("got %d headers of ours put back, want 1: %q", len(ours), again.Headers)
			}
		} else if strings.ContainsFunc(err.Error(), unprintable) {
			t.Errorf("got error %q, want it printable", err)
		}
		dead := NewDeadLetter(m, errors.New("junk"))
		if n, err := strconv.Atoi(dead.Header(HeaderAttempts)); err != nil || n < 1 {
			t.Errorf("got attempts %q, want a count from 1 on", dead.Header(HeaderAttempts))
		}
		most = int(uint(most) % 2000)
		short, ok := TruncateDeadLetter(dead, most)
		size := len(short.Key) + len(short.Value)
		theirs, _ := splitHeaders(short)
		for _, h := range theirs {
			size += len(h.Key) + len(h.Value)
		}
		if read, err := ReadDeadLetter(short); size > most || err != nil || read.Truncated != ok {
			t.Errorf("got %d bytes, cut %v, read as %+v (%v); want at most %d", size, ok, read, err, most)
		}
	})
}
