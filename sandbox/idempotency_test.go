package sandbox

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestSameKeySameAnswer(t *testing.T) {
	p := open(t, nil)
	w := newWallet(1)
	key := withKey(testKey(1))
	first := p.do("POST", "/v1/customers", createBody(w.account(), "ext-1"), key)
	second := p.do("POST", "/v1/customers", createBody(w.account(), "ext-1"), withKey(strings.ToUpper(testKey(1))))
	if first.status != 201 || second.status != 201 || first.body != second.body || len(p.s.Customers()) != 1 {
		t.Errorf("got %+v, then %+v; want the same 201 and one customer", first, second)
	}
	if e := p.last(); !e.Replayed || e.Created {
		t.Errorf("history: got %+v, want a replay without a creation", e)
	}
	// An error of the operation is stored, too.
	exists := p.do("POST", "/v1/customers", createBody(w.account(), "ext-2"), withKey(testKey(2)))
	again := p.do("POST", "/v1/customers", createBody(w.account(), "ext-2"), withKey(testKey(2)))
	if exists.status != 409 || again.status != 409 || exists.body != again.body || !p.last().Replayed {
		t.Errorf("got %+v, then %+v; want the same 409, replayed", exists, again)
	}
}

func TestSameKeyOtherPayload(t *testing.T) {
	p := open(t, nil)
	key := withKey(testKey(1))
	p.do("POST", "/v1/customers", createBody(newWallet(1).account(), "ext-1"), key)
	for _, a := range []answer{
		p.do("POST", "/v1/customers", createBody(newWallet(1).account(), "ext-2"), key),
		p.do("PATCH", "/v1/simulator/customers/x/verify", "", key),
	} {
		if a.status != 422 || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("got %+v, want status 422, Content-Type application/problem+json", a)
		}
	}
}

func TestKeyIsForgottenAfterItsTime(t *testing.T) {
	p := open(t, func(c *Config) { c.KeyTTL = time.Minute })
	body := createBody(newWallet(1).account(), "ext-1")
	p.do("POST", "/v1/customers", body, withKey(testKey(1)))
	p.clock.advance(time.Minute - 1)
	if a := p.do("POST", "/v1/customers", body, withKey(testKey(1))); a.status != 201 {
		t.Errorf("within the minute: got %+v, want status 201", a)
	}
	p.clock.advance(1)
	if a := p.do("POST", "/v1/customers", body, withKey(testKey(1))); a.status != 409 {
		t.Errorf("after the minute: got %+v, want the 409 of a second execution", a)
	}
}

func TestKeysBelongToTheirAPIKey(t *testing.T) {
	p := open(t, nil)
	p.do("POST", "/v1/customers", createBody(newWallet(1).account(), "ext-1"), withKey(testKey(1)))
	cred, err := NewCredentials(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.s.RegisterCredentials(cred); err != nil {
		t.Fatal(err)
	}
	p.cred, p.signer = cred, signerOf(t, cred, p.clock.now, vendorComponents()...)
	p.login()
	a := p.do("POST", "/v1/customers", createBody(newWallet(2).account(), "ext-2"), withKey(testKey(1)))
	if a.status != 201 {
		t.Errorf("got %+v, want status 201", a)
	}
}

func TestRefusedBeforeTheOperationIsNotRemembered(t *testing.T) {
	p := open(t, nil)
	body := createBody(newWallet(1).account(), "ext-1")
	if a := p.do("POST", "/v1/customers", body, withKey(testKey(1)), after(drop("Signature"))); a.status != 400 {
		t.Errorf("got %+v, want status 400", a)
	}
	if a := p.do("POST", "/v1/customers", body, withKey(testKey(1))); a.status != 201 {
		t.Errorf("got %+v, want status 201", a)
	}
}

// TestKeyInFlight sends requests during one that takes a second.
func TestKeyInFlight(t *testing.T) {
	p := open(t, nil)
	body := createBody(newWallet(1).account(), "ext-1")
	other := createBody(newWallet(1).account(), "ext-2")
	requests := []*http.Request{
		p.request("POST", "/v1/customers", body, withKey(testKey(1))),
		p.request("POST", "/v1/customers", body, withKey(testKey(1))),
		p.request("POST", "/v1/customers", other, withKey(testKey(1))),
	}
	p.s.cfg.Latency = time.Second
	synctest.Test(t, func(t *testing.T) {
		serve := func(i int) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			r := requests[i].WithContext(t.Context())
			r.RequestURI = r.URL.Path // as the server reads it
			r.Body, _ = r.GetBody()
			p.s.API().ServeHTTP(w, r)
			return w
		}
		first := make(chan int)
		go func() { first <- serve(0).Code }()
		synctest.Wait()
		if w := serve(1); w.Code != 409 || !strings.Contains(w.Body.String(), "Idempotency-Key Concurrency Conflict") {
			t.Errorf("in flight: got %d %s, want 409 with the vendor's title", w.Code, w.Body)
		}
		if w := serve(2); w.Code != 422 {
			t.Errorf("in flight, other payload: got %d %s, want 422", w.Code, w.Body)
		}
		if code := <-first; code != 201 {
			t.Errorf("the first request: got %d, want 201", code)
		}
		if w := serve(1); w.Code != 201 {
			t.Errorf("afterwards: got %d %s, want 201", w.Code, w.Body)
		}
	})
	entries := p.s.History()
	if e := entries[2]; !e.InFlight || e.closes() {
		t.Errorf("history: got %+v, want it in flight, and the key open", e)
	}
}

func TestOneOfManyClaims(t *testing.T) {
	var k keyStore
	k.init(time.Hour)
	name := keyName{"api", testKey(1)}
	now := newClock().now()
	var fresh atomic.Int32
	done := make(chan struct{})
	for range 32 {
		go func() {
			if got, _ := k.claim(name, [32]byte{1}, now); got == claimFresh {
				fresh.Add(1)
			}
			done <- struct{}{}
		}()
	}
	for range 32 {
		<-done
	}
	if fresh.Load() != 1 {
		t.Errorf("got %d fresh claims, want 1", fresh.Load())
	}
	k.forget(name)
	if got, _ := k.claim(name, [32]byte{2}, now); got != claimFresh {
		t.Errorf("after forget: got %d, want %d", got, claimFresh)
	}
}

func TestKeyStoreStaysSmall(t *testing.T) {
	var k keyStore
	k.init(time.Minute)
	now := newClock().now()
	for i := range 20_000 {
		name := keyName{"api", fmt.Sprint(i)}
		k.claim(name, [32]byte{}, now)
		k.complete(name, reply{})
		now = now.Add(time.Second)
	}
	kept := 0
	for i := range k.shards {
		kept += len(k.shards[i].known)
	}
	if kept > 60+2*len(k.shards) {
		t.Errorf("got %d keys, want at most %d, of which 60 are valid", kept, 60+2*len(k.shards))
	}
}
