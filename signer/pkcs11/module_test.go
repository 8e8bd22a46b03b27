package pkcs11

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/signertest"
)

func TestBadModulePath(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.so")
	if err := os.WriteFile(text, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := signer.Environment{Getenv: func(string) string { return devicePIN }}
	for path, problem := range map[string]string{
		filepath.Join(dir, "missing.so"): "no such file",
		dir:                              "is not a file",
		text:                             "cannot be loaded as a PKCS #11 module",
	} {
		_, err := new(Modules).Open(t.Context(), "pkcs11:token=purser?module-path="+path, env)
		if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), problem) ||
			!strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want ErrUnusable that says %q", path, err, problem)
		}
	}
}

// Two tokens of one module, and two backends on one token: the module is initialised once, and closing one leaves the
// others open.
func TestSeveralBackendsOnOneModule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := withKeys(t, keys(2)...)
		d.slots[8] = newSlot("other", "0002", signertest.Key(5))
		b := newBench(t, d)
		link := filepath.Join(t.TempDir(), "same.so")
		if err := os.Symlink(b.path, link); err != nil {
			t.Fatal(err)
		}
		one := b.open()
		b.path = link // the same library under another name
		two := b.open()
		three, err := b.try("token=other", "")
		if err != nil {
			t.Fatal(err)
		}
		if n := d.count("C_Initialize"); n != 1 {
			t.Errorf("the module was initialised %d times, want once", n)
		}
		if err := one.Close(); err != nil {
			t.Errorf("got error %v, want none", err)
		}
		if err := sign(t, two, signertest.Key(0)); err != nil {
			t.Errorf("after the other backend's end: got error %v, want none", err)
		}

		// One token is pulled; finding it again restarts the module for both.
		d.change(func() { d.slots[7].absent = true })
		_ = sign(t, two, signertest.Key(0))
		time.Sleep(time.Second)
		d.change(func() { d.slots[7].absent = false })
		time.Sleep(time.Minute)
		_ = sign(t, three, signertest.Key(5)) // notices
		time.Sleep(time.Minute)
		for name, err := range map[string]error{
			"the pulled token's": sign(t, two, signertest.Key(1)),
			"the other token's":  sign(t, three, signertest.Key(5)),
		} {
			if err != nil {
				t.Errorf("%s backend: got error %v, want none", name, err)
			}
		}
		for _, token := range []*Token{two, three, two} {
			if err := token.Close(); err != nil {
				t.Errorf("got error %v, want none", err)
			}
		}
		if d.up || len(d.sessions) > 0 {
			t.Errorf("after the last Close: got initialised %v and %d sessions, want false and 0", d.up, len(d.sessions))
		}
		// Behind the last Close, the library may be used again.
		if err := sign(t, b.open(), signertest.Key(0)); err != nil {
			t.Errorf("got error %v, want none", err)
		}
	})
}

func TestModuleInUseByOthers(t *testing.T) {
	d := withKeys(t, keys(1)...)
	if err := d.Initialize(); err != nil {
		t.Fatal(err)
	}
	_, err := newBench(t, d).try("token=purser", "")
	if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), "in use by something else") {
		t.Errorf("got error %v, want ErrUnusable because of another user", err)
	}
	if d.count("C_Finalize") > 0 {
		t.Errorf("C_Finalize of another user's module: got %d calls, want 0", d.count("C_Finalize"))
	}
}

func TestInitializeFails(t *testing.T) {
	d := withKeys(t, keys(1)...)
	d.before = func(function string, _ p11.SessionHandle) error {
		if function == "C_Initialize" {
			return p11.Error(p11.CKR_GENERAL_ERROR)
		}
		return nil
	}
	_, err := newBench(t, d).try("token=purser", "")
	if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), "C_Initialize: CKR_GENERAL_ERROR") {
		t.Errorf("got error %v, want ErrUnusable with CKR_GENERAL_ERROR of C_Initialize", err)
	}
}

func TestChoiceOfToken(t *testing.T) {
	d := newDevice(t)
	d.slots[1] = newSlot("purser", "0001", signertest.Key(1))
	d.slots[2] = newSlot("purser", "0002", signertest.Key(2))
	d.slots[3] = newSlot("other", "0003", signertest.Key(3))
	d.slots[4] = newSlot("", "", signertest.Key(4))
	d.slots[4].info.Flags = 0 // not initialised
	for attributes, want := range map[string]any{
		"token=other":             uint64(3),
		"serial=0002":             uint64(2),
		"token=purser;slot-id=1":  uint64(1),
		"token=purser":            `fits 2 tokens`,
		"":                        `fits 3 tokens`,
		"token=third":             `"other" with serial "0003"`,
		"token=other;serial=0001": `is not there`,
		"manufacturer=Nobody":     `is not there`,
		"model=M1;serial=0003":    uint64(3),
		"slot-id=4":               `is not there`,
	} {
		token, err := newBench(t, d).try(attributes, "")
		switch want := want.(type) {
		case string:
			if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: error %v, want %q", attributes, err, want)
			}
		case uint64:
			if err != nil {
				t.Errorf("%q: got error %v, want none", attributes, err)
				continue
			}
			if err := sign(t, token, signertest.Key(want)); err != nil {
				t.Errorf("%q: got error %v, want none", attributes, err)
			}
		}
		if token != nil {
			if err := token.Close(); err != nil {
				t.Errorf("got error %v, want none", err)
			}
		}
	}
}

func TestSessionsGranted(t *testing.T) {
	for _, c := range []struct {
		most    int
		asked   string
		granted int // 0: too few
	}{{0, "", 4}, {0, "&sessions=1", 1}, {0, "&sessions=9", 9}, {3, "", 2}, {2, "", 1}, {1, "", 0}} {
		d := withKeys(t, keys(1)...)
		d.most = c.most
		token, err := newBench(t, d).try("token=purser", c.asked)
		if c.granted == 0 {
			if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), "only one session") {
				t.Errorf("%+v: got error %v, want ErrUnusable because of only one session", c, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: got error %v, want none", c, err)
			continue
		}
		if err := sign(t, token, signertest.Key(0)); err != nil {
			t.Errorf("got error %v, want none", err)
		}
		if token.conn.granted != c.granted || len(d.sessions) != c.granted+1 {
			t.Errorf("%+v: got %d sessions and %d in all, want %d and one more", c, token.conn.granted, len(d.sessions), c.granted)
		}
		if err := token.Close(); err != nil {
			t.Errorf("got error %v, want none", err)
		}
	}
}

// Some tokens have read-only sessions only, others have none.
func TestKindOfSession(t *testing.T) {
	for name, set := range map[string]func(d *device){
		"read-only":  func(d *device) { d.readOnly = true },
		"read-write": func(d *device) { d.rwOnly = true },
	} {
		d := withKeys(t, keys(1)...)
		set(d)
		if err := sign(t, newBench(t, d).open(), signertest.Key(0)); err != nil {
			t.Errorf("%s: got error %v, want none", name, err)
		}
	}
}

func TestPINSources(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	vars := map[string]string{
		"HSM_PIN": devicePIN, "TWO": devicePIN + "\n" + devicePIN, "ZERO": devicePIN + "\x00",
		"LONG": strings.Repeat("9", mostPIN+1),
	}
	env := signer.Environment{Getenv: func(name string) string { return vars[name] }}
	for source, want := range map[string]string{
		"&pin-source=file:" + write("pin", devicePIN, 0o600):                                   "",
		"&pin-source=file://" + write("newline", devicePIN+"\n", 0o600):                        "",
		"&pin-source=file://localhost" + write("crlf", devicePIN+"\r\n", 0o600):                "",
		"&pin-source=" + write("bare", devicePIN+"\n", 0o600):                                  "",
		"&pin-source=file:" + strings.ReplaceAll(write("a b", devicePIN, 0o600), " ", "%2520"): "",
		"&pin-source=" + strings.ReplaceAll(write("c d", devicePIN, 0o600), " ", "%20"):        "",
		"&pin-source=env:HSM_PIN":                       "",
		"&pin-source=env:NONE":                          "variable NONE is empty",
		"&pin-source=env:" + strings.ToLower(devicePIN): "variable that pin-source names is empty",
		"&pin-source=env:TWO":                           "more than one line",
		"&pin-source=env:ZERO":                          "zero byte",
		"&pin-source=env:LONG":                          "more than 1024 bytes",
		"":                                              "PURSER_PKCS11_PIN (there is no pin-source) is empty",
		"&pin-source=file:" + filepath.Join(dir, "none"):                           "no such file",
		"&pin-source=file:" + dir:                                                  "is a directory",
		"&pin-source=file:" + write("empty", "\n", 0o600):                          "is empty",
		"&pin-source=file:" + write("lines", devicePIN+"\n"+devicePIN, 0o600):      "more than one line",
		"&pin-source=file:" + write("long", strings.Repeat("9", 4*mostPIN), 0o600): "more than 1024 bytes",
	} {
		d := withKeys(t, keys(1)...)
		b := newBench(t, d)
		backend, err := b.modules.Open(t.Context(), "pkcs11:?module-path="+b.path+source, env)
		if want == "" {
			if err != nil {
				t.Errorf("%s: got error %v, want none", source, err)
				continue
			}
			if err := backend.Close(); err != nil {
				t.Errorf("got error %v, want none", err)
			}
			continue
		}
		if !errors.Is(err, signer.ErrUnusable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want ErrUnusable that says %q", source, err, want)
			continue
		}
		said := strings.ToLower(err.Error()) // a few nines may be in the name of the temporary directory
		if strings.Contains(said, devicePIN) || strings.Contains(said, strings.Repeat("9", 20)) {
			t.Errorf("got error %q, want none of the PIN in it", err)
		}
		if d.count("C_Login") > 0 {
			t.Errorf("%s: got %d logins, want 0", source, d.count("C_Login"))
		}
	}
}
