package sandbox

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"strconv"
	"time"
)

// ErrorShape is the form of the body of an error. The vendor documents none, so a client must handle all. [inferred]
type ErrorShape string

// The shapes of an error's body.
const (
	ShapeProblem ErrorShape = "problem" // application/problem+json, RFC 9457
	ShapeCode    ErrorShape = "code"    // {"code","message"}
	ShapeText    ErrorShape = "text"    // plain text
	ShapeEmpty   ErrorShape = "empty"   // no body at all
	ShapeHTML    ErrorShape = "html"    // as a proxy writes it
	ShapeRotate  ErrorShape = "rotate"  // one of the above, drawn by the seed for each operation, subject and attempt
)

func (s ErrorShape) known() bool {
	switch s {
	case "", ShapeProblem, ShapeCode, ShapeText, ShapeEmpty, ShapeHTML, ShapeRotate:
		return true
	}
	return false
}

// reply is an answer before it is sent, or as it is stored under an idempotency key.
type reply struct {
	status      int
	contentType string
	body        []byte
	retryAfter  string
	location    string
	allow       string
	link, total string   // fields Link and X-Total-Count
	list        *listing // instead of body: the customer list
	cut         bool     // no answer: the connection is closed
	inFlight    bool     // another request with this key is in progress
}

// refusal is the reason of an error answer.
type refusal struct {
	status   int
	code     string // for ShapeCode
	detail   string
	inFlight bool
	fixed    string // body in text/plain that is sent whatever the shape
}

func refuse(status int, code, format string, args ...any) *refusal {
	return &refusal{status: status, code: code, detail: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) *refusal {
	return refuse(http.StatusBadRequest, "invalid_request", format, args...)
}

func unauthorized(format string, args ...any) *refusal {
	return refuse(http.StatusUnauthorized, "unauthorized", format, args...)
}

// badSignature is the answer to a request signature that does not verify; with VerifyVendor without the cause. [lib]
func (s *Server) badSignature(err error) *refusal {
	f := unauthorized("request signature: %v", err)
	if s.cfg.Verify == VerifyVendor {
		f.status, f.fixed = http.StatusBadRequest, "invalid required signature"
	}
	return f
}

// title returns the problem's short name. That of the concurrency conflict is the vendor's. [doc]
func (f *refusal) title() string {
	if f.inFlight {
		return "Idempotency-Key Concurrency Conflict"
	}
	if f.code == codeKeyReused {
		return "Idempotency-Key Reused"
	}
	return http.StatusText(f.status)
}

const codeKeyReused = "idempotency_key_reused"

func (s *Server) render(f *refusal, op Operation, subject string, attempt int) reply {
	shape := s.cfg.ErrorShape
	if shape == ShapeRotate {
		shapes := []ErrorShape{ShapeProblem, ShapeCode, ShapeText, ShapeEmpty, ShapeHTML}
		shape = shapes[s.seed.pick(len(shapes), "shape", string(op), subject, strconv.Itoa(attempt))]
	}
	return f.in(shape)
}

func (f *refusal) in(shape ErrorShape) reply {
	r := reply{status: f.status, inFlight: f.inFlight}
	if f.fixed != "" {
		r.contentType, r.body = "text/plain", []byte(f.fixed)
		return r
	}
	switch shape {
	case ShapeCode:
		r.contentType = "application/json"
		r.body = mustJSON(struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		}{f.code, f.title() + ": " + f.detail})
	case ShapeText:
		r.contentType = "text/plain; charset=utf-8"
		r.body = []byte(f.title() + ": " + f.detail + "\n")
	case ShapeHTML:
		r.contentType = "text/html"
		r.body = fmt.Appendf(nil, "<html><head><title>%d %s</title></head>\r\n<body><center><h1>%d %s</h1></center>"+
			"<hr><center>nginx</center><!-- %s --></body></html>\r\n",
			f.status, http.StatusText(f.status), f.status, http.StatusText(f.status), html.EscapeString(f.detail))
	case ShapeEmpty:
	default:
		r.contentType = "application/problem+json"
		r.body = mustJSON(struct {
			Type   string `json:"type"`
			Title  string `json:"title"`
			Status int    `json:"status"`
			Detail string `json:"detail"`
		}{"about:blank", f.title(), f.status, f.detail})
	}
	return r
}

func jsonReply(status int, v any) reply {
	return reply{status: status, contentType: "application/json", body: mustJSON(v)}
}

// mustJSON marshals types of this package, which cannot fail.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("sandbox: " + err.Error())
	}
	return b
}

// retryAfter returns one of the header's two forms (RFC 9110 section 10.2.3): seconds, rounded up, or a date.
func retryAfter(now time.Time, wait time.Duration, asDate bool) string {
	seconds := max(1, int64((wait+time.Second-1)/time.Second))
	if !asDate {
		return strconv.FormatInt(seconds, 10)
	}
	at := now.Add(time.Duration(seconds) * time.Second)
	if whole := at.Truncate(time.Second); whole.Before(at) {
		at = whole.Add(time.Second)
	}
	return at.UTC().Format(http.TimeFormat)
}
