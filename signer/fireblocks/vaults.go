package fireblocks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/signer"
)

const (
	// apart is the least time between two reads of the addresses because of a missing one.
	apart = 5 * time.Minute
	// accountsPage is the most vault accounts in one answer (GET /v1/vault/accounts_paged).
	accountsPage = 500
	// addressesPage is the page size for addresses; on account-based chains a wallet has one address.
	addressesPage = 100
)

// locate returns the vault account that holds account's key.
func (v *Vault) locate(ctx context.Context, account common.Address) (ref, error) {
	if found, ok := v.lookUp(account); ok {
		return found, nil
	}
	if v.fixed {
		return ref{}, fmt.Errorf("%w: %v: the vault map %s does not have it", signer.ErrNoKey, account, v.set.mapFile)
	}
	if err := v.list(ctx, false); err != nil {
		return ref{}, err
	}
	if found, ok := v.lookUp(account); ok {
		return found, nil
	}
	return ref{}, fmt.Errorf("%w: %v: Fireblocks shows us no vault account with it as %s",
		signer.ErrNoKey, account, v.set.asset)
}

func (v *Vault) lookUp(account common.Address) (ref, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	found, ok := v.refs[account]
	return found, ok
}

// list reads the vault accounts from Fireblocks, and the addresses of new ones. Unless must is set, it does nothing for
// some time after the last read. What was found before an error is kept.
func (v *Vault) list(ctx context.Context, must bool) error {
	select {
	case v.listing <- struct{}{}:
		defer func() { <-v.listing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	v.mu.RLock()
	age := v.now().Sub(v.listed)
	fresh := !v.listed.IsZero() && age >= 0 && age < apart
	v.mu.RUnlock()
	if fresh && !must {
		return nil
	}
	begun := v.now()
	for after := ""; ; {
		query := url.Values{"assetId": {v.set.asset}, "limit": {strconv.Itoa(accountsPage)}}
		if after != "" {
			query.Set("after", after)
		}
		var page struct {
			Accounts []struct {
				ID string `json:"id"`
			} `json:"accounts"`
			Paging paging `json:"paging"`
		}
		err := v.insist(ctx, func() error {
			return v.call(ctx, http.MethodGet, "/v1/vault/accounts_paged?"+query.Encode(), nil, &page)
		})
		if err != nil {
			return err
		}
		for _, account := range page.Accounts {
			if !plainAccount(account.ID) {
				return errors.New("fireblocks lists a vault account whose id is not a number")
			}
			if err := v.learn(ctx, account.ID); err != nil {
				return err
			}
		}
		if page.Paging.After == "" {
			break
		}
		if page.Paging.After == after {
			return errors.New("the list of vault accounts does not end")
		}
		after = page.Paging.After
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.listed = begun
	return nil
}

type paging struct {
	After string `json:"after"`
}

// learn reads the addresses of a vault account unless they are known.
func (v *Vault) learn(ctx context.Context, account string) error {
	v.mu.RLock()
	seen := v.seen[account]
	v.mu.RUnlock()
	if seen {
		return nil
	}
	found, err := v.addresses(ctx, account, v.set.asset)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, address := range found {
		v.refs[address] = ref{address: address, account: account, asset: v.set.asset}
	}
	v.seen[account] = len(found) > 0 // an account without an address may get one
	return nil
}

// addresses reads the addresses of a wallet.
func (v *Vault) addresses(ctx context.Context, account, asset string) ([]common.Address, error) {
	var found []common.Address
	for after := ""; ; {
		query := url.Values{"limit": {strconv.Itoa(addressesPage)}}
		if after != "" {
			query.Set("after", after)
		}
		var page struct {
			Addresses []struct {
				Address string `json:"address"`
			} `json:"addresses"`
			Paging paging `json:"paging"`
		}
		target := "/v1/vault/accounts/" + account + "/" + url.PathEscape(asset) + "/addresses_paginated?" + query.Encode()
		err := v.insist(ctx, func() error { return v.call(ctx, http.MethodGet, target, nil, &page) })
		if err != nil {
			return nil, err
		}
		for _, a := range page.Addresses {
			address, err := signer.ParseAddress(a.Address)
			if err != nil {
				return nil, fmt.Errorf("%w: vault account %s has an address of %s that is not an Ethereum address",
					signer.ErrUnusable, account, asset)
			}
			found = append(found, address)
		}
		if page.Paging.After == "" || page.Paging.After == after {
			return found, nil
		}
		after = page.Paging.After
	}
}

// confirm verifies a line of the vault map with Fireblocks.
func (v *Vault) confirm(ctx context.Context, line ref) error {
	found, err := v.addresses(ctx, line.account, line.asset)
	var e *Error
	if errors.As(err, &e) && (e.Status == http.StatusNotFound || e.Status == http.StatusBadRequest) {
		return fmt.Errorf("%w: vault map %s: vault account %s, %s: %w",
			signer.ErrUnusable, v.set.mapFile, line.account, line.asset, err)
	}
	if err != nil {
		return err
	}
	if slices.Contains(found, line.address) {
		return nil
	}
	holds := "no address"
	if len(found) > 0 {
		holds = found[0].Hex()
	}
	return fmt.Errorf("%w: vault map %s: vault account %s does not hold %v as %s but %s",
		signer.ErrUnusable, v.set.mapFile, line.account, line.address, line.asset, holds)
}
