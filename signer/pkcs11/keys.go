package pkcs11

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	p11 "github.com/miekg/pkcs11"
)

// findAtOnce is how many handles are fetched by one call.
const findAtOnce = 1000

// keyList is the list of the token's keys at one time. It is immutable.
type keyList struct {
	handles   map[common.Address]p11.ObjectHandle
	anonymous []anonymous               // secp256k1 keys whose account is unknown or doubtful
	unfit     map[common.Address]string // why a key of that CKA_ID or CKA_LABEL is not one of secp256k1
	named     int                       // keys without a public key object, whose account is their CKA_ID or CKA_LABEL
	twice     int                       // keys of an account that has another key
	at        time.Time                 // when it was made
	took      time.Duration
}

// found is a private key and its attributes.
type found struct {
	handle    p11.ObjectHandle
	id, label []byte
}

// anonymous is a private key whose account its public key does not show.
type anonymous struct {
	key     found
	problem string         // why: "its public key object has no readable CKA_EC_POINT"
	guess   common.Address // what its CKA_ID or CKA_LABEL names instead; zero: no account
}

func (a anonymous) String() string {
	id := hex.EncodeToString(a.key.id[:min(len(a.key.id), mostOfAttribute)])
	return fmt.Sprintf("CKA_ID %q, CKA_LABEL %q: %s", id, a.key.label[:min(len(a.key.label), mostOfAttribute)], a.problem)
}

// mostOfAttribute is how many bytes of an attribute are shown; an address has 42 as text.
const mostOfAttribute = 64

// listKeys asks the token for its secp256k1 private keys.
//
// A key's account is in CKA_ID, as the 20 bytes of the address, and in CKA_LABEL, as hex. If both are equal, that is
// the account. Otherwise it is the address of the public key object with the same CKA_ID or else the same CKA_LABEL,
// because other programs also set IDs of 20 bytes: the SHA-1 of the public key. Without such an object, the ID or else
// the label is used; if it is wrong, the row fails with a mismatch.
func (s *session) listKeys(where location) (*keyList, error) {
	if err := s.health(); err != nil {
		return nil, err
	}
	list := &keyList{unfit: map[common.Address]string{}}
	privates, err := s.privateKeys(where, list.unfit)
	if err != nil {
		return nil, err
	}
	list.handles = make(map[common.Address]p11.ObjectHandle, len(privates))
	var unsure []found
	for _, key := range privates {
		if byID, ok := addressInID(key.id); ok {
			if byLabel, ok := addressInLabel(key.label); ok && byLabel == byID {
				list.add(byID, key.handle)
				continue
			}
		}
		unsure = append(unsure, key)
	}
	if len(unsure) > 0 {
		publics, err := s.publicKeys()
		if err != nil {
			return nil, err
		}
		for _, key := range unsure {
			address, problem := publics.of(key)
			if problem != "" {
				var ok bool
				if address, ok = addressInID(key.id); !ok {
					address, ok = addressInLabel(key.label)
				}
				// A public key that cannot be read might belong to another account than CKA_ID names.
				if !ok || problem != noPublicKey {
					list.anonymous = append(list.anonymous, anonymous{key, problem, address})
				}
				if !ok {
					continue
				}
				if problem == noPublicKey {
					list.named++
				}
			}
			list.add(address, key.handle)
		}
	}
	// A token that went away meanwhile returns a list that is too short, and no error.
	if err := s.health(); err != nil {
		return nil, err
	}
	return list, nil
}

func (l *keyList) add(address common.Address, handle p11.ObjectHandle) {
	if _, taken := l.handles[address]; taken {
		l.twice++
		return
	}
	l.handles[address] = handle
}

// privateKeys returns the keys of secp256k1, and records in unfit the accounts whose keys are of another curve.
func (s *session) privateKeys(where location, unfit map[common.Address]string) ([]found, error) {
	template := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_EC),
	}
	if where.object != "" {
		template = append(template, p11.NewAttribute(p11.CKA_LABEL, where.object))
	}
	if where.id != "" {
		template = append(template, p11.NewAttribute(p11.CKA_ID, []byte(where.id)))
	}
	handles, err := s.find(template)
	if err != nil {
		return nil, err
	}
	keys := make([]found, 0, len(handles))
	for _, handle := range handles {
		values, err := s.attributes(handle, p11.CKA_EC_PARAMS, p11.CKA_ID, p11.CKA_LABEL)
		if judge(err) == stale {
			continue // deleted since
		}
		if err != nil {
			return nil, err
		}
		if isSecp256k1(values[0]) {
			keys = append(keys, found{handle, values[1], values[2]})
			continue
		}
		problem := "is on another curve"
		if len(values[0]) == 0 {
			problem = "has no readable CKA_EC_PARAMS"
		}
		if address, ok := addressInID(values[1]); ok {
			unfit[address] = problem
		}
		if address, ok := addressInLabel(values[2]); ok {
			unfit[address] = problem
		}
	}
	return keys, nil
}

// publicKeys returns the addresses of the token's public keys by the CKA_ID and CKA_LABEL that they share with their
// private keys.
func (s *session) publicKeys() (publicKeys, error) {
	publics := publicKeys{byID: map[string]publicKey{}, byLabel: map[string]publicKey{}}
	handles, err := s.find([]*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_EC),
	})
	if err != nil {
		return publics, err
	}
	for _, handle := range handles {
		values, err := s.attributes(handle, p11.CKA_EC_PARAMS, p11.CKA_ID, p11.CKA_LABEL, p11.CKA_EC_POINT)
		if judge(err) == stale {
			continue
		}
		if err != nil {
			return publics, err
		}
		var public publicKey
		var ok bool
		switch public.address, ok = addressOfPoint(values[3]); {
		case len(values[3]) == 0:
			public.problem = "its public key object has no readable CKA_EC_POINT"
		case !isSecp256k1(values[0]):
			public = publicKey{problem: "its public key object is on another curve"}
		case !ok:
			public.problem = "the CKA_EC_POINT of its public key object is not a point of secp256k1"
		}
		keep(publics.byID, values[1], public)
		keep(publics.byLabel, values[2], public)
	}
	return publics, nil
}

// publicKey is a public key object: the account it names, or why it names none.
type publicKey struct {
	address common.Address
	problem string
}

type publicKeys struct {
	byID, byLabel map[string]publicKey
}

func keep(in map[string]publicKey, name []byte, public publicKey) {
	if before, again := in[string(name)]; again && before != public {
		public = publicKey{problem: "several public key objects have its CKA_ID or its CKA_LABEL"}
	}
	in[string(name)] = public
}

const noPublicKey = "it has no public key object"

// of returns the account of key's public key, or why there is none.
func (p publicKeys) of(key found) (common.Address, string) {
	problem := noPublicKey
	for _, c := range []struct {
		in   map[string]publicKey
		name []byte
	}{{p.byID, key.id}, {p.byLabel, key.label}} {
		public, there := c.in[string(c.name)]
		switch {
		case !there || len(c.name) == 0:
		case public.problem == "":
			return public.address, ""
		case problem == noPublicKey:
			problem = public.problem
		}
	}
	return common.Address{}, problem
}

func (s *session) find(template []*p11.Attribute) (handles []p11.ObjectHandle, err error) {
	err = s.do("C_FindObjectsInit", func(lib cryptoki) error { return lib.FindObjectsInit(s.handle, template) })
	if err != nil {
		return nil, err
	}
	for {
		var some []p11.ObjectHandle
		err := s.do("C_FindObjects", func(lib cryptoki) (err error) {
			some, _, err = lib.FindObjects(s.handle, findAtOnce)
			return err
		})
		if err == nil && len(some) > 0 {
			handles = append(handles, some...)
			continue
		}
		final := s.do("C_FindObjectsFinal", func(lib cryptoki) error { return lib.FindObjectsFinal(s.handle) })
		if err == nil {
			err = final
		}
		return handles, err
	}
}

// attributes reads attributes of an object; a missing or secret attribute is empty.
func (s *session) attributes(object p11.ObjectHandle, types ...uint) ([][]byte, error) {
	values := make([][]byte, len(types))
	read := func(types []uint, values [][]byte) error {
		template := make([]*p11.Attribute, len(types))
		for i, t := range types {
			template[i] = p11.NewAttribute(t, nil)
		}
		return s.do("C_GetAttributeValue", func(lib cryptoki) error {
			got, err := lib.GetAttributeValue(s.handle, object, template)
			if err == nil && len(got) == len(values) {
				for i, a := range got {
					values[i] = a.Value
				}
			}
			return err
		})
	}
	err := read(types, values)
	if !withheld(err) {
		return values, err
	}
	for i, t := range types { // one by one, to get the others
		if err := read([]uint{t}, values[i:i+1]); err != nil && !withheld(err) {
			return nil, err
		}
	}
	return values, nil
}

func withheld(err error) bool {
	code := returned(err)
	return code == p11.CKR_ATTRIBUTE_TYPE_INVALID || code == p11.CKR_ATTRIBUTE_SENSITIVE
}

// isSecp256k1 reads CKA_EC_PARAMS: the curve's object identifier 1.3.132.0.10 in DER (SEC 2, section A.2.1), or since
// PKCS #11 3.0 its name as a PrintableString.
func isSecp256k1(params []byte) bool {
	return bytes.Equal(params, []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a}) ||
		bytes.Equal(params, []byte("\x13\x09secp256k1"))
}

func addressInID(id []byte) (common.Address, bool) {
	if len(id) != common.AddressLength {
		return common.Address{}, false
	}
	return common.Address(id), true
}

// addressInLabel reads 40 hex digits of any case, with or without 0x: a label of YubiHSM 2 is too short for the prefix.
func addressInLabel(label []byte) (common.Address, bool) {
	text := strings.TrimRight(string(label), " \x00")
	if !common.IsHexAddress(text) {
		return common.Address{}, false
	}
	return common.HexToAddress(text), true
}

// addressOfPoint reads CKA_EC_POINT: a point (SEC 1, section 2.3.3), uncompressed or compressed, within an OCTET STRING
// as in PKCS #11 2.40, or bare as some devices return it.
func addressOfPoint(point []byte) (common.Address, bool) {
	if n := len(point); (n == 67 || n == 35) && point[0] == 0x04 && int(point[1]) == n-2 {
		point = point[2:]
	}
	switch {
	case len(point) == 65 && point[0] == 0x04:
		if key, err := crypto.UnmarshalPubkey(point); err == nil {
			return crypto.PubkeyToAddress(*key), true
		}
	case len(point) == 33:
		if key, err := crypto.DecompressPubkey(point); err == nil {
			return crypto.PubkeyToAddress(*key), true
		}
	}
	return common.Address{}, false
}
