package pkcs11

import (
	"errors"
	"fmt"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"github.com/purser-onboard/purser/signer"
)

// mostUnclear is how many logins in a row may fail with an error that says nothing about the PIN: a device might count
// them as wrong PINs.
const mostUnclear = 3

// connect looks for the token in the module's current epoch, logs in, lists the keys and opens the sessions. An error
// that wraps signer.ErrUnusable is final.
func (t *Token) connect(epoch uint64) (c *connection, err error) {
	c = &connection{
		where: t.where, module: t.module, epoch: epoch, now: t.now, timing: t.timing,
		tasks: make(chan task), wanted: make(chan struct{}, 1), ended: make(chan struct{}),
		relisted: make(chan struct{}),
	}
	if c.slot, c.info, err = t.findToken(epoch); err != nil {
		return nil, err
	}
	anchor, err := openSession(t.module, epoch, c.slot)
	if err != nil {
		return nil, err
	}
	sessions := []*session{anchor}
	defer func() {
		if err != nil {
			for _, s := range sessions {
				_ = s.close()
			}
		}
	}()
	if err := t.login(anchor, c.info); err != nil {
		return nil, err
	}
	if err := t.fit(anchor); err != nil {
		return nil, err
	}
	begun := t.now()
	list, err := anchor.listKeys(t.where)
	if err != nil {
		return nil, err
	}
	c.publish(list, nil, begun)
	for range t.where.sessions {
		s, err := openSession(t.module, epoch, c.slot)
		if returned(err) == p11.CKR_SESSION_COUNT && len(sessions) > 1 {
			break // as many as the token grants
		}
		if returned(err) == p11.CKR_SESSION_COUNT {
			return nil, fmt.Errorf("%w: PKCS #11 token %q grants only one session; Purser needs two, one to sign and one "+
				"to stay logged in (do other programs hold sessions?)", signer.ErrUnusable, c.info.Label)
		}
		if err != nil {
			return nil, err
		}
		sessions = append(sessions, s)
	}
	c.start(sessions[0], sessions[1:])
	return c, nil
}

// findToken returns the one token that the URI describes.
func (t *Token) findToken(epoch uint64) (slot uint, info p11.TokenInfo, err error) {
	type candidate struct {
		slot uint
		info p11.TokenInfo
	}
	var fitting, others []candidate
	err = t.module.within(epoch, func(lib cryptoki) error {
		slots, err := lib.GetSlotList(true)
		if err != nil {
			return call("C_GetSlotList", err)
		}
		for _, slot := range slots {
			info, err := lib.GetTokenInfo(slot)
			if err != nil { // it is being removed, or it is another program's and broken
				continue
			}
			if info.Flags&p11.CKF_TOKEN_INITIALIZED == 0 {
				continue
			}
			if t.where.fits(slot, info) {
				fitting = append(fitting, candidate{slot, info})
			} else {
				others = append(others, candidate{slot, info})
			}
		}
		return nil
	})
	if err != nil {
		return 0, info, err
	}
	names := func(candidates []candidate) string {
		var s []string
		for _, c := range candidates {
			s = append(s, fmt.Sprintf("%q with serial %q", c.info.Label, c.info.SerialNumber))
		}
		return strings.Join(s, ", ")
	}
	switch {
	case len(fitting) == 1:
		return fitting[0].slot, fitting[0].info, nil
	case len(fitting) > 1:
		return 0, info, fmt.Errorf("the signer URI fits %d tokens of module %s: %s (add serial= to the URI to choose one)",
			len(fitting), t.module.path, names(fitting))
	case len(others) > 0:
		return 0, info, fmt.Errorf("the token is not there: module %s has only %s", t.module.path, names(others))
	}
	return 0, info, fmt.Errorf("the token is not there: module %s has none", t.module.path)
}

func (w *location) fits(slot uint, info p11.TokenInfo) bool {
	same := func(want, have string) bool { return want == "" || want == strings.TrimRight(have, " \x00") }
	return same(w.token, info.Label) && same(w.manufacturer, info.ManufacturerID) && same(w.model, info.Model) &&
		same(w.serial, info.SerialNumber) && (w.slot == nil || *w.slot == slot)
}

// login returns the PIN to the token, once. A PIN that the token does not accept is not tried again in this process:
// devices lock after a few tries, some for good.
func (t *Token) login(anchor *session, info p11.TokenInfo) error {
	// The token's identity, without its slot, which may change.
	name := strings.Join([]string{info.Label, info.ManufacturerID, info.Model, info.SerialNumber}, "\x00")
	t.module.logins.Lock()
	defer t.module.logins.Unlock()
	if err := t.module.lockedOut[name]; err != nil {
		return err
	}
	unusable := func(format string, a ...any) error {
		return fmt.Errorf("%w: PKCS #11 token %q (serial %q) %w",
			signer.ErrUnusable, info.Label, info.SerialNumber, fmt.Errorf(format, a...))
	}
	final := func(err error) error {
		t.module.lockedOut[name] = err
		return err
	}
	lockout := func(format string, a ...any) error {
		return final(&signer.LockoutError{Err: unusable(format, a...)})
	}
	switch {
	case info.Flags&p11.CKF_USER_PIN_LOCKED != 0:
		return lockout("has its PIN locked: its security officer must set it again")
	case info.Flags&p11.CKF_USER_PIN_FINAL_TRY != 0:
		return lockout("reports that one more wrong PIN locks it, so Purser does not log in: log in once yourself " +
			"(pkcs11-tool --login --test), which resets its counter")
	}
	err := anchor.do("C_Login", func(lib cryptoki) error {
		return lib.Login(anchor.handle, p11.CKU_USER, string(t.pin))
	})
	switch {
	case err == nil, returned(err) == p11.CKR_USER_ALREADY_LOGGED_IN: // another backend on this token has logged in
	case judge(err) == badPIN, returned(err) == p11.CKR_ARGUMENTS_BAD:
		return lockout("does not accept the PIN (%w); it was tried once and is not tried again: check the source of the PIN "+
			"before the next run, because devices lock after a few wrong PINs", err)
	case judge(err) == gone:
		return err
	default:
		t.unclear++
		if t.unclear >= mostUnclear {
			return final(unusable("fails to log in, for a reason other than the PIN: %w", err))
		}
		return err
	}
	if err := anchor.health(); err != nil {
		return fmt.Errorf("logged in, but %w", err)
	}
	t.unclear = 0
	return nil
}

// fit checks that the token has the mechanism. Many devices answer with some error, which is ignored.
func (t *Token) fit(s *session) error {
	err := s.do("C_GetMechanismInfo", func(lib cryptoki) error {
		_, err := lib.GetMechanismInfo(s.slot, []*p11.Mechanism{p11.NewMechanism(p11.CKM_ECDSA, nil)})
		return err
	})
	if returned(err) == p11.CKR_MECHANISM_INVALID {
		return fmt.Errorf("%w: the PKCS #11 token has no CKM_ECDSA", signer.ErrUnusable)
	}
	if errors.Is(err, errRestarted) {
		return err
	}
	return nil
}
