// Package pkcs11 signs with keys in a hardware security module, by way of PKCS #11 (version 2.40): any device whose
// module knows secp256k1 keys and the mechanism CKM_ECDSA.
//
// Purser logs in to the token once, with a PIN from a file or a variable; a PIN that the token did not accept is never
// tried again. The keys are listed once, because a search takes a device time in proportion to its number of objects,
// and then found by address. A few sessions sign at the same time, each owned by one goroutine; another session, the
// anchor, does not sign and keeps the login. When the token goes away, one goroutine looks for it, with growing pauses.
// It finalises and initialises the module each time, because devices need that to find the token. Meanwhile callers get
// an *AwayError at once, and signer.ErrUnusable after five minutes.
//
// Calls into a module may block without limit. A caller returns when its context ends; the session it used stays with
// its goroutine until the call returns.
package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/signer"
)

var errClosed = fmt.Errorf("%w: the PKCS #11 token is closed", signer.ErrUnusable)

// Modules has the PKCS #11 libraries that a process has loaded, and the tokens that did not accept their PIN. A library
// has one state per process: it crashes if two users initialise, log in and finalise it independently. Therefore a
// process has one Modules, through which it opens all of its tokens. The zero value is ready to use.
type Modules struct {
	mu     sync.Mutex
	loaded []*module
	load   func(path string) cryptoki // nil: from a file
	timing *timing                    // nil: usualTiming
}

// Token is an opened token; it implements signer.Backend.
//
// Its errors: ErrNoKey when the token has no key of the account, ErrDeclined when it does not let the key sign,
// ErrUnusable when it does not accept the PIN, cannot make such signatures or has been away for five minutes,
// *AwayError while it is away, *CallError for transient errors.
type Token struct {
	where   location
	module  *module
	now     func() time.Time
	timing  timing
	pin     []byte // the keeper's
	unclear int    // the keeper's: logins in a row that failed without a reason
	exposed bool   // everybody on the machine may read the PIN file

	closing   chan struct{}
	closeOnce sync.Once
	done      chan struct{} // closed when the keeper has ended, and closeErr is set
	closeErr  error

	mu     sync.Mutex // guards what follows
	conn   *connection
	halted error // wraps ErrUnusable: the keeper has given up
	last   error // of the keeper's attempts to find the token
}

// Open opens the token that uri describes (see Shape); it is a signer.Opener. It loads and initialises the module, logs
// in, and lists the keys. It blocks for milliseconds to minutes, depending on the device.
//
// The path of the URI has the attributes of RFC 7512 (section 2.3) that choose a token (token, manufacturer, model,
// serial, slot-id) and, of its keys, those of one label (object) or one CKA_ID (id). Attributes that are left out match
// anything, but exactly one token must match. The query has module-path, absolute; pin-source, file:/path or env:NAME,
// by default env:PURSER_PKCS11_PIN; and sessions, how many signatures are made at the same time, 1 to 64, by default 4.
// A pin-value is an error. The PIN is one line; its newline is dropped.
func (m *Modules) Open(ctx context.Context, uri string, env signer.Environment) (signer.Backend, error) {
	where, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	pin, exposed, err := where.pin.read(env.Getenv, env.InsecurePermissions)
	if err != nil {
		return nil, err
	}
	t := &Token{
		where: where, now: env.Now, timing: usualTiming(), pin: pin, exposed: exposed,
		closing: make(chan struct{}), done: make(chan struct{}),
	}
	if t.now == nil {
		t.now = time.Now
	}
	if m.timing != nil {
		t.timing = *m.timing
	}
	if t.module, err = m.module(where.module); err != nil {
		clear(pin)
		return nil, err
	}
	opened := make(chan error, 1)
	go t.keep(opened)
	select {
	case err := <-opened:
		if err == nil {
			return t, nil
		}
		select {
		case <-t.done:
		case <-ctx.Done():
		}
		return nil, err
	case <-ctx.Done():
		t.close() // the keeper ends when the device answers
		return nil, ctx.Err()
	}
}

// SignMessage implements signer.Signer. The signature's v has no meaning, because PKCS #11 has none.
func (t *Token) SignMessage(ctx context.Context, account common.Address, message []byte) (signer.Signature, error) {
	digest := signer.MessageHash(message)
	for again := false; ; again = true {
		c, err := t.connection(ctx)
		if err != nil {
			return signer.Signature{}, err
		}
		key, list, err := c.key(ctx, account)
		if err != nil {
			return signer.Signature{}, err
		}
		if _, ok := list.handles[account]; !ok {
			return signer.Signature{}, c.noKey(account, list)
		}
		var raw []byte
		err = c.ask(ctx, func(s *session) (err error) {
			raw, err = s.sign(key, digest)
			return err
		})
		if errors.Is(err, errStaleKey) && !again {
			// The key was deleted, or the handles have changed.
			if _, err := c.refresh(ctx, list); err != nil {
				return signer.Signature{}, err
			}
			continue
		}
		if err != nil {
			return signer.Signature{}, err
		}
		if len(raw) != 64 {
			return signer.Signature{}, fmt.Errorf("%w %v: CKM_ECDSA returned %d bytes, want r || s of 64",
				signer.ErrMismatch, account, len(raw))
		}
		sig := signer.Signature{64: 0xff}
		copy(sig[:], raw)
		return sig, nil
	}
}

func (c *connection) noKey(account common.Address, list *keyList) error {
	if problem := list.unfit[account]; problem != "" {
		return fmt.Errorf("%w: %v: the key of that CKA_ID or CKA_LABEL in PKCS #11 token %q %s, want secp256k1 (listed %s)",
			signer.ErrNoKey, account, c.info.Label, problem, list.at.Format(time.TimeOnly))
	}
	named := ""
	if list.named > 0 { // CKA_ID may be the SHA-1 of the public key
		named = fmt.Sprintf("; private keys without a public key object, known by CKA_ID or CKA_LABEL alone: %d (%s)",
			list.named, identify)
	}
	return fmt.Errorf("%w: %v: PKCS #11 token %q has no secp256k1 key of that CKA_ID or CKA_LABEL, nor a public key of "+
		"that address (listed %s)%s%s", signer.ErrNoKey, account, c.info.Label, list.at.Format(time.TimeOnly), named,
		list.doubts())
}

// doubts returns a description of the keys whose account is unknown, among which a missing key may be; nothing if there
// are none.
func (l *keyList) doubts() string {
	if len(l.anonymous) == 0 {
		return ""
	}
	var text strings.Builder
	fmt.Fprintf(&text, "; keys whose account is unknown or doubtful: %d (%s)", len(l.anonymous), identify)
	for i, a := range l.anonymous {
		if i == mostDoubts {
			fmt.Fprintf(&text, "; and %d more", len(l.anonymous)-i)
			break
		}
		text.WriteString("; " + a.String())
		if a.guess != (common.Address{}) {
			fmt.Fprintf(&text, ", so it is taken for the key of %v", a.guess)
		}
	}
	return text.String()
}

// identify is what to do about a private key whose account is not known for sure.
const identify = "set its CKA_ID and CKA_LABEL to the address, or import its public key under its CKA_ID"

// mostDoubts is how many keys of unknown account are described in one line.
const mostDoubts = 3

// HasKey implements signer.Backend. It looks in the list of keys, and reads the list again for a key that is not in it,
// at most every 30 seconds.
func (t *Token) HasKey(ctx context.Context, account common.Address) error {
	c, err := t.connection(ctx)
	if err != nil {
		return err
	}
	_, list, err := c.key(ctx, account)
	if err != nil {
		return err
	}
	if _, has := list.handles[account]; !has {
		return c.noKey(account, list)
	}
	return nil
}

// Check implements signer.Backend: it asks the token for its description, lists the keys again, and fails if there are
// none.
func (t *Token) Check(ctx context.Context) (string, error) {
	c, err := t.connection(ctx)
	if err != nil {
		return "", err
	}
	info := c.info
	err = c.ask(ctx, func(s *session) (err error) {
		if err := s.health(); err != nil {
			return err
		}
		info, err = s.tokenInfo()
		return err
	})
	if err != nil {
		return "", err
	}
	list, err := c.refresh(ctx, c.keys())
	if err != nil {
		return "", err
	}
	if len(list.handles) == 0 {
		if len(list.anonymous) > 0 {
			return "", fmt.Errorf("%w: PKCS #11 token %q has no secp256k1 key whose account is known by its CKA_ID, its "+
				"CKA_LABEL or its public key%s", signer.ErrUnusable, info.Label, list.doubts())
		}
		return "", fmt.Errorf("%w: PKCS #11 token %q has no secp256k1 private key that fits the URI",
			signer.ErrUnusable, info.Label)
	}
	var line strings.Builder
	fmt.Fprintf(&line, "PKCS #11 token %q (%q %q, serial %q, firmware %d.%d): %s, sessions: %d", info.Label,
		info.ManufacturerID, info.Model, info.SerialNumber, info.FirmwareVersion.Major, info.FirmwareVersion.Minor,
		printable.Count(len(list.handles), "key", "keys"), c.granted)
	if c.granted < t.where.sessions {
		fmt.Fprintf(&line, " (the token allows no more; %d configured)", t.where.sessions)
	}
	line.WriteString(list.doubts())
	if list.twice > 0 {
		fmt.Fprintf(&line, "; keys that repeat an account: %d", list.twice)
	}
	if t.exposed {
		fmt.Fprintf(&line, "; everybody on this machine can read %s", t.where.pin.file)
	}
	return line.String(), nil
}

// Close implements signer.Backend. It waits for running calls, logs out, closes the sessions and, with the last token
// of a module, finalises the module. If a device does not answer within ten seconds, Close returns an error, and the
// sessions end with the process.
func (t *Token) Close() error {
	t.close()
	timer := time.NewTimer(t.timing.closing)
	defer timer.Stop()
	select {
	case <-t.done:
		return t.closeErr
	case <-timer.C:
		return errors.New("the PKCS #11 module does not return from a call: its sessions end with the process")
	}
}

func (t *Token) close() { t.closeOnce.Do(func() { close(t.closing) }) }
