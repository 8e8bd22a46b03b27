package fireblocks

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/purser-onboard/purser/signer"
)

const (
	// mostWords is how many bytes are kept of what Fireblocks says in its own words.
	mostWords = 300
	// mostRetryAfter bounds what a Retry-After may make us wait.
	mostRetryAfter = 5 * time.Minute
	// tellingSkew: a clock that is further off than this may be why a token was refused.
	tellingSkew = 5 * time.Second
)

// Codes that Fireblocks gives beside the status of HTTP.
const (
	codeRepeatedID     = 1438 // the externalTxId was used before
	codeNoVaultAccount = 1004
)

// Error is an answer of Fireblocks that is no success. It wraps signer.ErrUnusable where Fireblocks refuses us rather
// than what we ask (401, 403), and for a redirect, which is not followed.
type Error struct {
	Method, Path string        // "POST", "/v1/transactions"; no query
	Status       int           // of HTTP
	Code         int           // Fireblocks' own, 1438; 0 where it gives none
	Message      string        // Fireblocks' words, one line
	RequestID    string        // for Fireblocks' support; may be empty
	RetryAfter   time.Duration // when it wants to be asked again; 0 where it does not say; at most five minutes
	Skew         time.Duration // how far our clock is ahead of Fireblocks', to the second; 0 where it does not say

	spoken bool // the body is JSON with a message or a code, as Fireblocks' own are and those of proxies hardly
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

// Unwrap gives signer.ErrUnusable, or nil.
func (e *Error) Unwrap() error {
	switch {
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden, e.Status >= 300 && e.Status < 400:
		return signer.ErrUnusable
	}
	return nil
}

// Throttled reports whether Fireblocks only finds us too fast, or is busy and says for how long; after is zero where
// it does not say.
func (e *Error) Throttled() (after time.Duration, yes bool) {
	yes = e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable && e.RetryAfter > 0
	return e.RetryAfter, yes
}

// refused: Fireblocks, and not something in front of it, says that what we ask cannot be.
func (e *Error) refused() bool {
	switch e.Status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusUnprocessableEntity:
		return e.spoken
	}
	return false
}

// retryAfter reads the header of that name: seconds or a date (RFC 9110, section 10.2.3).
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, mostRetryAfter)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), mostRetryAfter)
}
