package consumecmd

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/outfile"
	"github.com/purser-onboard/purser/secretfile"
)

// unsigned is the signer of requests for which no key is registered yet.
type unsigned struct{}

func (unsigned) Sign(*http.Request) error { return nil }

// registerKey registers the public half of the signing key and prints the id that the partner gives it, or removes the
// registered key. A first registration cannot be signed; with --signing-key-id, the request is signed with the key that
// is registered now, which must be --signing-key.
func registerKey(ctx context.Context, c *config.Consumer, remove bool, s Streams) error {
	base, err := c.CheckAPI(s.Getenv)
	if err != nil {
		return err
	}
	key, err := signingKey(c)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return fmt.Errorf("public half of --signing-key: %w", err)
	}
	if remove || c.SigningKeyID != "" {
		if _, err := c.CheckPartner(s.Getenv); err != nil {
			return err
		}
	} else {
		key = nil // a first registration cannot be signed
	}
	p, err := newPartner(c, base, key, console.NewLogger(s.Stderr, c.LogFormat, c.LogLevel), nil)
	if err != nil {
		return err
	}
	defer p.client.Close()
	if remove {
		if err := p.client.DeleteKey(ctx); err != nil {
			return partnerError(err)
		}
		console.NewScreen(s.Stderr).Say(
			"the signing key was removed: no request can be signed until a new key is registered")
		return nil
	}
	keyID, err := p.client.RegisterKey(ctx, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	if err != nil {
		return partnerError(err)
	}
	fmt.Fprintln(s.Stdout, keyID)
	console.NewScreen(s.Stderr).Say(fmt.Sprintf("registered; next: set --signing-key-id %s "+
		"(or OFFBLOCKS_SIGNING_KEY_ID=%s), then run `consumer check`", keyID, keyID))
	return nil
}

// partnerError adds the exit code and advice to an error of the partner API.
func partnerError(err error) error {
	var partner *client.Error
	if errors.As(err, &partner) && partner.Hint() != "" {
		err = fmt.Errorf("%w; %s", err, partner.Hint())
	}
	return console.Coded(partnerExit(err), err)
}

// rotation replaces the API secret. The new one is durable in its file before the partner hears of it, and the earlier
// one stays in its file until the new one has been proved, so that a process that is killed at any moment leaves both.
type rotation struct {
	c       *config.Consumer
	p       *partner
	s       Streams
	file    string // of the new secret
	secret  string // the new one
	replace bool   // --api-secret-file
}

// rotateSecret replaces the API secret and proves the new one by a token.
func rotateSecret(ctx context.Context, c *config.Consumer, file string, replace bool, s Streams) error {
	p, err := openPartner(c, s.Getenv, console.NewLogger(s.Stderr, c.LogFormat, c.LogLevel), nil)
	if err != nil {
		return err
	}
	defer p.client.Close()
	secret, err := config.ReadSecret("--new-secret-file", file, c.InsecurePermissions)
	switch {
	case err != nil:
		return err
	case secret == c.Secret:
		return &config.Error{Setting: "--new-secret-file", Problem: "contains the secret that is already in use"}
	case secret != strings.TrimSpace(secret) || strings.ContainsFunc(secret, unicode.IsControl):
		return &config.Error{Setting: "--new-secret-file",
			Problem: "the secret has white space around it or control characters"}
	case replace && c.APISecretFile == "":
		return &config.Error{Setting: "--replace-file",
			Problem: "needs --api-secret-file: the secret is in $OFFBLOCKS_API_SECRET"}
	}
	if err := syncFile(file); err != nil {
		return &config.Error{Setting: "--new-secret-file",
			Problem: "the file cannot be synced to disk: " + secretfile.Reason(err).Error()}
	}
	r := rotation{c: c, p: p, s: s, file: file, secret: secret, replace: replace}
	if err := p.client.Authenticate(ctx); err != nil {
		// An earlier rotation may have been interrupted when the partner had the new secret already.
		if !unreachable(err) && r.try(ctx, secret) == nil {
			return r.proved()
		}
		return partnerError(err)
	}
	if err := p.client.ReplaceSecret(ctx, secret); err != nil {
		return r.findOut(ctx, err)
	}
	if err := r.try(ctx, secret); err != nil {
		return r.findOut(ctx, err)
	}
	return r.proved()
}

// try fetches a token with a secret.
func (r *rotation) try(ctx context.Context, secret string) error {
	other := *r.c
	other.Secret, other.APISecretFile = secret, "" // from no file: it is this secret that is tried
	p, err := newPartner(&other, r.p.base, nil, console.NewLogger(r.s.Stderr, r.c.LogFormat, r.c.LogLevel), nil)
	if err != nil {
		return err
	}
	defer p.client.Close()
	return p.client.Authenticate(ctx)
}

// findOut tries both secrets, because the answer to their exchange was lost or is no 204.
func (r *rotation) findOut(ctx context.Context, cause error) error {
	fresh := r.try(ctx, r.secret)
	if fresh == nil {
		return r.proved()
	}
	earlier := r.try(ctx, r.c.Secret)
	switch {
	case earlier == nil:
		code := console.ExitUnfinished
		if !unreachable(cause) {
			code = console.ExitUsage
		}
		return console.Coded(code, fmt.Errorf("the API secret was not replaced: %w; the secret in %s is still the valid "+
			"secret, the secret in --new-secret-file is not: fix the cause, then run again", cause, r.holder()))
	case rejectsSecret(fresh) && rejectsSecret(earlier):
		return console.Coded(console.ExitUsage, fmt.Errorf("replace the API secret: %w; the partner accepts neither the "+
			"secret in --new-secret-file (%w) nor the one in %s (%w): keep both, and check the API key",
			cause, fresh, r.holder(), earlier))
	}
	return console.Coded(console.ExitUnfinished, fmt.Errorf("replace the API secret: %w; whether the secret in "+
		"--new-secret-file or the one in %s is valid now is unknown (%w): keep both, and run this again when the partner "+
		"answers", cause, r.holder(), fresh))
}

// rejectsSecret reports whether the partner did not accept a secret, rather than not answering.
func rejectsSecret(err error) bool {
	var failure *client.Error
	if !errors.As(err, &failure) {
		return false
	}
	switch failure.Root().Kind {
	case client.Unauthorized, client.Forbidden, client.Invalid:
		return true
	}
	return false
}

// holder is where the earlier secret is.
func (r *rotation) holder() string {
	if r.c.APISecretFile == "" {
		return "$OFFBLOCKS_API_SECRET"
	}
	return "--api-secret-file"
}

// proved puts the new secret in its place, or says how.
func (r *rotation) proved() error {
	fmt.Fprintf(r.s.Stdout, "replaced the API secret: a token was issued for the secret in %s\n", r.file)
	switch {
	case r.replace:
		if err := outfile.Write(r.c.APISecretFile, []byte(r.secret+"\n")); err != nil {
			return fmt.Errorf("the valid API secret is in --new-secret-file, but --api-secret-file still holds the old "+
				"secret: %w: copy it there", secretfile.Reason(err))
		}
		fmt.Fprintf(r.s.Stdout, "%s holds it now; remove %s\n", r.c.APISecretFile, r.file)
	case r.c.APISecretFile == "":
		fmt.Fprintf(r.s.Stdout, "next: set $OFFBLOCKS_API_SECRET to what %s holds\n", r.file)
	default:
		fmt.Fprintf(r.s.Stdout, "next: mv %s %s; a running consumer waits 30s for that\n", r.file, r.c.APISecretFile)
	}
	return nil
}

// syncFile syncs a file and its directory.
func syncFile(path string) error {
	for _, name := range []string{path, filepath.Dir(path)} {
		f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe, which cannot be synced, does not block
		if err != nil {
			return err
		}
		err = f.Sync()
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
