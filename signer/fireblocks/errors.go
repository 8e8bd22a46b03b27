package fireblocks

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/purser-onboard/purser/signer"
)

const (
	// mostWords is how many bytes are kept of Fireblocks' own text.
	mostWords = 300
	// tellingSkew is how far off a clock must be to be named as a possible cause of a 401.
	tellingSkew = 5 * time.Second
)

// Codes that Fireblocks answers with in addition to the HTTP status.
const (
	codeRepeatedID     = 1438 // the externalTxId was used before
	codeNoVaultAccount = 1004
)

// Error is a response of Fireblocks other than success. It wraps signer.ErrUnusable if Fireblocks does not accept our
// credentials (401, 403), and for a redirect, which is not followed.
type Error struct {
	Method, Path string        // "POST", "/v1/transactions"; no query
	Status       int           // of HTTP
	Code         int           // Fireblocks' own, 1438; 0 where it gives none
	Message      string        // Fireblocks' text, one line
	RequestID    string        // for Fireblocks' support; may be empty
	RetryAfter   time.Duration // how long to wait; 0 if unknown; at most five minutes
	Skew         time.Duration // how far our clock is ahead of Fireblocks', to the second; 0 if unknown

	own bool // the body is JSON with a message or a code: the answer is Fireblocks' and not a proxy's
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Unwrap() != nil {
		fmt.Fprintf(&b, "%v: ", signer.ErrUnusable)
	}
	fmt.Fprintf(&b, "Fireblocks %s %s: %d %s", e.Method, e.Path, e.Status, http.StatusText(e.Status))
	switch {
	case e.Status >= 300 && e.Status < 400:
		b.WriteString(", which is not followed: name the final base-url")
	case e.Message != "":
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.Code != 0 {
		fmt.Fprintf(&b, " (code %d)", e.Code)
	}
	if e.Status == http.StatusUnauthorized && e.Skew.Abs() > tellingSkew {
		where := "ahead of"
		if e.Skew < 0 {
			where = "behind"
		}
		fmt.Fprintf(&b, "; this machine's clock is %v %s theirs", e.Skew.Abs(), where)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", e.RequestID)
	}
	return b.String()
}

// Unwrap returns signer.ErrUnusable, or nil.
func (e *Error) Unwrap() error {
	switch {
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden, e.Status >= 300 && e.Status < 400:
		return signer.ErrUnusable
	}
	return nil
}

// Throttled reports whether Fireblocks throttles us, or is busy and says for how long; after is zero if it does not
// say.
func (e *Error) Throttled() (after time.Duration, yes bool) {
	yes = e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable && e.RetryAfter > 0
	return e.RetryAfter, yes
}

// final reports whether Fireblocks, and not a proxy, answers that the request is not possible.
func (e *Error) final() bool {
	switch e.Status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusUnprocessableEntity:
		return e.own
	}
	return false
}
