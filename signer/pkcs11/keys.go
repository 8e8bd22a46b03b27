package pkcs11

import (
	"bytes"
	"encoding/hex"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	p11 "github.com/miekg/pkcs11"
)

// findAtOnce is how many handles are fetched by one call.
const findAtOnce = 1000

// keyList is one look at the token's keys. It is never changed once made.
type keyList struct {
	handles   map[common.Address]p11.ObjectHandle
	anonymous int       // secp256k1 keys whose account cannot be told
	twice     int       // keys of an account that another one stands for
	at        time.Time // when it was made
	took      time.Duration
}

// found is a private key as its attributes show it.
type found struct {
	handle    p11.ObjectHandle
	id, label []byte
}

// listKeys asks the token for its secp256k1 private keys.
//
// Whose key it is says CKA_ID, being the 20 bytes of the address, and CKA_LABEL, being the address in hex. Where both
// say the same, that is believed. Otherwise the public key is looked for, the object of the same CKA_ID or else of the
// same CKA_LABEL, and its address counts, because other programs give keys an ID of 20 bytes as well: the SHA-1 of the
// public key. Without one, the ID or else the label is believed; a wrong one costs its row a mismatch.
func (s *session) listKeys(where location) (*keyList, error) {
	if err := s.health(); err != nil {
		return nil, err
	}
	privates, err := s.privateKeys(where)
	if err != nil {
		return nil, err
	}
	list := &keyList{handles: make(map[common.Address]p11.ObjectHandle, len(privates))}
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
			address, ok := publics.of(key)
			if !ok {
				address, ok = addressInID(key.id)
			}
			if !ok {
				address, ok = addressInLabel(key.label)
			}
			if !ok {
				list.anonymous++
				continue
			}
			list.add(address, key.handle)
		}
	}
	// A token that went away in the middle gives a list that is too short, and no error.
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

func (s *session) privateKeys(where location) ([]found, error) {
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
		}
	}
	return keys, nil
}

// publicKeys gives the addresses of the token's public keys by what they have in common with their private ones.
func (s *session) publicKeys() (publicKeys, error) {
	publics := publicKeys{byID: map[string]common.Address{}, byLabel: map[string]common.Address{}}
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
		address, ok := addressOfPoint(values[3])
		if !ok || !isSecp256k1(values[0]) {
			continue
		}
		keep(publics.byID, values[1], address)
		keep(publics.byLabel, values[2], address)
	}
	return publics, nil
}

type publicKeys struct {
	byID, byLabel map[string]common.Address // the zero address: of several keys, so that it tells nothing
}

func keep(in map[string]common.Address, name []byte, address common.Address) {
	if before, again := in[string(name)]; again && before != address {
		address = common.Address{}
	}
	in[string(name)] = address
}

func (p publicKeys) of(key found) (common.Address, bool) {
	for _, c := range []struct {
		in   map[string]common.Address
		name []byte
	}{{p.byID, key.id}, {p.byLabel, key.label}} {
		if address := c.in[string(c.name)]; len(c.name) > 0 && address != (common.Address{}) {
			return address, true
		}
	}
	return common.Address{}, false
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

// attributes reads attributes of an object; one that it does not have, or does not show, is empty.
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
	for i, t := range types { // one by one, to have the others
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

// addressInLabel reads 40 hex digits of any case, with or without 0x; YubiHSM 2 has no room for the latter.
func addressInLabel(label []byte) (common.Address, bool) {
	text := strings.TrimRight(string(label), " \x00")
	if len(text) > 2 && (text[:2] == "0x" || text[:2] == "0X") {
		text = text[2:]
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != common.AddressLength {
		return common.Address{}, false
	}
	return common.Address(b), true
}

// addressOfPoint reads CKA_EC_POINT: a point (SEC 1, section 2.3.3), uncompressed or compressed, within an OCTET STRING
// as PKCS #11 2.40 wants it or bare as some devices give it.
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
