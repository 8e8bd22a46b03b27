package pkcs11

import (
	"fmt"

	p11 "github.com/miekg/pkcs11"
)

// session is a session of the device. It belongs to one goroutine at a time: if two use it, the library may crash the
// process.
type session struct {
	module *module
	epoch  uint64
	slot   uint
	flags  uint // as it was opened
	handle p11.SessionHandle
}

// openSession tries a read-only session first, which suffices for signing and is all that a write-protected token
// allows; AWS CloudHSM has read-write sessions only.
func openSession(m *module, epoch uint64, slot uint) (*session, error) {
	s := &session{module: m, epoch: epoch, slot: slot, flags: p11.CKF_SERIAL_SESSION}
	err := s.open()
	if err == nil || judge(err) == gone || returned(err) == p11.CKR_SESSION_COUNT {
		return s, err
	}
	s.flags |= p11.CKF_RW_SESSION
	if s.open() != nil {
		return s, err // the first error says more
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

// do runs f, whose calls are named function in errors.
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

// health checks that the token is there and the user logged in. It must be called before and after the keys are listed:
// without a login the search finds nothing, and without its directory SoftHSM finds nothing either, while its sessions
// seem healthy.
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

// sign returns CKM_ECDSA's signature of digest, which should be r || s.
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
