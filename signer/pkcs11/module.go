package pkcs11

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/purser-onboard/purser/secretfile"
	"github.com/purser-onboard/purser/signer"
)

// cryptoki is the part of PKCS #11 that Purser calls; *p11.Ctx implements it, and the device of the tests. All calls
// may block without limit. Two calls on one session must not run at the same time.
type cryptoki interface {
	Initialize(options ...p11.InitializeOption) error
	Finalize() error
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (p11.TokenInfo, error)
	GetMechanismInfo(slot uint, mechanism []*p11.Mechanism) (p11.MechanismInfo, error)
	OpenSession(slot, flags uint) (p11.SessionHandle, error)
	CloseSession(session p11.SessionHandle) error
	GetSessionInfo(session p11.SessionHandle) (p11.SessionInfo, error)
	Login(session p11.SessionHandle, user uint, pin string) error
	Logout(session p11.SessionHandle) error
	FindObjectsInit(session p11.SessionHandle, template []*p11.Attribute) error
	FindObjects(session p11.SessionHandle, most int) ([]p11.ObjectHandle, bool, error)
	FindObjectsFinal(session p11.SessionHandle) error
	GetAttributeValue(session p11.SessionHandle, object p11.ObjectHandle, template []*p11.Attribute) (
		[]*p11.Attribute, error)
	SignInit(session p11.SessionHandle, mechanism []*p11.Mechanism, key p11.ObjectHandle) error
	Sign(session p11.SessionHandle, data []byte) ([]byte, error)
}

// module is one library in the process. All of its state is the process's: it is initialised once for all users, and
// finalising it ends the sessions of all. Therefore every call holds gate. An epoch lies between an initialisation and
// the next; handles are valid in one epoch.
type module struct {
	path string
	file os.FileInfo
	lib  cryptoki

	gate        sync.RWMutex // held for reading during every call, for writing while the library starts and stops
	users       int
	initialised bool
	epoch       uint64

	logins    sync.Mutex       // held during a login
	lockedOut map[string]error // by token: its PIN was not accepted, and is not tried again in this process
}

// errRestarted: the handle is of an earlier epoch.
var errRestarted = errors.New("the module was restarted meanwhile")

// module returns the library at path, and loads it if necessary. It is never unloaded: vendors' libraries leave threads
// and exit handlers behind, which would crash the process.
func (m *Modules) module(path string) (*module, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: PKCS #11 module %s: %w", signer.ErrUnusable, path, secretfile.Reason(err))
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: PKCS #11 module %s is not a file", signer.ErrUnusable, path)
	}
	for _, known := range m.loaded {
		if os.SameFile(info, known.file) {
			return known, nil
		}
	}
	load := m.load
	if load == nil {
		load = loadLibrary
	}
	lib := load(path)
	if lib == nil {
		return nil, fmt.Errorf("%w: %s cannot be loaded as a PKCS #11 module: it is not a shared library for this machine, "+
			"lacks a library it needs (ldd shows which), or has no C_GetFunctionList", signer.ErrUnusable, path)
	}
	loaded := &module{path: path, file: info, lib: lib, lockedOut: map[string]error{}}
	m.loaded = append(m.loaded, loaded)
	return loaded, nil
}

func loadLibrary(path string) cryptoki {
	lib := p11.New(path)
	if lib == nil {
		return nil // not an interface that holds a nil pointer
	}
	return lib
}

// acquire adds a user, initialises the library if necessary, and returns the epoch.
func (m *module) acquire() (uint64, error) {
	m.gate.Lock()
	defer m.gate.Unlock()
	if err := m.initialise(); err != nil {
		return 0, err
	}
	m.users++
	return m.epoch, nil
}

// restart finalises and initialises the library, unless that has happened since the epoch that the caller saw. The
// sessions of all users end. It waits for all running calls.
func (m *module) restart(seen uint64) (uint64, error) {
	m.gate.Lock()
	defer m.gate.Unlock()
	if m.initialised && m.epoch != seen {
		return m.epoch, nil
	}
	if m.initialised {
		// The error of Finalize does not matter: the device may be gone. Initialize shows whether it worked.
		_ = m.lib.Finalize()
		m.initialised = false
		err := m.lib.Initialize()
		if err != nil && returned(err) != p11.CKR_CRYPTOKI_ALREADY_INITIALIZED {
			return seen, call("C_Initialize", err)
		}
		m.initialised = true
		m.epoch++
		return m.epoch, nil
	}
	if err := m.initialise(); err != nil {
		return seen, err
	}
	return m.epoch, nil
}

func (m *module) initialise() error {
	if m.initialised {
		return nil
	}
	err := m.lib.Initialize()
	if returned(err) == p11.CKR_CRYPTOKI_ALREADY_INITIALIZED {
		// The other user might finalise the library during our calls, which would crash it.
		return fmt.Errorf("PKCS #11 module %s is in use by something else in this process (all tokens must be opened "+
			"through one Modules)", m.path)
	}
	if err != nil {
		return call("C_Initialize", err)
	}
	m.initialised = true
	m.epoch++
	return nil
}

// release removes a user. With the last one it finalises the library, which ends all sessions and logins (PKCS #11
// 2.40, section 5.4).
func (m *module) release() error {
	m.gate.Lock()
	defer m.gate.Unlock()
	m.users--
	if m.users > 0 || !m.initialised {
		return nil
	}
	m.initialised = false
	return call("C_Finalize", m.lib.Finalize())
}

// within runs f, which makes calls, if the library is initialised and in the given epoch.
func (m *module) within(epoch uint64, f func(lib cryptoki) error) error {
	m.gate.RLock()
	defer m.gate.RUnlock()
	if !m.initialised || m.epoch != epoch {
		return errRestarted
	}
	return f(m.lib)
}

// alone reports whether the module has only one user.
func (m *module) alone() bool {
	m.gate.RLock()
	defer m.gate.RUnlock()
	return m.users == 1
}

// timing is how long things may take; tests make them shorter.
type timing struct {
	patience  time.Duration // how long a token may be away before the signer is unusable
	firstWait time.Duration // before the second attempt to find a token; doubled each time
	mostWait  time.Duration // up to this
	relist    time.Duration // the least time between two reads of the list of keys because of missing ones
	closing   time.Duration // how long Close waits for calls that do not return
}

func usualTiming() timing {
	return timing{
		patience:  5 * time.Minute, // a network HSM restarts in that time
		firstWait: 250 * time.Millisecond,
		mostWait:  15 * time.Second,
		relist:    30 * time.Second,
		closing:   10 * time.Second,
	}
}
