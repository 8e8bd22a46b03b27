package pkcs11

import (
	"bytes"
	"crypto/ecdsa"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	p11 "github.com/miekg/pkcs11"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

const devicePIN = "correct-horse-1234"

// device is a PKCS #11 module in memory, as fussy as the specification lets modules be: handles change whenever it is
// initialised, a search finds nothing for who is not logged in, and it fails the test when a session is used by two at
// a time or when it is finalised during a call, which crashes real ones.
type device struct {
	t *testing.T

	// before is asked before every call, without the lock: it may return an error for the call, or block. It may be
	// set before the device is used, or by set.
	before func(function string, session p11.SessionHandle) error

	mu       sync.Mutex
	up       bool
	epoch    int
	slots    map[uint]*slot
	sessions map[p11.SessionHandle]*deviceSession
	next     p11.SessionHandle
	calls    map[string]int
	active   int // calls under way
	readOnly bool
	rwOnly   bool
	most     int // sessions there may be; 0: any number
}

type slot struct {
	info    p11.TokenInfo
	pin     string
	absent  bool
	silent  bool // when absent: sessions look well and searches find nothing, as SoftHSM has it
	user    bool // logged in
	objects []object
}

type object struct {
	attributes map[uint][]byte
	key        *ecdsa.PrivateKey
}

type deviceSession struct {
	slot    uint
	busy    bool
	results []p11.ObjectHandle
	signing *object
}

func newDevice(t *testing.T) *device {
	return &device{
		t: t, slots: map[uint]*slot{}, sessions: map[p11.SessionHandle]*deviceSession{}, calls: map[string]int{},
	}
}

// withKeys is a device with one token, "purser", that has keys by ID and label.
func withKeys(t *testing.T, keys ...*ecdsa.PrivateKey) *device {
	d := newDevice(t)
	d.slots[7] = newSlot("purser", "0001", keys...)
	return d
}

func newSlot(label, serial string, keys ...*ecdsa.PrivateKey) *slot {
	s := &slot{pin: devicePIN, info: p11.TokenInfo{
		Label: label, SerialNumber: serial, ManufacturerID: "Works", Model: "M1", Flags: p11.CKF_TOKEN_INITIALIZED,
	}}
	s.info.FirmwareVersion.Major, s.info.FirmwareVersion.Minor = 3, 1
	for _, key := range keys {
		a := signertest.Address(key)
		s.objects = append(s.objects, private(key, a[:], a.Hex()))
	}
	return s
}

var curveOID = []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a}

func private(key *ecdsa.PrivateKey, id []byte, label string) object {
	return object{key: key, attributes: map[uint][]byte{
		p11.CKA_CLASS:     p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY).Value,
		p11.CKA_KEY_TYPE:  p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_EC).Value,
		p11.CKA_EC_PARAMS: curveOID, p11.CKA_ID: id, p11.CKA_LABEL: []byte(label),
	}}
}

func public(point, id []byte, label string) object {
	o := private(nil, id, label)
	o.attributes[p11.CKA_CLASS] = p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY).Value
	o.attributes[p11.CKA_EC_POINT] = point
	return o
}

// change does something to the device between calls.
func (d *device) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (d *device) set(before func(string, p11.SessionHandle) error) {
	d.change(func() { d.before = before })
}

func (d *device) count(function string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls[function]
}

// call runs f as one call of the module.
func (d *device) call(function string, handle p11.SessionHandle, f func(s *deviceSession) error) error {
	d.mu.Lock()
	d.calls[function]++
	d.active++
	var s *deviceSession
	if handle != 0 {
		if s = d.sessions[handle]; s != nil {
			if s.busy {
				d.t.Errorf("got %s on a session that another goroutine is using, want one user at a time", function)
			}
			s.busy = true
		}
	}
	before := d.before
	d.mu.Unlock()
	var err error
	if before != nil {
		err = before(function, handle)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active--
	if s != nil {
		s.busy = false
	}
	switch {
	case err != nil:
		return err
	case !d.up && function != "C_Initialize":
		return p11.Error(p11.CKR_CRYPTOKI_NOT_INITIALIZED)
	case handle != 0 && s == nil:
		return p11.Error(p11.CKR_SESSION_HANDLE_INVALID)
	}
	return f(s)
}

func (d *device) Initialize(...p11.InitializeOption) error {
	return d.call("C_Initialize", 0, func(*deviceSession) error {
		if d.up {
			return p11.Error(p11.CKR_CRYPTOKI_ALREADY_INITIALIZED)
		}
		d.up = true
		d.epoch++
		return nil
	})
}

func (d *device) Finalize() error {
	return d.call("C_Finalize", 0, func(*deviceSession) error {
		if d.active > 0 {
			d.t.Errorf("got C_Finalize during %d calls, want it after them", d.active)
		}
		d.up = false
		clear(d.sessions)
		for _, s := range d.slots {
			s.user = false
		}
		return nil
	})
}

func (d *device) GetSlotList(bool) (slots []uint, err error) {
	err = d.call("C_GetSlotList", 0, func(*deviceSession) error {
		for _, n := range slices.Sorted(maps.Keys(d.slots)) {
			if !d.slots[n].absent {
				slots = append(slots, n)
			}
		}
		return nil
	})
	return slots, err
}

func (d *device) GetTokenInfo(n uint) (info p11.TokenInfo, err error) {
	err = d.call("C_GetTokenInfo", 0, func(*deviceSession) error {
		s := d.slots[n]
		switch {
		case s == nil:
			return p11.Error(p11.CKR_SLOT_ID_INVALID)
		case s.absent && s.silent:
			return p11.Error(p11.CKR_GENERAL_ERROR)
		case s.absent:
			return p11.Error(p11.CKR_TOKEN_NOT_PRESENT)
		}
		info = s.info
		return nil
	})
	return info, err
}

func (d *device) GetMechanismInfo(uint, []*p11.Mechanism) (p11.MechanismInfo, error) {
	return p11.MechanismInfo{}, d.call("C_GetMechanismInfo", 0, func(*deviceSession) error { return nil })
}

func (d *device) OpenSession(n, flags uint) (handle p11.SessionHandle, err error) {
	err = d.call("C_OpenSession", 0, func(*deviceSession) error {
		s := d.slots[n]
		switch {
		case s == nil || s.absent && !s.silent:
			return p11.Error(p11.CKR_TOKEN_NOT_PRESENT)
		case d.most > 0 && len(d.sessions) >= d.most:
			return p11.Error(p11.CKR_SESSION_COUNT)
		case d.rwOnly && flags&p11.CKF_RW_SESSION == 0:
			return p11.Error(p11.CKR_ARGUMENTS_BAD)
		case d.readOnly && flags&p11.CKF_RW_SESSION != 0:
			return p11.Error(p11.CKR_TOKEN_WRITE_PROTECTED)
		}
		d.next++
		d.sessions[d.next] = &deviceSession{slot: n}
		handle = d.next
		return nil
	})
	return handle, err
}

func (d *device) CloseSession(handle p11.SessionHandle) error {
	return d.call("C_CloseSession", handle, func(s *deviceSession) error {
		delete(d.sessions, handle)
		for _, other := range d.sessions {
			if other.slot == s.slot {
				return nil
			}
		}
		d.slots[s.slot].user = false // the last session takes the login with it
		return nil
	})
}

func (d *device) GetSessionInfo(handle p11.SessionHandle) (info p11.SessionInfo, err error) {
	err = d.call("C_GetSessionInfo", handle, func(s *deviceSession) error {
		if d.slots[s.slot].user {
			info.State = p11.CKS_RO_USER_FUNCTIONS
		}
		return nil
	})
	return info, err
}

func (d *device) Login(handle p11.SessionHandle, user uint, pin string) error {
	return d.call("C_Login", handle, func(s *deviceSession) error {
		switch slot := d.slots[s.slot]; {
		case user != p11.CKU_USER:
			return p11.Error(p11.CKR_USER_TYPE_INVALID)
		case slot.user:
			return p11.Error(p11.CKR_USER_ALREADY_LOGGED_IN)
		case pin != slot.pin:
			return p11.Error(p11.CKR_PIN_INCORRECT)
		default:
			slot.user = true
			return nil
		}
	})
}

func (d *device) Logout(handle p11.SessionHandle) error {
	return d.call("C_Logout", handle, func(s *deviceSession) error {
		d.slots[s.slot].user = false
		return nil
	})
}

// handle numbers objects differently in each epoch.
func (d *device) handle(index int) p11.ObjectHandle { return p11.ObjectHandle(1000*d.epoch + index) }

func (d *device) object(s *deviceSession, handle p11.ObjectHandle) *object {
	slot := d.slots[s.slot]
	index := int(handle) - 1000*d.epoch
	if !slot.user || slot.absent || index < 0 || index >= len(slot.objects) || slot.objects[index].attributes == nil {
		return nil
	}
	return &slot.objects[index]
}

func (d *device) FindObjectsInit(handle p11.SessionHandle, template []*p11.Attribute) error {
	return d.call("C_FindObjectsInit", handle, func(s *deviceSession) error {
		s.results = nil
		for i := range d.slots[s.slot].objects {
			o := d.object(s, d.handle(i))
			if o == nil {
				continue
			}
			fits := true
			for _, a := range template {
				fits = fits && bytes.Equal(o.attributes[a.Type], a.Value)
			}
			if fits {
				s.results = append(s.results, d.handle(i))
			}
		}
		return nil
	})
}

func (d *device) FindObjects(handle p11.SessionHandle, most int) (some []p11.ObjectHandle, _ bool, err error) {
	err = d.call("C_FindObjects", handle, func(s *deviceSession) error {
		n := min(most, 3, len(s.results)) // fewer than asked for, as is allowed
		some, s.results = s.results[:n], s.results[n:]
		return nil
	})
	return some, false, err
}

func (d *device) FindObjectsFinal(handle p11.SessionHandle) error {
	return d.call("C_FindObjectsFinal", handle, func(*deviceSession) error { return nil })
}

func (d *device) GetAttributeValue(
	handle p11.SessionHandle, key p11.ObjectHandle, template []*p11.Attribute,
) (got []*p11.Attribute, err error) {
	err = d.call("C_GetAttributeValue", handle, func(s *deviceSession) error {
		o := d.object(s, key)
		if o == nil {
			return p11.Error(p11.CKR_OBJECT_HANDLE_INVALID)
		}
		for _, a := range template {
			value, ok := o.attributes[a.Type]
			if !ok {
				return p11.Error(p11.CKR_ATTRIBUTE_TYPE_INVALID)
			}
			got = append(got, p11.NewAttribute(a.Type, value))
		}
		return nil
	})
	return got, err
}

func (d *device) SignInit(handle p11.SessionHandle, mechanism []*p11.Mechanism, key p11.ObjectHandle) error {
	return d.call("C_SignInit", handle, func(s *deviceSession) error {
		if s.signing != nil {
			return p11.Error(p11.CKR_OPERATION_ACTIVE)
		}
		if mechanism[0].Mechanism != p11.CKM_ECDSA {
			return p11.Error(p11.CKR_MECHANISM_INVALID)
		}
		if s.signing = d.object(s, key); s.signing == nil {
			return p11.Error(p11.CKR_KEY_HANDLE_INVALID)
		}
		return nil
	})
}

func (d *device) Sign(handle p11.SessionHandle, digest []byte) (sig []byte, err error) {
	err = d.call("C_Sign", handle, func(s *deviceSession) error {
		o := s.signing
		s.signing = nil
		if o == nil {
			return p11.Error(p11.CKR_OPERATION_NOT_INITIALIZED)
		}
		if d.slots[s.slot].absent {
			return p11.Error(p11.CKR_DEVICE_REMOVED)
		}
		raw, err := crypto.Sign(digest, o.key)
		if err != nil {
			return err
		}
		sig = raw[:64]
		return nil
	})
	return sig, err
}

// bench is a device, and the Modules that has it.
type bench struct {
	t       *testing.T
	device  *device
	modules *Modules
	path    string
	pin     string
}

func newBench(t *testing.T, d *device) *bench {
	path := filepath.Join(t.TempDir(), "module.so")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return &bench{
		t: t, device: d, path: path, pin: devicePIN,
		modules: &Modules{load: func(string) cryptoki { return d }},
	}
}

func (b *bench) try(attributes, more string) (*Token, error) {
	uri := fmt.Sprintf("pkcs11:%s?module-path=%s%s", attributes, b.path, more)
	env := signer.Environment{Getenv: func(name string) string {
		if name == pinVariable {
			return b.pin
		}
		return ""
	}}
	backend, err := b.modules.Open(b.t.Context(), uri, env)
	if err != nil {
		return nil, err
	}
	return backend.(*Token), nil
}

func (b *bench) open() *Token {
	b.t.Helper()
	token, err := b.try("token=purser", "")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = token.Close() })
	return token
}

func sign(t *testing.T, b signer.Backend, key *ecdsa.PrivateKey) error {
	t.Helper()
	_, err := signer.Verified(b).SignMessage(t.Context(), signertest.Address(key), []byte("hello"))
	return err
}

func keys(n uint64) []*ecdsa.PrivateKey {
	list := make([]*ecdsa.PrivateKey, n)
	for i := range n {
		list[i] = signertest.Key(i)
	}
	return list
}

func octets(b []byte) []byte { return append([]byte{0x04, byte(len(b))}, b...) }

func addressOf(i uint64) common.Address { return signertest.Address(signertest.Key(i)) }

// shortly are timings for tests by the real clock, none of which waits for one of them to pass.
var shortly = timing{patience: time.Minute, firstWait: time.Millisecond, mostWait: 10 * time.Millisecond,
	relist: time.Hour, closing: time.Minute}
