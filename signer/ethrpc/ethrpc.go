// Package ethrpc signs with an Ethereum node, or another server, that has the JSON-RPC methods eth_sign and
// eth_accounts.
//
// eth_sign takes the address and the message and returns "an EIP-191 signature over the provided data" (Ethereum's
// execution-apis): the node adds the prefix, as anvil, go-ethereum and Web3Signer's JSON-RPC do. If a node does not,
// signer.Verified reports a mismatch at the first signature. Such nodes have no authentication of their own: they
// belong on loopback or behind TLS with client certificates.
package ethrpc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/remote"
)

// Shape is how the URI looks. eth-rpc+https takes ca-file, cert-file and key-file, each a PEM file.
const Shape = "eth-rpc+http://host:8545/path or eth-rpc+https://host/path?ca-file=/file"

// Codes and texts of the nodes. No standard defines them, so the list of accounts decides where none of them is
// recognised.
const (
	userRejected = 4001             // EIP-1193
	denied       = "request denied" // go-ethereum with Clef behind it
	locked       = "authentication needed: password or unlock"
)

// Node is an opened node; it implements signer.Backend.
//
// Its errors: ErrNoKey when the node answers with an error and does not list the account; ErrDeclined when a person or
// a rule declines; ErrUnusable when it has no eth_sign, when the account is locked, when it does not accept our
// requests, and, at opening and checking, when it cannot be reached. Everything else is transient.
type Node struct {
	rpc      *remote.RPC
	accounts *remote.Accounts[struct{}]
}

// Open opens the node that uri names (see Shape); it is a signer.Opener. It reads the list of accounts.
func Open(ctx context.Context, uri string, env signer.Environment) (signer.Backend, error) {
	rpc, err := remote.OpenRPC(uri, "eth-rpc", Shape, false, env.InsecurePermissions)
	if err != nil {
		return nil, err
	}
	n := &Node{rpc: rpc}
	n.accounts = remote.NewAccounts(n.list, env.Now)
	if _, err := n.accounts.Read(ctx); err != nil {
		_ = rpc.Close()
		return nil, remote.Unusable(ctx, err)
	}
	return n, nil
}

func (n *Node) list(ctx context.Context) (map[common.Address]struct{}, error) {
	accounts, err := n.rpc.Accounts(ctx, "eth_accounts")
	explained := n.explain(err)
	if errors.Is(explained, signer.ErrDeclined) { // not about one row
		return nil, fmt.Errorf("%w: the node declined to list its accounts: %w", signer.ErrUnusable, err)
	}
	return accounts, explained
}

// SignMessage implements signer.Signer; v is the node's, 27 or 28 with anvil and go-ethereum.
func (n *Node) SignMessage(ctx context.Context, account common.Address, message []byte) (signer.Signature, error) {
	if err := ctx.Err(); err != nil {
		return signer.Signature{}, err
	}
	sig, err := n.rpc.Sign(ctx, "eth_sign", account.Hex(), remote.Data(message))
	if err != nil {
		err = fmt.Errorf("sign for %v: %w", account, n.explainSigning(ctx, account, err))
	}
	return sig, err
}

// explainSigning is explain for a signature by an account that the node may not have.
func (n *Node) explainSigning(ctx context.Context, account common.Address, err error) error {
	var answered *remote.RPCError
	explained := n.explain(err)
	if !errors.As(err, &answered) || errors.Is(explained, signer.ErrUnusable) || errors.Is(explained, signer.ErrDeclined) {
		return explained
	}
	if _, has, listing := n.accounts.Find(ctx, account); listing == nil && !has {
		return fmt.Errorf("%w: %w", signer.ErrNoKey, err)
	}
	return explained
}

// explain wraps the node's error in the matching sentinel, whatever the account.
func (n *Node) explain(err error) error {
	var answered *remote.RPCError
	if !errors.As(err, &answered) {
		return err
	}
	switch text := strings.ToLower(answered.Message); {
	case answered.Code == remote.MethodNotFound:
		return fmt.Errorf("%w: the node does not sign: %w", signer.ErrUnusable, err)
	case answered.Code == userRejected, text == denied:
		return fmt.Errorf("%w: %w", signer.ErrDeclined, err)
	case strings.Contains(text, locked):
		return fmt.Errorf("%w: the account is locked: %w", signer.ErrUnusable, err)
	}
	return err
}

// HasKey implements signer.Backend. The list of accounts is remembered, and read again for an account that is not in
// it, at most every ten seconds.
func (n *Node) HasKey(ctx context.Context, account common.Address) error {
	_, ok, err := n.accounts.Find(ctx, account)
	if err == nil && !ok {
		err = fmt.Errorf("%w: %v: node %s does not list it", signer.ErrNoKey, account, n.rpc.Name())
	}
	return err
}

// Check implements signer.Backend: it reads the list of accounts, and the node's name if it returns one. A node without
// accounts is an error. Whether it has eth_sign is known only when it signs.
func (n *Node) Check(ctx context.Context) (string, error) {
	count, err := n.accounts.Read(ctx)
	if err != nil {
		return "", remote.Unusable(ctx, err)
	}
	if count == 0 {
		return "", fmt.Errorf("%w: node %s has no account", signer.ErrUnusable, n.rpc.Name())
	}
	line := "node " + n.rpc.Name()
	var version string
	if err := n.rpc.Call(ctx, remote.MostSignature, &version, "web3_clientVersion"); err == nil && len(version) <= 200 {
		line += fmt.Sprintf(" (%q)", version)
	}
	return fmt.Sprintf("%s: %s%s", line, printable.Count(count, "account", "accounts"), n.rpc.Caveats()), nil
}

// Close implements signer.Backend: it closes the idle connections.
func (n *Node) Close() error { return n.rpc.Close() }
