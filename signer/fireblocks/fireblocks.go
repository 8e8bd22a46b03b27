// Package fireblocks signs with keys in Fireblocks vault accounts. Fireblocks signs by MPC after the approval that the
// workspace's policy requires, which may be a person's and take hours. The package implements signer.Custodian.
//
// A signature is a transaction of the operation TYPED_MESSAGE, identified by an externalTxId that we choose. Fireblocks
// accepts one transaction for such an id and answers every later one with 400, code 1438. Therefore Request may be
// repeated, and when its outcome is unknown, the transaction is read by that id. The package stores no transactions;
// another process can poll after a restart.
//
// The vault account of each address comes from a file (vault-map). Without it the addresses are read from Fireblocks
// when the backend is opened, with one request for each vault account.
package fireblocks

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/signer"
)

// Shape is how the URI looks. The API key (the API user's id, a UUID, no secret) may also be read from a file, by
// api-key-file. Without a vault-map, the addresses are read from Fireblocks. Further parameters: asset (ETH unless
// given; ETH_TEST5 and the like in a testnet workspace) and base-url (https://api.fireblocks.io unless given).
const Shape = "fireblocks://vault?api-key=UUID&private-key-file=/file.pem&vault-map=/file.csv"

const (
	// patience bounds one request.
	patience = 30 * time.Second
	// firstPause is between the first two polls of SignMessage; each pause is half as long again as the one before it, up
	// to mostPause.
	firstPause = time.Second
	mostPause  = 15 * time.Second
)

// Vault is a Fireblocks workspace as one API user sees it; it implements signer.Custodian.
//
// Its errors: ErrNoKey when no vault account holds the address; ErrDeclined when Fireblocks does not accept what is
// requested, or the transaction was declined by a person, blocked by the policy, cancelled, or failed; ErrMismatch when
// the transaction of our id is not for our message; ErrUnusable when Fireblocks does not accept our credentials (401,
// 403) or redirects. Throttling (429) and all other errors are transient. An answer other than success is an *Error.
type Vault struct {
	set     settings
	key     *rsa.PrivateKey
	exposed bool // everybody on this machine may read the key's file
	now     func() time.Time
	rand    io.Reader // for nonces; many goroutines read from it
	client  *http.Client

	fixed   bool          // the addresses come from the vault map
	first   ref           // of the vault map, which Check confirms
	listing chan struct{} // holds one token while addresses are read from Fireblocks

	mu     sync.RWMutex // guards what follows
	refs   map[common.Address]ref
	listed time.Time       // when addresses were last read from Fireblocks
	seen   map[string]bool // vault accounts whose addresses are known
}

// ref is the place of an address's key.
type ref struct {
	address common.Address
	account string // of the vault, "12"
	asset   string // "ETH"
}

// Open reads the key and the vault map that uri names (see Shape); it is a signer.Opener. Without a vault map it reads
// the addresses of all vault accounts from Fireblocks, with a request for each.
func Open(ctx context.Context, uri string, env signer.Environment) (signer.Backend, error) {
	return open(ctx, uri, env)
}

func open(ctx context.Context, uri string, env signer.Environment) (*Vault, error) {
	set, err := parse(uri)
	if err != nil {
		return nil, err
	}
	v := &Vault{
		set: set, now: env.Now, rand: rand.Reader, client: newClient(),
		listing: make(chan struct{}, 1), refs: map[common.Address]ref{}, seen: map[string]bool{},
	}
	if v.now == nil {
		v.now = time.Now
	}
	if v.key, v.exposed, err = readKey(set.keyFile, env.InsecurePermissions); err != nil {
		return nil, fmt.Errorf("%w: private-key-file %w", signer.ErrUnusable, err)
	}
	if set.apiKeyFile != "" {
		if v.set.apiKey, err = readAPIKey(set.apiKeyFile); err != nil {
			return nil, fmt.Errorf("%w: api-key-file %w", signer.ErrUnusable, err)
		}
	}
	if set.mapFile != "" {
		v.fixed = true
		v.refs, v.first, err = readMap(set.mapFile, set.asset)
		return v, err
	}
	if err := v.list(ctx, true); err != nil {
		_ = v.Close() // it has nothing to say
		if ctx.Err() != nil || errors.Is(err, signer.ErrUnusable) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", signer.ErrUnusable, err)
	}
	return v, nil
}

// SignMessage implements signer.Signer: it requests the signature under an id derived from account and message, and
// polls until there is a signature, Fireblocks has declined, or ctx ends. A second call for the same message, also by
// another process, finds the same transaction: a declined request stays declined.
func (v *Vault) SignMessage(ctx context.Context, account common.Address, message []byte) (signer.Signature, error) {
	if err := ctx.Err(); err != nil {
		return signer.Signature{}, err
	}
	sum := sha256.New()
	sum.Write([]byte("purser sign message\x00"))
	sum.Write(account[:])
	sum.Write(message)
	id := "purser-" + hex.EncodeToString(sum.Sum(nil)[:20])
	asked := false
	for pause := firstPause; ; pause = min(pause*3/2, mostPause) {
		var sig signer.Signature
		err := v.insist(ctx, func() (err error) {
			if !asked {
				if err := v.Request(ctx, id, account, message); err != nil {
					return err
				}
				asked = true
			}
			sig, err = v.Poll(ctx, id, account, message)
			return err
		})
		if !errors.Is(err, signer.ErrPending) && !errors.Is(err, signer.ErrUnknownRequest) {
			return sig, err
		}
		asked = errors.Is(err, signer.ErrPending)
		if err := wait(ctx, pause); err != nil {
			return signer.Signature{}, err
		}
	}
}

// insist repeats a call for as long as Fireblocks throttles it.
func (v *Vault) insist(ctx context.Context, call func() error) error {
	for pause := firstPause; ; pause = min(pause*3/2, mostPause) {
		err := call()
		var e *Error
		if !errors.As(err, &e) {
			return err
		}
		after, throttled := e.Throttled()
		if !throttled {
			return err
		}
		if err := wait(ctx, max(after, pause)); err != nil {
			return err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// HasKey implements signer.Backend. With a vault map it sends no request.
func (v *Vault) HasKey(ctx context.Context, account common.Address) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := v.locate(ctx, account)
	return err
}

// Check implements signer.Backend: it reads the address of the vault map's first line from Fireblocks, which verifies
// our credentials and that line; without a vault map, all new addresses.
func (v *Vault) Check(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	source := "found in its vault accounts"
	if v.fixed {
		source = "in the vault map, the first one confirmed"
		if err := v.confirm(ctx, v.first); err != nil {
			return "", err
		}
	} else if err := v.list(ctx, true); err != nil {
		return "", err
	}
	v.mu.RLock()
	n := len(v.refs)
	v.mu.RUnlock()
	if n == 0 {
		return "", fmt.Errorf("%w: Fireblocks at %s shows us no vault account with an address of %s",
			signer.ErrUnusable, v.set.base, v.set.asset)
	}
	line := fmt.Sprintf("Fireblocks %s: %s %s", v.set.base, printable.Count(n, "address", "addresses"), source)
	if v.exposed {
		line += fmt.Sprintf("; everybody on this machine can read %s", v.set.keyFile)
	}
	return line, nil
}

// Close implements signer.Backend: it closes the idle connections.
func (v *Vault) Close() error {
	v.client.CloseIdleConnections()
	return nil
}
