package pipeline

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/purser-onboard/purser/client"
)

const (
	// streakLimit is how many rows in a row may fail in a way that points at the set-up rather than at the row.
	streakLimit = 5
	// outageAfter and outageTries say when a partner that gives no usable answer is taken for gone.
	outageAfter = 2 * time.Minute
	outageTries = 10
	tellEvery   = 30 * time.Second
)

// health watches for trouble that is not the rows': it halts the run before the rows pay for it (rule 10).
type health struct {
	mu       sync.Mutex
	lastGood time.Time // the last answer that was the partner's own and no 5xx
	bad      int       // unusable answers since
	told     time.Time // when the operator was last told of them, monotonic

	signerGood time.Time // the last signature that was right

	throttled time.Time // when the operator was last told of throttling, monotonic
	class     string    // of the running streak
	length    int
}

func (h *health) start(now time.Time) { h.lastGood = now }

// judge notes whether the partner answered, and halts when nobody has had an answer for long, or when a row is about to
// fail for want of one while no other row has fared better.
func (h *health) judge(
	t *task, res result, d Disposition, now time.Time, tell func(tries int, since time.Time, cause error),
) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch res.outcome {
	case Throttled:
		var partner *client.Error
		if !errors.As(res.err, &partner) {
			return nil // the signer does
		}
		if tell != nil && monotonic().Sub(h.throttled) >= tellEvery {
			h.throttled = monotonic()
			tell(0, now, res.err)
		}
		h.lastGood, h.bad = now, 0
		return nil
	case Unknown, ServerFailed, ReadFailed, NotSent:
		var soon tooSoonError
		if errors.As(res.err, &soon) {
			return nil
		}
		h.bad++
		if tell != nil && (h.bad == 1 || monotonic().Sub(h.told) >= tellEvery) {
			h.told = monotonic()
			tell(h.bad, h.lastGood, res.err)
		}
		if t.trouble.IsZero() {
			t.trouble = now
		}
	case SignerFailed:
		if t.signerTrouble.IsZero() {
			t.signerTrouble = now
		}
		if d.Class == "signer-error" && !h.signerGood.After(t.signerTrouble) {
			return &HaltError{Class: "signer", Row: t.Row, Err: fmt.Errorf("the signer has made no signature since %s: %w",
				t.signerTrouble.UTC().Format(time.RFC3339), res.err)}
		}
		return nil
	case CheckPassed, Hostile, Expiring, Signed, NoKey, Declined, Mismatch, SignerLost, Waiting:
		return nil // the partner was not asked
	default:
		h.lastGood, h.bad = now, 0
		t.trouble = time.Time{}
		return nil
	}
	givingUp := d.Class == "no-answer" || d.Class == "server-error"
	if givingUp && !h.lastGood.After(t.trouble) || h.bad >= outageTries && now.Sub(h.lastGood) > outageAfter {
		return &HaltError{Class: "unreachable", Row: t.Row, Err: fmt.Errorf("no usable answer of the partner since %s: %w",
			h.lastGood.UTC().Format(time.RFC3339), res.err)}
	}
	return nil
}

// streak counts rows that fail alike, and halts when it gets too long.
func (h *health) streak(r Row, class string, cause error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch class {
	case "signer-mismatch", "unexpected":
		if h.class != class {
			h.class, h.length = class, 0
		}
		h.length++
		if h.length >= streakLimit {
			return &HaltError{Class: class, Row: r, Err: cause}
		}
	}
	return nil
}

// settledWell ends a streak of answers that had no place.
func (h *health) settledWell() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.class == "unexpected" {
		h.class, h.length = "", 0
	}
}

// signerSpoke notes a signature that was right, and ends a streak of those that were not.
func (h *health) signerSpoke(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.signerGood = now
	if h.class == "signer-mismatch" {
		h.class, h.length = "", 0
	}
}

// oneLine makes text fit for one line of a report: printable, at most max bytes.
func oneLine(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, "\ufffd"))
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}
