package awskms

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/signer"
)

const (
	// apart is the least time between two reads of the aliases because of a missing key: a thousand rows without a key
	// must not cost a thousand reads.
	apart = time.Minute
	// page is the most aliases in one answer (API_ListAliases).
	page = 100
)

// key returns the ARN of account's key, and whether it was proven to be the account's by an earlier call.
func (k *KMS) key(ctx context.Context, account common.Address) (arn string, remembered bool, err error) {
	k.mu.Lock()
	arn, remembered = k.proven[account]
	before := k.known
	k.mu.Unlock()
	if remembered {
		return arn, true, nil
	}
	usual := k.prefix + "0x" + hex.EncodeToString(account[:])
	arn, absent := k.prove(ctx, account, usual)
	if !errors.Is(absent, signer.ErrNoKey) {
		return arn, false, absent
	}
	name := before.name(account)
	if name == "" || name == usual {
		list, err := k.list(ctx, before, false)
		var e *Error
		if errors.As(err, &e) && e.Code == "AccessDeniedException" {
			// Without the permission to list, only the usual spelling is supported.
			return "", false, fmt.Errorf("%w (alias %s in %s; the aliases may not be listed for other spellings)",
				absent, usual, k.region)
		}
		if err != nil {
			return "", false, err
		}
		name = list.name(account)
	}
	if name == "" || name == usual {
		return "", false, fmt.Errorf("%w (alias %s in %s; no alias spells the address differently)",
			absent, usual, k.region)
	}
	arn, err = k.prove(ctx, account, name)
	return arn, false, err
}

// prove verifies that the key behind an alias is account's, and remembers its ARN. ErrNoKey: there is no such alias, or
// its key is gone; AWS's text in the error says which.
func (k *KMS) prove(ctx context.Context, account common.Address, alias string) (arn string, err error) {
	out, err := k.kms.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: aws.String(alias)})
	if err != nil {
		return "", explain(ctx, "GetPublicKey", account, err)
	}
	if out.KeySpec != types.KeySpecEccSecgP256k1 || out.KeyUsage != types.KeyUsageTypeSignVerify {
		return "", fmt.Errorf("%w: %v: %s is a key for %s of the spec %s, want %s and %s", signer.ErrMismatch,
			account, alias, out.KeyUsage, out.KeySpec, types.KeyUsageTypeSignVerify, types.KeySpecEccSecgP256k1)
	}
	holds, err := parsePublicKey(out.PublicKey)
	if err != nil {
		return "", fmt.Errorf("%w: %v: %s: %w", signer.ErrMismatch, account, alias, err)
	}
	if holds != account {
		return "", fmt.Errorf("%w: %v: %s names the key of %v", signer.ErrMismatch, account, alias, holds)
	}
	arn = aws.ToString(out.KeyId)
	if arn == "" {
		return "", fmt.Errorf("KMS GetPublicKey of %s names no key", alias)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.proven[account] = arn
	return arn, nil
}

func (k *KMS) forget(account common.Address) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.proven, account)
}

// aliases is the list of aliases at one time.
type aliases struct {
	at    time.Time
	names map[common.Address]string
	first common.Address // the first in the list
	total int            // all aliases, not only those under our prefix
	odd   int            // under our prefix, but not an address
	twice int            // that repeat an account
}

// name returns the alias that names account in any spelling, or nothing. A nil list has none.
func (a *aliases) name(account common.Address) string {
	if a == nil {
		return ""
	}
	return a.names[account]
}

// list reads the aliases. Unless must is set, it returns the list that another call has read since missed (nil: none
// had been read), or missed itself if it is recent.
func (k *KMS) list(ctx context.Context, missed *aliases, must bool) (*aliases, error) {
	select {
	case k.listing <- struct{}{}:
		defer func() { <-k.listing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	k.mu.Lock()
	known := k.known
	k.mu.Unlock()
	if known != nil && !must {
		age := k.now().Sub(known.at)
		if known != missed || age >= 0 && age < apart {
			return known, nil
		}
	}
	list, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.known = list
	return list, nil
}

func (k *KMS) read(ctx context.Context) (*aliases, error) {
	list := &aliases{at: k.now(), names: map[common.Address]string{}}
	in := &kms.ListAliasesInput{Limit: aws.Int32(page)}
	for {
		out, err := k.kms.ListAliases(ctx, in)
		if err != nil {
			return nil, explain(ctx, "ListAliases", common.Address{}, err)
		}
		for _, alias := range out.Aliases {
			list.add(k.prefix, aws.ToString(alias.AliasName))
		}
		if !out.Truncated {
			return list, nil
		}
		marker := aws.ToString(out.NextMarker)
		if marker == "" || marker == aws.ToString(in.Marker) {
			return nil, errors.New("KMS ListAliases announces another page without a new marker")
		}
		in.Marker = out.NextMarker
	}
}

func (a *aliases) add(prefix, name string) {
	a.total++
	spelling, ours := strings.CutPrefix(name, prefix)
	if !ours {
		return
	}
	if !common.IsHexAddress(spelling) {
		a.odd++
		return
	}
	account := common.HexToAddress(spelling)
	if a.names[account] != "" {
		a.twice++
		return
	}
	if len(a.names) == 0 {
		a.first = account
	}
	a.names[account] = name
}
