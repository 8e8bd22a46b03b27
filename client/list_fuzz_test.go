package client

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// FuzzCustomers: a list that is taken for complete is complete JSON and announces nothing, by another reader than the
// client's.
func FuzzCustomers(f *testing.F) {
	two := element(0) + `,` + element(1)
	for i, a := range announcements {
		body, err := io.ReadAll(announcing(two, i).body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(body), a.value)
	}
	for _, body := range []string{`[` + two + `]`, `[` + two, `{"customers":[` + two + `]}{}`, `{"data":{"items":[]}}`,
		`[{"id":7}]`, `{"error":"x"}`, `null`, `<html>`} {
		f.Add(body, "2")
	}
	f.Fuzz(func(t *testing.T, body, count string) {
		if strings.ContainsFunc(count, func(r rune) bool { return r < ' ' || r > '~' }) {
			count = ""
		}
		yielded := 0
		err := readPage(body, http.Header{"X-Total-Count": {count}}, func(c Customer) error {
			yielded++
			if !isUUID(c.ID) {
				t.Errorf("got the id %q, want a UUID", c.ID)
			}
			return nil
		})
		var shape *shapeError
		var partial *PartialListError
		whole := json.Valid([]byte(body))
		switch {
		case err == nil, errors.As(err, &partial):
			var elements []json.RawMessage
			var members map[string]json.RawMessage
			if json.Unmarshal([]byte(body), &elements) != nil && json.Unmarshal([]byte(body), &members) != nil {
				t.Fatalf("got %v for %q, want an error", err, body)
			}
			if partial != nil && partial.Read != yielded {
				t.Errorf("got %d read, want %d", partial.Read, yielded)
			}
			if err == nil && (moreThan(count, yielded) || announces(members, yielded, 0)) {
				t.Errorf("%q, X-Total-Count: %q: got %d customers and no error, want a PartialListError", body, count, yielded)
			}
		case errors.As(err, &shape):
			if !whole {
				t.Errorf("%q: got %v, want no shapeError, because it is not JSON", body, err)
			}
		}
	})
}

// moreThan reports whether a total may be more than n: it is, or it cannot be read.
func moreThan(total string, n int) bool {
	total = strings.TrimSpace(total)
	switch strings.ToLower(total) {
	case "", "false", "null":
		return false
	}
	f, err := strconv.ParseFloat(total, 64)
	return err != nil || !(f <= float64(n))
}

// readPage reads a list of one page without a request.
func readPage(body string, header http.Header, yield func(Customer) error) error {
	m := &meter{r: strings.NewReader(body), most: defaultMaxBody, patience: time.Hour}
	m.timer = time.AfterFunc(time.Hour, func() {})
	defer m.timer.Stop()
	var all extent
	list := listReader{decoder: json.NewDecoder(m), body: m, yield: yield, extent: &all}
	if err := list.read(); err != nil {
		return err
	}
	all.pages++
	all.noteHeader(header)
	_, err := all.next("https://api.example/v1", "/customers", header)
	return err
}

// announces reports whether the members of an answer announce more customers, two objects deep.
func announces(members map[string]json.RawMessage, read, depth int) bool {
	for name, value := range members {
		if depth == 0 && (name == "customers" || name == "data" || name == "items") && value[0] == '[' {
			continue
		}
		switch strings.ToLower(strings.ReplaceAll(name, "_", "")) {
		case "next", "nextpage", "nextcursor", "nextpagetoken", "nexttoken", "hasmore", "hasnext", "istruncated",
			"truncated", "lastevaluatedkey":
			var scalar any
			if json.Unmarshal(value, &scalar) == nil {
				if text, ok := scalar.(string); ok && len(text) > 5 || scalar == true {
					return true
				}
			}
		case "total", "totalcount", "count", "totalitems":
			var n float64
			if json.Unmarshal(value, &n) == nil && n > float64(read) {
				return true
			}
		case "totalpages", "pages":
			var n float64
			if json.Unmarshal(value, &n) == nil && n > 1 {
				return true
			}
		}
		var inner map[string]json.RawMessage
		if depth < 2 && json.Unmarshal(value, &inner) == nil && announces(inner, read, depth+1) {
			return true
		}
	}
	return false
}
