package pkcs11

import (
	"fmt"

	p11 "github.com/miekg/pkcs11"
)

// session is a session of the device. It belongs to one goroutine at a time: used by two, the library crashes and takes
// the process with it.
type session struct {
	module *module
	epoch  uint64
	slot   uint
	flags  uint // as it was opened
	handle p11.SessionHandle
}

// openSession tries a read-only session first, which is all that signing needs and all that a write-protected token
// gives; AWS CloudHSM has read-write sessions only.
func openSession(m *module, epoch uint64, slot uint) (*session, error) {
	s := &session{module: m, epoch: epoch, slot: slot, flags: p11.CKF_SERIAL_SESSION}
	err := s.open()
	if err == nil || judge(err) == gone || returned(err) == p11.CKR_SESSION_COUNT {
		return s, err
	}
	s.flags |= p11.CKF_RW_SESSION
	if s.open() != nil {
		return s, err // the first one says more
	}
	return s, nil
}

func (s *session) open() error {
	return s.do("C_OpenSession", func(lib cryptoki) (err error) {
		s.handle, err = lib.OpenSession(s.slot, s.flags)
		return err
	})
}

func (s *session) close() error {
	return s.do("C_CloseSession", func(lib cryptoki) error { return lib.CloseSession(s.handle) })
}

// do makes one call, or several that must have one name in errors.
func (s *session) do(function string, f func(lib cryptoki) error) error {
	return call(function, s.module.within(s.epoch, f))
}

// tokenInfo asks for the token's description.
func (s *session) tokenInfo() (info p11.TokenInfo, err error) {
	err = s.do("C_GetTokenInfo", func(lib cryptoki) (err error) {
		info, err = lib.GetTokenInfo(s.slot)
		return err
	})
	return info, err
}

// health asks whether the token is there and the user logged in. It must be asked before and after the keys are listed:
// nobody logged in means that the search finds nothing, and SoftHSM finds nothing without a word when its directory is
// gone, while its sessions still look well.
func (s *session) health() error {
	var info p11.SessionInfo
	err := s.do("C_GetSessionInfo", func(lib cryptoki) (err error) {
		info, err = lib.GetSessionInfo(s.handle)
		return err
	})
	if err != nil {
		return err
	}
	if info.State != p11.CKS_RO_USER_FUNCTIONS && info.State != p11.CKS_RW_USER_FUNCTIONS {
		return fmt.Errorf("the session is not the logged-in user's (state %d)", info.State)
	}
	_, err = s.tokenInfo()
	return err
}

// sign gives what CKM_ECDSA makes of digest: r || s for a right device.
func (s *session) sign(key p11.ObjectHandle, digest [32]byte) (sig []byte, err error) {
	err = s.do("C_SignInit", func(lib cryptoki) error {
		return lib.SignInit(s.handle, []*p11.Mechanism{p11.NewMechanism(p11.CKM_ECDSA, nil)}, key)
	})
	if err != nil {
		return nil, err
	}
	err = s.do("C_Sign", func(lib cryptoki) (err error) {
		sig, err = lib.Sign(s.handle, digest[:])
		return err
	})
	return sig, err
}
