// Package web3signer signs with Consensys Web3Signer in its eth1 mode, over its REST interface.
//
// Web3Signer knows keys by their public key, not by their address, and signs the Keccak-256 of the bytes it receives.
// So its list of public keys is read once and converted to addresses, and each message is sent with the prefix of
// EIP-191 in front. It has no authentication except TLS with client certificates, and answers 403 to every request
// whose Host is not on its allow-list (--http-host-allowlist).
//
// Its JSON-RPC interface, which adds the prefix itself, is supported by package ethrpc; unlike this interface it needs
// an Ethereum node behind it.
package web3signer

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/remote"
)

// Shape is how the URI looks. web3signer+https takes ca-file (trusted instead of the system's certificates), cert-file
// and key-file (our own certificate), each a PEM file.
const Shape = "web3signer+http://host:9000 or web3signer+https://host:9000?ca-file=/file&cert-file=/file&key-file=/file"

// The paths of its OpenAPI description, eth1/web3signer.yaml.
const (
	signPath   = "api/v1/eth1/sign/" // and the public key
	keysPath   = "api/v1/eth1/publicKeys"
	upPath     = "upcheck"
	healthPath = "healthcheck"
)

// Web3Signer is an opened Web3Signer; it implements signer.Backend.
//
// Its errors: ErrNoKey when it does not list the account's public key, or answers 404 to it; ErrUnusable when it does
// not accept our certificate or the host name (403), and, at opening and checking, when it cannot be reached or answers
// with anything but 200. Everything else is transient, also 400 and 500.
type Web3Signer struct {
	http *remote.HTTP
	keys *remote.Accounts[string] // the public key of each account, as Web3Signer writes it
}

// Open opens the Web3Signer that uri names (see Shape); it is a signer.Opener. It reads the list of public keys.
func Open(ctx context.Context, uri string, env signer.Environment) (signer.Backend, error) {
	h, err := remote.OpenHTTP(uri, "web3signer", Shape, env.InsecurePermissions)
	if err != nil {
		return nil, err
	}
	w := &Web3Signer{http: h}
	w.keys = remote.NewAccounts(w.list, env.Now)
	if _, err := w.keys.Read(ctx); err != nil {
		_ = h.Close()
		return nil, remote.Unusable(ctx, err)
	}
	return w, nil
}

func (w *Web3Signer) list(ctx context.Context) (map[common.Address]string, error) {
	answer, err := w.http.Do(ctx, http.MethodGet, keysPath, "", nil, remote.MostList)
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(answer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", w.http.Name(), err)
	}
	return keys, nil
}

// parseKeys reads a JSON array of public keys: 0x and the 128 hex digits of an uncompressed point without its first
// byte 04, which is taken as well.
func parseKeys(answer []byte) (map[common.Address]string, error) {
	var list []string
	if err := json.Unmarshal(answer, &list); err != nil || list == nil {
		return nil, errors.New("the list of public keys is not a JSON array of strings")
	}
	keys := make(map[common.Address]string, len(list))
	for i, text := range list {
		digits, ok := strings.CutPrefix(text, "0x")
		point, err := hex.DecodeString(digits)
		if len(point) == 64 {
			point = append([]byte{4}, point...)
		}
		if !ok || err != nil || len(point) != 65 {
			return nil, fmt.Errorf("entry %d of the list of public keys is not 0x and 128 hex digits", i+1)
		}
		key, err := crypto.UnmarshalPubkey(point)
		if err != nil {
			return nil, fmt.Errorf("entry %d of the list of public keys is not a point on secp256k1", i+1)
		}
		keys[crypto.PubkeyToAddress(*key)] = text
	}
	return keys, nil
}

// SignMessage implements signer.Signer; v is 27 or 28.
func (w *Web3Signer) SignMessage(
	ctx context.Context, account common.Address, message []byte,
) (signer.Signature, error) {
	key, ok, err := w.keys.Find(ctx, account)
	if err != nil {
		return signer.Signature{}, fmt.Errorf("sign for %v: %w", account, err)
	}
	if !ok {
		return signer.Signature{}, w.noKey(account)
	}
	body, err := json.Marshal(map[string]string{"data": remote.Data(signer.Prefix(message))})
	if err != nil {
		return signer.Signature{}, fmt.Errorf("sign for %v: %w", account, err)
	}
	answer, err := w.http.Do(ctx, http.MethodPost, signPath+key, "application/json", body, remote.MostSignature)
	if status := (*remote.StatusError)(nil); errors.As(err, &status) && status.Status == http.StatusNotFound {
		w.keys.Forget(account)
		return signer.Signature{}, fmt.Errorf("%w: %v: %w", signer.ErrNoKey, account, err)
	}
	if err != nil {
		return signer.Signature{}, fmt.Errorf("sign for %v: %w", account, err)
	}
	// text/plain, and nothing else, whatever Accept says (Eth1SignForIdentifierHandler).
	sig, err := remote.ParseSignature(strings.TrimSpace(string(answer)))
	if err != nil {
		return signer.Signature{}, fmt.Errorf("sign for %v: %s: %w", account, w.http.Name(), err)
	}
	return sig, nil
}

// HasKey implements signer.Backend. The list of keys is remembered, and read again for an account that is not in it, at
// most every ten seconds.
func (w *Web3Signer) HasKey(ctx context.Context, account common.Address) error {
	_, ok, err := w.keys.Find(ctx, account)
	if err == nil && !ok {
		err = w.noKey(account)
	}
	return err
}

func (w *Web3Signer) noKey(account common.Address) error {
	return fmt.Errorf("%w: %v: web3signer %s does not list its public key", signer.ErrNoKey, account, w.http.Name())
}

// Check implements signer.Backend: it asks whether Web3Signer is up and healthy, and for its keys. No keys, or keys
// that could not be loaded, are an error.
func (w *Web3Signer) Check(ctx context.Context) (string, error) {
	if _, err := w.http.Do(ctx, http.MethodGet, upPath, "", nil, remote.MostSignature); err != nil {
		return "", remote.Unusable(ctx, err)
	}
	if err := w.health(ctx); err != nil {
		return "", remote.Unusable(ctx, err)
	}
	n, err := w.keys.Read(ctx)
	if err != nil {
		return "", remote.Unusable(ctx, err)
	}
	if n == 0 {
		return "", fmt.Errorf("%w: web3signer %s has no key", signer.ErrUnusable, w.http.Name())
	}
	return fmt.Sprintf("web3signer %s: %s%s", w.http.Name(), printable.Count(n, "key", "keys"), w.http.Caveats()), nil
}

// health asks for what /upcheck does not report, such as keys that could not be loaded. A gateway may block it.
func (w *Web3Signer) health(ctx context.Context) error {
	_, err := w.http.Do(ctx, http.MethodGet, healthPath, "", nil, remote.MostSignature)
	if status := (*remote.StatusError)(nil); errors.As(err, &status) && status.Status == http.StatusNotFound {
		return nil
	}
	return err
}

// Close implements signer.Backend: it closes the idle connections.
func (w *Web3Signer) Close() error { return w.http.Close() }
