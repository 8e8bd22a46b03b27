package client

import (
	"bytes"
	"cmp"
	"encoding/json"
	"html"
	"regexp"
	"strings"

	"github.com/purser-onboard/purser/printable"
)

const (
	mostMessage = 300 // bytes
	mostCode    = 80
	mostProse   = 64 << 10 // of a body that is not JSON
)

// words returns the partner's code and message in the body of an error, each as one printable line. It ignores the
// Content-Type, which is often wrong for a proxy's page or a framework's default error.
func (c *Client) words(body []byte) (code, message string) {
	code, message, ok := jsonWords(body)
	if !ok {
		message = prose(c.redact(string(body)))
	}
	return c.line(code, mostCode), c.line(message, mostMessage)
}

// line returns s as one printable line without secrets, of at most so many bytes.
func (c *Client) line(s string, most int) string {
	// Redacted before the line is cut, so that no part of a secret is left at the end.
	return printable.Line(c.redact(s), most)
}

// redact takes out the credentials and the tokens that the client has used.
func (c *Client) redact(s string) string { return c.tokens.redactor().redact(s) }

// shown redacts the customer's status, which may be any text of the partner's.
func (c *Client) shown(customer Customer) Customer {
	customer.Status = Status(c.redact(string(customer.Status)))
	return customer
}

// cleaned is an error with another text, which may be shown.
type cleaned struct {
	text string
	err  error
}

func (e *cleaned) Error() string { return e.text }
func (e *cleaned) Unwrap() error { return e.err }

// clean makes the text of an error one short printable line without secrets: net/http quotes the peer's response.
func (c *Client) clean(err error) error {
	text := err.Error()
	if clean := c.line(text, mostMessage); clean != text {
		return &cleaned{text: clean, err: err}
	}
	return err
}

// jsonWords reads the error bodies in use: RFC 9457 problems, {"code","message"}, {"error":{…}}, {"error":"…"} with
// "error_description" (RFC 6749 §5.2), {"message":["…"]}, {"errors":[…]}, and a bare string.
func jsonWords(body []byte) (code, message string, ok bool) {
	var value any
	if !json.Valid(body) || json.Unmarshal(body, &value) != nil {
		return "", "", false
	}
	code, message = find(value, 0)
	if message == "" && code == "" {
		// Encoded again, because a secret could be hidden in escapes that JSON does not require.
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.UseNumber()
		_ = decoder.Decode(&value)
		var compact bytes.Buffer
		encoder := json.NewEncoder(&compact)
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(value) // body is valid JSON: neither can fail
		message = strings.TrimSuffix(compact.String(), "\n")
	}
	return code, message, true
}

// find returns the code and the message in a decoded body, at most four levels deep.
func find(value any, depth int) (code, message string) {
	const deepest, most = 4, 5
	if depth > deepest {
		return "", ""
	}
	switch v := value.(type) {
	case string:
		return "", v
	case []any:
		for _, element := range v[:min(len(v), most)] {
			c, m := find(element, depth+1)
			code = cmp.Or(code, c)
			message = joined(message, "; ", m)
		}
	case map[string]any:
		code = firstText(v, "code", "errorCode", "error_code", "type")
		if code == "about:blank" { // RFC 9457 §4.2.1: the same as the status
			code = ""
		}
		words := firstText(v, "detail", "message", "msg", "error_description", "description", "reason")
		if name, ok := v["error"].(string); ok && words != "" && code == "" {
			code = name // {"error":"invalid_request","error_description":"…"}
		}
		message = joined(firstText(v, "title"), ": ", words)
		for _, member := range []string{"message", "error", "errors", "fault"} {
			c, m := find(v[member], depth+1)
			code = cmp.Or(code, c)
			if m != code {
				message = joined(message, ": ", m)
			}
		}
	}
	return code, message
}

// firstText returns the first of the members that is a non-empty string or a number.
func firstText(object map[string]any, names ...string) string {
	for _, name := range names {
		switch v := object[name].(type) {
		case string:
			if v != "" {
				return v
			}
		case float64:
			text, _ := json.Marshal(v)
			return string(text)
		}
	}
	return ""
}

// joined joins two texts, unless one contains the other.
func joined(a, between, b string) string {
	switch {
	case strings.Contains(a, b):
		return a
	case strings.Contains(b, a):
		return b
	}
	return a + between + b
}

var (
	hidden = regexp.MustCompile(`(?is)<(script|style|head)\b.*?</(?:script|style|head)\s*>|<!--.*?-->`)
	title  = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title\s*>`)
	tag    = regexp.MustCompile(`(?s)<[a-zA-Z/!?][^>]*>?`)
)

// prose returns the text of HTML, and any other text unchanged.
func prose(text string) string {
	text = text[:min(len(text), mostProse)]
	if !strings.Contains(text, "<") {
		return folded(text)
	}
	heading := ""
	if m := title.FindStringSubmatch(text); m != nil {
		heading = m[1]
	}
	text = tag.ReplaceAllString(hidden.ReplaceAllString(text, " "), " ")
	return folded(html.UnescapeString(joined(strings.TrimSpace(heading), ": ", strings.TrimSpace(text))))
}

// folded replaces each run of white space by a space, as a browser does.
func folded(text string) string { return strings.Join(strings.Fields(text), " ") }
