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

// cryptoki is as much of PKCS #11 as Purser calls; *p11.Ctx has it, and so has the tests' device. All calls block for
// as long as the device likes. No two may be under way on one session.
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

// module is one library in the process. All of its state is the process's: it is initialised once, whoever wanted it,
// and finalising it ends the sessions of everybody. So every call goes through gate, and an epoch is what lies between
// an initialisation and the next; handles live in one epoch.
type module struct {
	path string
	file os.FileInfo
	lib  cryptoki

	gate        sync.RWMutex // held for reading during every call, for writing while the library starts and stops
	users       int
	initialised bool
	epoch       uint64

	logins   sync.Mutex       // held during a login
	refusals map[string]error // by token: it refused its PIN, and is not asked again in this process
}

// errRestarted: the handles are of an earlier epoch.
var errRestarted = errors.New("the module was restarted meanwhile")

// module gives the library at path, loading it if it is not loaded yet. It is never unloaded: vendors' libraries leave
// threads and exit handlers behind, and the process dies when these run into nothing.
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
		return nil, fmt.Errorf("%w: %s cannot be loaded as a PKCS #11 module: it is no shared library for this machine, "+
			"lacks a library it needs (ldd shows which), or has no C_GetFunctionList", signer.ErrUnusable, path)
	}
	loaded := &module{path: path, file: info, lib: lib, refusals: map[string]error{}}
	m.loaded = append(m.loaded, loaded)
	return loaded, nil
}

func loadLibrary(path string) cryptoki {
	lib := p11.New(path)
	if lib == nil {
		return nil // and not an interface with nothing in it
	}
	return lib
}

// acquire makes the library ready for one more user and gives the epoch.
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
// sessions of all users end. It waits for every call that is under way.
func (m *module) restart(seen uint64) (uint64, error) {
	m.gate.Lock()
	defer m.gate.Unlock()
	if m.initialised && m.epoch != seen {
		return m.epoch, nil
	}
	if m.initialised {
		// What Finalize has to say about a device that is gone is of no interest; Initialize tells whether it worked.
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
		// Whoever that is would finalise the library under our feet, and it would crash.
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

// release takes a user away; behind the last one the library is finalised, which ends every session and login there
// still is (PKCS #11 2.40, section 5.4).
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

// within runs f, which makes calls, while the library is up and in the given epoch.
func (m *module) within(epoch uint64, f func(lib cryptoki) error) error {
	m.gate.RLock()
	defer m.gate.RUnlock()
	if !m.initialised || m.epoch != epoch {
		return errRestarted
	}
	return f(m.lib)
}

// alone reports whether the module has one user only.
func (m *module) alone() bool {
	m.gate.RLock()
	defer m.gate.RUnlock()
	return m.users == 1
}

// timing is how long things may take; tests make them shorter.
type timing struct {
	patience  time.Duration // how long a token may be away before the signer is unusable
	firstWait time.Duration // before the second attempt to find it again; doubled each time
	mostWait  time.Duration // up to this
	relist    time.Duration // between two looks at the list of keys for the sake of missing ones
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
