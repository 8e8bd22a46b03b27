package fireblocks

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/internal/fireblockstest"
	"github.com/purser-onboard/purser/signer"
)

func TestApproval(t *testing.T) {
	s := setUp(t, fireblockstest.Config{Reads: 2, Unsigned: 2})
	asks, polls := custodian(s.open(t)), custodian(s.open(t)) // as after a restart
	ctx, account := t.Context(), s.account()
	if err := asks.Request(ctx, "row-1", account, hello); err != nil {
		t.Fatal(err)
	}
	for range 3 { // requested again, it is the same transaction
		if err := polls.Request(ctx, "row-1", account, hello); err != nil {
			t.Fatal(err)
		}
		_, err := polls.Poll(ctx, "row-1", account, hello)
		want(t, err, signer.ErrPending)
	}
	all := s.Transactions()
	if len(all) != 1 || all[0].Posts != 4 || all[0].Status != "PENDING_AUTHORIZATION" || string(all[0].Message) != "hello" ||
		all[0].Account != "1" || all[0].Note != "Sign-in of "+account.Hex()+", asked for by Purser" {
		t.Fatalf("got transactions %+v, want one of account 1 with our note", all)
	}
	if err := s.Approve("row-1"); err != nil {
		t.Fatal(err)
	}
	for i := range 4 { // twice on the way, twice completed without the signature
		_, err := polls.Poll(ctx, "row-1", account, hello)
		want(t, err, signer.ErrPending)
		if late := strings.Contains(err.Error(), "COMPLETED, without a signature yet"); late != (i >= 2) {
			t.Errorf("poll %d: got %v, want COMPLETED: %v", i+1, err, i >= 2)
		}
	}
	sig, err := polls.Poll(ctx, "row-1", account, hello)
	if err != nil || sig[64] < 27 {
		t.Fatalf("Poll = %x, %v; want a signature with v of 27 or 28", sig, err)
	}
	if again, err := asks.Poll(ctx, "row-1", account, hello); err != nil || again != sig {
		t.Errorf("second Poll = %x, %v; want the same signature, %x", again, err, sig)
	}
	if err := asks.Cancel(ctx, "row-1"); err != nil {
		t.Errorf("Cancel of what is decided: got error %v, want none", err)
	}
}

func TestDecidedAgainst(t *testing.T) {
	s := setUp(t, fireblockstest.Config{})
	c := custodian(s.open(t))
	ctx, account := t.Context(), s.account()
	for i, status := range []string{"REJECTED", "BLOCKED", "FAILED", "CANCELLED", "TIMEOUT"} {
		id := fmt.Sprintf("row-%d", i)
		if err := c.Request(ctx, id, account, hello); err != nil {
			t.Fatal(err)
		}
		if err := s.SetStatus(id, status, "BECAUSE"); err != nil {
			t.Fatal(err)
		}
		_, err := c.Poll(ctx, id, account, hello)
		if !errors.Is(err, signer.ErrDeclined) || !strings.Contains(err.Error(), status+", BECAUSE") {
			t.Errorf("%s: got error %v, want ErrDeclined with status and sub-status", status, err)
		}
		if err := c.Request(ctx, id, account, hello); err != nil {
			t.Errorf("Request of what is decided: got error %v, want none", err)
		}
		if err := c.Cancel(ctx, id); err != nil {
			t.Errorf("Cancel of what is decided: got error %v, want none", err)
		}
	}
	// A status that was not there when this was written leads on.
	if err := c.Request(ctx, "row-9", account, hello); err != nil {
		t.Fatal(err)
	}
	if err := s.SetStatus("row-9", "PENDING_SOMETHING_NEW", ""); err != nil {
		t.Fatal(err)
	}
	_, err := c.Poll(ctx, "row-9", account, hello)
	want(t, err, signer.ErrPending)
}

func TestCancel(t *testing.T) {
	s := setUp(t, fireblockstest.Config{})
	c := custodian(s.open(t))
	ctx, account := t.Context(), s.account()
	want(t, c.Cancel(ctx, "row-1"), signer.ErrUnknownRequest)
	if err := c.Request(ctx, "row-1", account, hello); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Cancel(ctx, "row-1"); err != nil {
			t.Fatal(err)
		}
	}
	if all := s.Transactions(); all[0].Status != "CANCELLED" || !all[0].CancelSent {
		t.Errorf("got transactions %+v, want the first CANCELLED on request", all)
	}
	if n := s.Calls("POST /v1/transactions/" + s.Transactions()[0].ID + "/cancel"); n != 1 {
		t.Errorf("got %d requests to cancel, want 1", n)
	}
	_, err := c.Poll(ctx, "row-1", account, hello)
	want(t, err, signer.ErrDeclined)
	// Decided while it is cancelled: the answer to the first cancellation is lost.
	if err := c.Request(ctx, "row-2", account, hello); err != nil {
		t.Fatal(err)
	}
	s.Fail(fireblockstest.Fault{Method: "POST", Path: "/v1/transactions/", Acted: true, Status: 500})
	if err := c.Cancel(ctx, "row-2"); err != nil {
		t.Errorf("Cancel whose answer was lost: got error %v, want none", err)
	}
	if err := c.Request(ctx, "row-3", account, hello); err != nil {
		t.Fatal(err)
	}
	s.ClearFaults()
	s.Fail(fireblockstest.Fault{Method: "POST", Path: "/v1/transactions/", Status: 500})
	transient(t, c.Cancel(ctx, "row-3"))
}

func TestUnknownRequest(t *testing.T) {
	s := setUp(t, fireblockstest.Config{})
	v := s.open(t)
	_, err := v.Poll(t.Context(), "row-1", s.account(), hello)
	want(t, err, signer.ErrUnknownRequest)
	// Not every 404 says so.
	s.Fail(fireblockstest.Fault{Status: 404, Body: "<html>no such page</html>"})
	_, err = v.Poll(t.Context(), "row-1", s.account(), hello)
	transient(t, err)
}

// Whatever happens to the answer, there is one transaction.
func TestOutcomeUnknown(t *testing.T) {
	const path = "/v1/transactions"
	for name, c := range map[string]struct {
		fault fireblockstest.Fault
		taken bool // and found to be, by the same call
	}{
		"cut after it was taken":  {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Acted: true, Drop: true}, true},
		"502 after it was taken":  {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Acted: true, Status: 502, Body: "Bad Gateway"}, true},
		"half an answer":          {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Acted: true, Status: 200, Body: `{"id":"0`}, true},
		"an answer of nothing":    {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Acted: true, Status: 200, Body: `{}`}, true},
		"a 400 after it was made": {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Acted: true, Status: 400, Code: 1, Message: "no"}, true},
		"cut before":              {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Drop: true}, false},
		"502 before":              {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Status: 502, Body: "Bad Gateway"}, false},
		"a repeated id of none":   {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Status: 400, Code: 1438, Message: "exists"}, false},
		"a proxy's 400":           {fireblockstest.Fault{Method: "POST", Path: path, Times: 1, Status: 400, Body: "<html>"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := setUp(t, fireblockstest.Config{AutoApprove: true})
			v := custodian(s.open(t))
			s.Fail(c.fault)
			err := v.Request(t.Context(), "row-1", s.account(), hello)
			if c.taken && err != nil {
				t.Errorf("error %v, want none: it was taken", err)
			}
			if !c.taken {
				transient(t, err)
				if err := v.Request(t.Context(), "row-1", s.account(), hello); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := v.Poll(t.Context(), "row-1", s.account(), hello); err != nil {
				t.Errorf("got error %v, want none", err)
			}
			if n := len(s.Transactions()); n != 1 {
				t.Errorf("got %d transactions, want 1", n)
			}
		})
	}
	t.Run("and no way to ask", func(t *testing.T) {
		s := setUp(t, fireblockstest.Config{})
		s.Fail(fireblockstest.Fault{Status: 500})
		transient(t, s.open(t).Request(t.Context(), "row-1", s.account(), hello))
	})
}

// An id that was used for something else does not count as ours.
func TestAnothersTransaction(t *testing.T) {
	s := setUp(t, fireblockstest.Config{AutoApprove: true})
	v := s.open(t)
	if err := v.Request(t.Context(), "row-1", s.account(), hello); err != nil {
		t.Fatal(err)
	}
	want(t, v.Request(t.Context(), "row-1", s.account(), []byte("another message")), signer.ErrMismatch)
	_, err := v.Poll(t.Context(), "row-1", s.account(), []byte("another message"))
	want(t, err, signer.ErrMismatch)
}

func TestBadID(t *testing.T) {
	s := setUp(t, fireblockstest.Config{})
	v := s.open(t)
	for _, id := range []string{"", "a/b", "a b", strings.Repeat("a", 65)} {
		want(t, v.Request(t.Context(), id, s.account(), hello), signer.ErrDeclined)
	}
	if n := len(s.Transactions()); n != 0 {
		t.Errorf("got %d transactions, want 0", n)
	}
}

// The server and the client may both be restarted.
func TestRestarts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fireblocks.json")
	s := setUp(t, fireblockstest.Config{File: file})
	if err := s.open(t).Request(t.Context(), "row-1", s.account(), hello); err != nil {
		t.Fatal(err)
	}
	again := setUp(t, fireblockstest.Config{File: file})
	v := custodian(again.open(t))
	if err := v.Request(t.Context(), "row-1", s.account(), hello); err != nil {
		t.Fatal(err)
	}
	_, err := v.Poll(t.Context(), "row-1", s.account(), hello)
	want(t, err, signer.ErrPending)
	if err := again.Approve("row-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Poll(t.Context(), "row-1", s.account(), hello); err != nil {
		t.Errorf("got error %v, want none", err)
	}
	if all := again.Transactions(); len(all) != 1 || all[0].Posts != 2 {
		t.Errorf("got transactions %+v, want one that was posted twice", all)
	}
}
