package pkcs11

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	p11 "github.com/miekg/pkcs11"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

// Keys come labelled in many ways; whichever it is, the token signs with the right one.
func TestWhoseKeyItIs(t *testing.T) {
	key, other := signertest.Key(0), signertest.Key(1)
	a, b := signertest.Address(key), signertest.Address(other)
	point := crypto.FromECDSAPub(&key.PublicKey)
	sum := sha1.Sum(point) // what NSS and others take for an ID
	with := func(o object, kind uint, value []byte) object {
		if value == nil {
			delete(o.attributes, kind)
		} else {
			o.attributes[kind] = value
		}
		return o
	}
	for name, c := range map[string]struct {
		objects []object
		has     bool
	}{
		"ID":                            {[]object{private(key, a[:], "customer 1")}, true},
		"ID and label":                  {[]object{private(key, a[:], a.Hex())}, true},
		"label, EIP-55":                 {[]object{private(key, []byte{1}, a.Hex())}, true},
		"label, lower case":             {[]object{private(key, nil, strings.ToLower(a.Hex()))}, true},
		"label without 0x":              {[]object{private(key, []byte{0, 7}, a.Hex()[2:])}, true},
		"label, padded":                 {[]object{private(key, nil, a.Hex()+"  \x00")}, true},
		"public key by ID":              {[]object{private(key, []byte{9}, "x"), public(octets(point), []byte{9}, "y")}, true},
		"public key by label":           {[]object{private(key, nil, "x"), public(octets(point), nil, "x")}, true},
		"public key, bare":              {[]object{private(key, []byte{9}, ""), public(point, []byte{9}, "")}, true},
		"public key, compressed":        {[]object{private(key, []byte{9}, ""), public(octets(crypto.CompressPubkey(&key.PublicKey)), []byte{9}, "")}, true},
		"public key, compressed, bare":  {[]object{private(key, []byte{9}, ""), public(crypto.CompressPubkey(&key.PublicKey), []byte{9}, "")}, true},
		"public key, ID a SHA-1":        {[]object{private(key, sum[:], "x"), public(octets(point), sum[:], "x")}, true},
		"public key against the ID":     {[]object{private(key, b[:], "x"), public(octets(point), b[:], "x")}, true},
		"ID and label do not agree":     {[]object{private(key, a[:], b.Hex())}, true},
		"curve by name":                 {[]object{with(private(key, a[:], ""), p11.CKA_EC_PARAMS, []byte("\x13\x09secp256k1"))}, true},
		"no label":                      {[]object{with(private(key, a[:], ""), p11.CKA_LABEL, nil)}, true},
		"twice":                         {[]object{private(key, a[:], ""), private(key, a[:], "copy")}, true},
		"among others":                  {[]object{private(other, b[:], ""), private(key, a[:], ""), private(signertest.Key(2), nil, "?")}, true},
		"ID a SHA-1, no public key":     {[]object{private(key, sum[:], "x")}, false},
		"neither":                       {[]object{private(key, []byte{9}, "customer 1")}, false},
		"two public keys of that label": {[]object{private(key, nil, "x"), public(octets(point), nil, "x"), public(octets(crypto.FromECDSAPub(&other.PublicKey)), nil, "x")}, false},
		"point that is none":            {[]object{private(key, []byte{9}, ""), public(make([]byte, 65), []byte{9}, "")}, false},
		"point of another curve":        {[]object{private(key, []byte{9}, ""), with(public(octets(point), []byte{9}, ""), p11.CKA_EC_PARAMS, []byte{6, 1})}, false},
		"another curve":                 {[]object{with(private(key, a[:], a.Hex()), p11.CKA_EC_PARAMS, []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7})}, false},
		"another kind":                  {[]object{with(private(key, a[:], a.Hex()), p11.CKA_KEY_TYPE, p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_RSA).Value)}, false},
		"nothing there":                 {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := withKeys(t)
			d.slots[7].objects = c.objects
			token := newBench(t, d).open()
			var want error
			if !c.has {
				want = signer.ErrNoKey
			}
			if err := token.HasKey(t.Context(), a); !errors.Is(err, want) {
				t.Errorf("HasKey = %v, want %v", err, want)
			}
			err := sign(t, token, key)
			if c.has && err != nil || !c.has && !errors.Is(err, signer.ErrNoKey) {
				t.Errorf("SignMessage: got error %v, want success %v or ErrNoKey", err, c.has)
			}
		})
	}
}

// A key that is there and names no account is the likely cause of a missing key: the row's reason describes it.
func TestReasonNamesTheUnreadableKey(t *testing.T) {
	key := signertest.Key(0)
	a := signertest.Address(key)
	point := octets(crypto.FromECDSAPub(&key.PublicKey))
	sum := sha1.Sum(point)
	nist := public(point, []byte{9}, "")
	nist.attributes[p11.CKA_EC_PARAMS] = []byte{6, 1}
	curve := private(key, a[:], "")
	curve.attributes[p11.CKA_EC_PARAMS] = []byte{6, 1}
	curveless := private(key, nil, a.Hex())
	delete(curveless.attributes, p11.CKA_EC_PARAMS)
	const doubt = "; keys whose account is unknown or doubtful: 1 (set its CKA_ID and CKA_LABEL to the address, or " +
		"import its public key under its CKA_ID); "
	for name, c := range map[string]struct {
		objects []object
		want    string // the end of the reason; a part of it, if it ends in …
	}{
		"no CKA_EC_POINT": {[]object{private(key, []byte{9}, "customer\n1"), public(nil, []byte{9}, "")},
			doubt + `CKA_ID "09", CKA_LABEL "customer\n1": its public key object has no readable CKA_EC_POINT`},
		"point that is none": {[]object{private(key, []byte{9}, ""), public(make([]byte, 65), []byte{9}, "")},
			"the CKA_EC_POINT of its public key object is not a point of secp256k1"},
		"another curve": {[]object{private(key, []byte{9}, ""), nist}, "its public key object is on another curve"},
		"two public keys": {[]object{private(key, nil, "x"), public(point, nil, "x"),
			public(octets(crypto.FromECDSAPub(&signertest.Key(1).PublicKey)), nil, "x")},
			"several public key objects have its CKA_ID or its CKA_LABEL"},
		"no public key": {[]object{private(key, nil, "x")}, doubt + `CKA_ID "", CKA_LABEL "x": it has no public key object`},
		"ID a SHA-1, no CKA_EC_POINT": {[]object{private(key, sum[:], ""), public(nil, sum[:], "")},
			"has no readable CKA_EC_POINT, so it is taken for the key of " + common.Address(sum).Hex()},
		"ID a SHA-1, no public key": {[]object{private(key, sum[:], "")},
			"; private keys without a public key object, known by CKA_ID or CKA_LABEL alone: 1 (set its CKA_ID …"},
		"many": {[]object{private(key, nil, "a"), private(key, nil, "b"), private(key, nil, "c"), private(key, nil, "d")},
			"; and 1 more"},
		"key of another curve": {[]object{curve}, "is on another curve, want secp256k1 …"},
		"no CKA_EC_PARAMS":     {[]object{curveless}, "has no readable CKA_EC_PARAMS, want secp256k1 …"},
		"none": {[]object{private(signertest.Key(1), addressOf(1).Bytes(), addressOf(1).Hex())},
			")"},
	} {
		t.Run(name, func(t *testing.T) {
			d := withKeys(t)
			d.slots[7].objects = c.objects
			token := newBench(t, d).open()
			for call, err := range map[string]error{"HasKey": token.HasKey(t.Context(), a), "SignMessage": sign(t, token, key)} {
				part, isPart := strings.CutSuffix(c.want, "…")
				if !errors.Is(err, signer.ErrNoKey) || isPart && !strings.Contains(err.Error(), part) ||
					!isPart && !strings.HasSuffix(err.Error(), c.want) {
					t.Errorf("%s: got %v, want ErrNoKey that ends %q", call, err, c.want)
				}
			}
		})
	}
}

// A point whose first byte looks like the length of a DER string.
func TestBarePointThatLooksLikeDER(t *testing.T) {
	for i := range uint64(2000) {
		key := signertest.Key(i)
		if point := crypto.FromECDSAPub(&key.PublicKey); point[1] == 63 {
			if a, ok := addressOfPoint(point); !ok || a != signertest.Address(key) {
				t.Errorf("key %d: got %v, %v; want %v", i, a, ok, signertest.Address(key))
			}
			return
		}
	}
	t.Fatal("got no such key among 2,000, want one")
}

func TestObjectAndIDChooseKeys(t *testing.T) {
	d := withKeys(t)
	a0, a1, a2 := addressOf(0), addressOf(1), addressOf(2)
	d.slots[7].objects = []object{
		private(signertest.Key(0), a0[:], "customers"), private(signertest.Key(1), a1[:], "customers"),
		private(signertest.Key(2), a2[:], "treasury"),
	}
	for attributes, want := range map[string][]common.Address{
		"":                 {a0, a1, a2},
		"object=customers": {a0, a1},
		"object=treasury":  {a2},
		"object=none":      nil,
		fmt.Sprintf("id=%%%02X%s;object=customers", a1[0], pctRest(a1)): {a1},
	} {
		token, err := newBench(t, d).try(attributes, "")
		if err != nil {
			t.Fatal(err)
		}
		has := 0
		for _, a := range []common.Address{a0, a1, a2} {
			if err := token.HasKey(t.Context(), a); err == nil {
				has++
			} else if !errors.Is(err, signer.ErrNoKey) {
				t.Errorf("HasKey(%v) = %v, want nil or ErrNoKey", a, err)
			}
		}
		if has != len(want) {
			t.Errorf("%q: %d keys, want %d", attributes, has, len(want))
		}
		if err := token.Close(); err != nil {
			t.Errorf("got error %v, want none", err)
		}
	}
}

func pctRest(a common.Address) string {
	var s strings.Builder
	for _, b := range a[1:] {
		fmt.Fprintf(&s, "%%%02x", b)
	}
	return s.String()
}

// The public keys are read only where they are needed: each costs a device a call.
func TestPublicKeysAreReadWhenNeeded(t *testing.T) {
	d := withKeys(t, keys(5)...)
	newBench(t, d).open()
	if n := d.count("C_FindObjectsInit"); n != 1 {
		t.Errorf("%d searches for keys that say it twice whose they are, want 1", n)
	}
}

// A key made after the list was found when it is asked for, but not for every row without a key.
func TestMissingKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := withKeys(t, keys(1)...)
		token := newBench(t, d).open()
		searches := func() int { return d.count("C_FindObjectsInit") }
		before := searches()
		err := sign(t, token, signertest.Key(1))
		if !errors.Is(err, signer.ErrNoKey) || errors.Is(err, signer.ErrUnusable) ||
			!strings.Contains(err.Error(), addressOf(1).Hex()) {
			t.Errorf("got error %v, want ErrNoKey with the account", err)
		}
		time.Sleep(30 * time.Second)
		for i := range 100 {
			if err := sign(t, token, signertest.Key(uint64(1+i))); !errors.Is(err, signer.ErrNoKey) {
				t.Fatal(err)
			}
		}
		if n := searches() - before; n != 1 {
			t.Errorf("%d searches for 101 missing keys, want 1", n)
		}
		a := addressOf(1)
		d.change(func() { d.slots[7].objects = append(d.slots[7].objects, private(signertest.Key(1), a[:], a.Hex())) })
		time.Sleep(30 * time.Second)
		if err := token.HasKey(t.Context(), a); err != nil {
			t.Errorf("HasKey of the new key = %v, want nil", err)
		}
		if err := sign(t, token, signertest.Key(1)); err != nil {
			t.Errorf("got error %v, want none", err)
		}
	})
}

// A key that was deleted and imported again has another handle; one that was only deleted is missing.
func TestStaleHandles(t *testing.T) {
	d := withKeys(t, keys(3)...)
	token := newBench(t, d).open()
	d.change(func() {
		objects := d.slots[7].objects
		d.slots[7].objects = append(objects, objects[0])
		objects[0], objects[1] = object{}, object{}
	})
	if err := sign(t, token, signertest.Key(0)); err != nil {
		t.Errorf("a key with a new handle: got error %v, want none", err)
	}
	if err := sign(t, token, signertest.Key(1)); !errors.Is(err, signer.ErrNoKey) {
		t.Errorf("a deleted key: got error %v, want ErrNoKey", err)
	}
	if err := sign(t, token, signertest.Key(2)); err != nil {
		t.Errorf("got error %v, want none", err)
	}
	if n := d.count("C_Initialize"); n != 1 {
		t.Errorf("the module was initialised %d times, want once", n)
	}
}

func TestCheck(t *testing.T) {
	a := addressOf(0)
	for name, c := range map[string]struct {
		change func(d *device)
		want   string // the line, or what the error says
		fails  bool
	}{
		"all well": {func(*device) {},
			`PKCS #11 token "purser" ("Works" "M1", serial "0001", firmware 3.1): 3 keys, sessions: 4`, false},
		"odd keys": {func(d *device) {
			d.slots[7].objects = append(d.slots[7].objects, private(signertest.Key(8), nil, "?"), private(signertest.Key(0), a[:], ""))
		}, `3 keys, sessions: 4; keys whose account is unknown or doubtful: 1 (set its CKA_ID and ` +
			`CKA_LABEL to the address, or import its public key under its CKA_ID); CKA_ID "", CKA_LABEL "?": it has no public key object; ` +
			`keys that repeat an account: 1`, false},
		"few sessions": {func(d *device) { d.most = 3 }, `sessions: 2 (the token allows no more; 4 configured)`, false},
		"none":         {func(d *device) { d.slots[7].objects = nil }, "has no secp256k1 private key", true},
		"only odd ones": {func(d *device) { d.slots[7].objects = []object{private(signertest.Key(8), nil, "?")} },
			`CKA_LABEL "?": it has no public key object`, true},
		"hostile label": {func(d *device) { d.slots[7].info.Model = "a\nb\x1b[2J" }, `"a\nb\x1b[2J"`, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := withKeys(t, keys(3)...)
			c.change(d)
			line, err := newBench(t, d).open().Check(t.Context())
			if c.fails {
				if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want %q", err, c.want)
				}
				return
			}
			if err != nil || !strings.Contains(line, c.want) {
				t.Errorf("%q, %v; want %q", line, err, c.want)
			}
		})
	}
}
