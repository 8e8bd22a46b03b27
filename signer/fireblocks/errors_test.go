package fireblocks

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/purser-onboard/purser/internal/fireblockstest"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

func want(t *testing.T, err, sentinel error) {
	t.Helper()
	if !errors.Is(err, sentinel) {
		t.Errorf("error %v, want %v", err, sentinel)
	}
}

func transient(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Error("got no error, want one")
	}
	for _, sentinel := range []error{
		signer.ErrNoKey, signer.ErrDeclined, signer.ErrMismatch, signer.ErrUnusable, signer.ErrPending, signer.ErrUnknownRequest,
	} {
		if errors.Is(err, sentinel) {
			t.Errorf("error %v, want a transient one", err)
		}
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		fault fireblockstest.Fault
		want  error // nil: transient
	}{
		"400":                {fireblockstest.Fault{Status: 400, Code: 1427, Message: "no"}, signer.ErrDeclined},
		"401":                {fireblockstest.Fault{Status: 401, Code: -1, Message: "Invalid signature"}, signer.ErrUnusable},
		"403":                {fireblockstest.Fault{Status: 403, Body: "<html>Forbidden</html>"}, signer.ErrUnusable},
		"no vault account":   {fireblockstest.Fault{Status: 404, Code: 1004, Message: "Vault account 1 was not found"}, signer.ErrNoKey},
		"a page of a 404":    {fireblockstest.Fault{Status: 404, Body: "<html>"}, nil},
		"a redirect":         {fireblockstest.Fault{Status: 307, Location: "/elsewhere", Body: "gone"}, signer.ErrUnusable},
		"busy":               {fireblockstest.Fault{Status: 503, RetryAfter: "7", Body: "busy"}, nil},
		"a time-out of ours": {fireblockstest.Fault{Status: 408, Code: 3, Message: "slow"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := setUp(t, fireblockstest.Config{})
			c.fault.Method, c.fault.Path = "POST", "/v1/transactions"
			s.Fail(c.fault)
			err := s.open(t).Request(t.Context(), "row-1", s.account(), hello)
			if c.want == nil {
				transient(t, err)
			} else {
				want(t, err, c.want)
			}
			var e *Error
			if !errors.As(err, &e) || e.Status != c.fault.Status || e.Code != c.fault.Code || e.Method != http.MethodPost {
				t.Errorf("got error %#v, want an *Error of POST with status %d and code %d", err, c.fault.Status, c.fault.Code)
			}
			if n := s.Calls("POST /elsewhere") + s.Calls("GET /elsewhere"); n != 0 {
				t.Errorf("the redirect was followed %d times, want never", n)
			}
		})
	}
}

func TestThrottled(t *testing.T) {
	s := setUp(t, fireblockstest.Config{})
	v := s.open(t)
	for header, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "999999": 5 * time.Minute, "soon": 0} {
		s.ClearFaults()
		s.Fail(fireblockstest.Fault{Status: 429, RetryAfter: header, Message: "slow down"})
		for _, err := range []error{
			v.Request(t.Context(), "row-1", s.account(), hello),
			func() error { _, err := v.Poll(t.Context(), "row-1", s.account(), hello); return err }(),
			v.Cancel(t.Context(), "row-1"),
		} {
			transient(t, err)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got error %v, want an *Error", err)
			}
			if after, yes := e.Throttled(); !yes || after != want {
				t.Errorf("Retry-After %q: got throttled %v, after %v; want true, %v", header, yes, after, want)
			}
		}
	}
	if n := s.Calls("GET /v1/transactions/external_tx_id/row-1"); n != 8 { // Poll and Cancel; none to look after a 429
		t.Errorf("%d reads, want 8", n)
	}
}

// A vault map with the wrong account is found before anything is believed.
func TestWrongVaultAccount(t *testing.T) {
	s := setUp(t, fireblockstest.Config{AutoApprove: true}, signertest.Key(0), signertest.Key(1))
	other := signertest.Address(signertest.Key(5))
	head, _, _ := strings.Cut(s.uri, "&vault-map=")
	s.uri = head + "&vault-map=" + writeFile(t, "wrong.csv", "address,vaultAccountId\n"+other.Hex()+",2\n")
	v := s.open(t)
	_, err := signer.Verified(v).SignMessage(t.Context(), other, hello)
	if !errors.Is(err, signer.ErrMismatch) || !strings.Contains(err.Error(), signertest.Address(signertest.Key(1)).Hex()) {
		t.Errorf("error %v, want ErrMismatch that names the signer", err)
	}
	if line, err := v.Check(t.Context()); !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), "does not hold") {
		t.Errorf("Check = %q, %v; want ErrUnusable with \"does not hold\"", line, err)
	}
	s.uri = head + "&vault-map=" + writeFile(t, "missing.csv", "address,vaultAccountId\n"+other.Hex()+",77\n")
	if line, err := s.open(t).Check(t.Context()); !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), "account 77") {
		t.Errorf("Check = %q, %v; want ErrUnusable with account 77", line, err)
	}
	want(t, s.open(t).Request(t.Context(), "row-1", other, hello), signer.ErrNoKey)
}

// A clock that is off is named as a reason.
func TestClock(t *testing.T) {
	for name, c := range map[string]struct {
		by   time.Duration
		want string
	}{
		"ahead":  {time.Minute, "this machine's clock is 1m0s ahead of theirs"},
		"behind": {-time.Minute, "this machine's clock is 1m0s behind theirs"},
	} {
		t.Run(name, func(t *testing.T) {
			s := setUp(t, fireblockstest.Config{})
			s.clock = func() time.Time { return time.Now().Add(c.by) }
			_, err := s.open(t).Check(t.Context())
			want(t, err, signer.ErrUnusable)
			if text := strings.ReplaceAll(fmt.Sprint(err), "59s", "1m0s"); !strings.Contains(text, c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}
