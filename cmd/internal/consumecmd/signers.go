package consumecmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/loopback"
	"github.com/purser-onboard/purser/secretfile"
	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/awskms"
	"github.com/purser-onboard/purser/signer/clef"
	"github.com/purser-onboard/purser/signer/ethrpc"
	"github.com/purser-onboard/purser/signer/fireblocks"
	"github.com/purser-onboard/purser/signer/insecurefile"
	"github.com/purser-onboard/purser/signer/keystore"
	"github.com/purser-onboard/purser/signer/pkcs11"
	"github.com/purser-onboard/purser/signer/web3signer"
)

// signers is the table of backends: the schemes of their URIs, the shape that each wants, and how it is opened.
func signers() []struct {
	schemes []string
	shape   string
	open    signer.Opener
} {
	return []struct {
		schemes []string
		shape   string
		open    signer.Opener
	}{
		{[]string{"keystore"}, keystore.Shape, keystore.Open},
		{[]string{"pkcs11"}, pkcs11.Shape, new(pkcs11.Modules).Open}, // one consumer a process, one set of modules
		{[]string{"clef+http", "clef+https", "clef+unix"}, clef.Shape, clef.Open},
		{[]string{"web3signer+http", "web3signer+https"}, web3signer.Shape, web3signer.Open},
		{[]string{"eth-rpc+http", "eth-rpc+https"}, ethrpc.Shape, ethrpc.Open},
		{[]string{"awskms"}, awskms.Shape, awskms.Open},
		{[]string{"fireblocks"}, fireblocks.Shape, fireblocks.Open},
		{[]string{"insecure-file"}, insecurefile.Shape, insecurefile.Open},
	}
}

// openSigner opens the backend that the URI names; warn gets possible misconfigurations.
func openSigner(
	ctx context.Context, c *config.Consumer, base *url.URL, getenv func(string) string, warn func(string),
) (signer.Backend, error) {
	fail := func(problem string) error {
		shapes := ""
		for _, s := range signers() {
			shapes += "\n  " + s.shape
		}
		return &config.Error{Setting: "--signer", Problem: problem + ": want one of" + shapes}
	}
	if c.Signer == "" {
		return nil, fail("is missing (or $PURSER_SIGNER)")
	}
	scheme := signer.Scheme(c.Signer)
	if scheme == "insecure-file" && !loopback.Is(base.Hostname()) {
		return nil, &config.Error{Setting: "--signer", Problem: "insecure-file is for trials, with an API on loopback only"}
	}
	for _, s := range signers() {
		for _, known := range s.schemes {
			if known != scheme {
				continue
			}
			backend, err := s.open(ctx, c.Signer, signer.Environment{
				Getenv: getenv, Loopback: loopback.Is(base.Hostname()),
				InsecurePermissions: c.InsecurePermissions, Warn: warn,
			})
			if err != nil && ctx.Err() != nil {
				return nil, console.Coded(console.ExitUnfinished, fmt.Errorf("%w during a signer call", context.Cause(ctx)))
			}
			if err != nil {
				err = withoutPaths(err, c.Signer)
			}
			if errors.Is(err, signer.ErrUnusable) && mayCome(err) {
				return nil, console.Coded(console.ExitUnfinished, fmt.Errorf("--signer: %w", err))
			}
			if err != nil {
				return nil, &config.Error{Setting: "--signer", Problem: err.Error()}
			}
			return signer.Verified(backend), nil
		}
	}
	return nil, fail("has an unknown scheme") // and that is not shown: it may be a password
}

// mayCome reports whether a signer that could not be opened may be there at another attempt. A file or directory that
// is missing may, unlike that of other settings: it may be the signer's own disk, a socket, or a secret that is still
// to be mounted, and an attempt too many costs less than a night (docs/rules.md, "A wrong set-up halts the run"). But
// with a wrong PIN it may cost the device.
func mayCome(err error) bool {
	switch {
	case errors.As(err, new(*secretfile.ModeError)), errors.As(err, new(*signer.LockoutError)):
		return false
	case errors.Is(err, fs.ErrNotExist), errors.As(err, new(*net.OpError)):
		return true
	}
	return !console.Lasting(err)
}

// schemeOf returns the scheme of a signer's URI. If no signer has it, it may be a secret, and the result is "unknown".
func schemeOf(uri string) string {
	scheme := signer.Scheme(uri)
	for _, s := range signers() {
		if slices.Contains(s.schemes, scheme) {
			return scheme
		}
	}
	return "unknown"
}

// withoutPaths returns an error of a signer that could not be opened without those paths of its URI that lead nowhere:
// such a path may be a password. One whose first element exists is a path, and is shown.
func withoutPaths(err error, uri string) error {
	rest, query, _ := strings.Cut(uri[len(signer.Scheme(uri))+1:], "?")
	path, isHost := strings.CutPrefix(rest, "//")
	isHost = isHost && !strings.HasPrefix(path, "/")
	var paths []string
	if !isHost {
		paths = append(paths, path)
	}
	for _, pair := range strings.FieldsFunc(path+"&"+query, func(r rune) bool { return r == '&' || r == ';' }) {
		if name, value, ok := strings.Cut(pair, "="); ok && pathParameter.MatchString(name) {
			paths = append(paths, strings.TrimPrefix(value, "file:"))
		}
	}
	text := err.Error()
	for _, path := range paths {
		if undone, err := url.PathUnescape(path); err == nil {
			path = undone
		}
		relative := strings.TrimLeft(path, "/")
		first, _, _ := strings.Cut(relative, "/")
		first = path[:len(path)-len(relative)] + first
		// What is shorter than four characters would be a part of other words.
		if _, err := os.Stat(first); err != nil && len(relative) > 3 {
			text = strings.ReplaceAll(text, relative, "…")
		}
	}
	return &pathlessError{text, err}
}

var pathParameter = regexp.MustCompile(`(file|path|map|source)$`)

// pathlessError is an error with another text.
type pathlessError struct {
	text string
	err  error
}

func (e *pathlessError) Error() string { return e.text }
func (e *pathlessError) Unwrap() error { return e.err }
