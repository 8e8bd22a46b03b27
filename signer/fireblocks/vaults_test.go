package fireblocks

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/purser-onboard/purser/internal/fireblockstest"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

func TestSearchFindsNewVaults(t *testing.T) {
	clock := time.Now()
	s := setUp(t, fireblockstest.Config{PageSize: 2, Now: func() time.Time { return clock }})
	for i := range uint64(6) {
		s.AddVault(fmt.Sprint(10+i), "ETH", signertest.Key(10+i))
	}
	s.AddVault("50", "BTC", signertest.Key(50))
	s.uri, _, _ = strings.Cut(s.uri, "&vault-map=")
	s.clock = func() time.Time { return clock }
	v := s.open(t)
	has := func(i uint64, has bool) {
		t.Helper()
		var want error
		if !has {
			want = signer.ErrNoKey
		}
		if err := v.HasKey(t.Context(), signertest.Address(signertest.Key(i))); !errors.Is(err, want) {
			t.Errorf("HasKey(%d) = %v, want %v", i, err, want)
		}
	}
	has(0, true)
	has(15, true)
	has(50, false) // of another chain
	pages := s.Calls("GET /v1/vault/accounts_paged")
	s.AddVault("20", "ETH", signertest.Key(20))
	has(20, false)
	if n := s.Calls("GET /v1/vault/accounts_paged"); n != pages || n != 4 {
		t.Errorf("%d pages, want 4", n)
	}
	clock = clock.Add(apart)
	has(20, true)
	if n := s.Calls("GET /v1/vault/accounts/10/ETH/addresses_paginated"); n != 1 {
		t.Errorf("got %d requests for a known vault account, want 1", n)
	}
}
