// Package clef signs with Clef, go-ethereum's signer in a process of its own, over its HTTP server or its IPC socket.
//
// Clef adds the prefix of EIP-191 itself and has its rules, or a person at its console, approve every request. For an
// unattended run its rules must approve ApproveListing and ApproveSignData. It decrypts the key file for every
// signature, at the cost of the file's scrypt parameters.
//
// Every error of Clef has the code -32000; only the texts differ. They are those of signer/core and accounts in
// go-ethereum v1.17.3, the last version that has Clef.
package clef

import (
	"context"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/remote"
)

// Shape is how the URI looks. clef+https takes ca-file, cert-file and key-file, each a PEM file.
const Shape = "clef+http://host:8550, clef+https://host?ca-file=/file or clef+unix:///directory/clef.ipc"

const (
	unknownAccount = "unknown account" // accounts.ErrUnknownAccount
	requestDenied  = "request denied"  // core.ErrRequestDenied
	internalError  = "internal error"  // the password is not stored, and there was no console to ask for it
)

// Clef is an opened Clef; it implements signer.Backend.
//
// Its errors: ErrNoKey when Clef knows no such account; ErrDeclined when its rules or a person decline a signature;
// ErrUnusable when they decline to list the accounts, when Clef does not accept the host name, when the server is not
// Clef, and, at opening and checking, when it cannot be reached. Everything else is transient.
type Clef struct {
	rpc      *remote.RPC
	accounts *remote.Accounts[struct{}]
}

// Open opens the Clef that uri names (see Shape); it is a signer.Opener. It asks for the version of its API, which
// needs no approval.
func Open(ctx context.Context, uri string, env signer.Environment) (signer.Backend, error) {
	rpc, err := remote.OpenRPC(uri, "clef", Shape, true, env.InsecurePermissions)
	if err != nil {
		return nil, err
	}
	c := &Clef{rpc: rpc}
	c.accounts = remote.NewAccounts(c.list, env.Now)
	if _, err := c.version(ctx); err != nil {
		_ = rpc.Close()
		return nil, remote.Unusable(ctx, err)
	}
	return c, nil
}

// version asks for the version of the external API, "6.1.0".
func (c *Clef) version(ctx context.Context) (string, error) {
	var version string
	if err := c.rpc.Call(ctx, remote.MostSignature, &version, "account_version"); err != nil {
		return "", c.explain(err)
	}
	if len(version) == 0 || len(version) > 32 {
		return "", fmt.Errorf("%w: %s returned no version for account_version", signer.ErrUnusable, c.rpc.Name())
	}
	return version, nil
}

// list asks for the accounts. A person who has to approve has a minute.
func (c *Clef) list(ctx context.Context) (map[common.Address]struct{}, error) {
	accounts, err := c.rpc.Accounts(ctx, "account_list")
	if answered := (*remote.RPCError)(nil); errors.As(err, &answered) && answered.Message == requestDenied {
		return nil, fmt.Errorf("%w: clef declined to list its accounts: its rules must approve ApproveListing: %w",
			signer.ErrUnusable, err)
	}
	return accounts, c.explain(err)
}

// SignMessage implements signer.Signer; v is 27 or 28. A person has to approve within the time that Clef's server
// waits, 30 s over HTTP, or within our limit of a minute over the socket.
func (c *Clef) SignMessage(ctx context.Context, account common.Address, message []byte) (signer.Signature, error) {
	if err := ctx.Err(); err != nil {
		return signer.Signature{}, err
	}
	sig, err := c.rpc.Sign(ctx, "account_signData", "text/plain", account.Hex(), remote.Data(message))
	if err != nil {
		err = fmt.Errorf("sign for %v: %w", account, c.explain(err))
	}
	return sig, err
}

// explain wraps Clef's error in the matching sentinel.
func (c *Clef) explain(err error) error {
	var answered *remote.RPCError
	if !errors.As(err, &answered) {
		return err
	}
	switch {
	case answered.Message == unknownAccount:
		return fmt.Errorf("%w: %w", signer.ErrNoKey, err)
	case answered.Message == requestDenied:
		return fmt.Errorf("%w: %w", signer.ErrDeclined, err)
	case answered.Code == remote.MethodNotFound:
		return fmt.Errorf("%w: the server is not clef: %w", signer.ErrUnusable, err)
	case answered.Message == internalError:
		return fmt.Errorf("%w (has clef this account's password? clef setpw stores it)", err)
	}
	return err
}

// HasKey implements signer.Backend. The list of accounts is remembered, and read again for an account that is not in
// it, at most every ten seconds. Whether Clef also has the account's password is not known before it signs.
func (c *Clef) HasKey(ctx context.Context, account common.Address) error {
	_, ok, err := c.accounts.Find(ctx, account)
	if err == nil && !ok {
		err = fmt.Errorf("%w: %v: clef %s does not list it", signer.ErrNoKey, account, c.rpc.Name())
	}
	return err
}

// Check implements signer.Backend: it asks for the version and the accounts. A Clef without accounts is an error.
func (c *Clef) Check(ctx context.Context) (string, error) {
	version, err := c.version(ctx)
	if err != nil {
		return "", remote.Unusable(ctx, err)
	}
	n, err := c.accounts.Read(ctx)
	if err != nil {
		return "", remote.Unusable(ctx, err)
	}
	if n == 0 {
		return "", fmt.Errorf("%w: clef %s has no account", signer.ErrUnusable, c.rpc.Name())
	}
	return fmt.Sprintf("clef %s (API %q): %s%s", c.rpc.Name(), version,
		printable.Count(n, "account", "accounts"), c.rpc.Caveats()), nil
}

// Close implements signer.Backend: it closes the idle connections.
func (c *Clef) Close() error { return c.rpc.Close() }
