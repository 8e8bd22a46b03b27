package secretfile

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

type aclEntry struct {
	tag, permissions uint16
	id               uint32
}

const noID = ^uint32(0)

func acl(entries ...aclEntry) []byte {
	list := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		list = binary.LittleEndian.AppendUint16(list, e.tag)
		list = binary.LittleEndian.AppendUint16(list, e.permissions)
		list = binary.LittleEndian.AppendUint32(list, e.id)
	}
	return list
}

// credential is the list that systemd gives to a credential for a user.
func credential(user uint32, more ...aclEntry) []byte {
	return acl(append([]aclEntry{{0x01, 4, noID}, {0x02, 4, user}, {0x04, 0, noID}, {0x10, 4, noID}, {0x20, 0, noID}},
		more...)...)
}

func TestPrivateTo(t *testing.T) {
	const user = 990
	for name, tt := range map[string]struct {
		list []byte
		want bool
	}{
		"systemd's credential":      {credential(user), true},
		"another user":              {credential(user + 1), false},
		"a second user":             {credential(user, aclEntry{0x02, 4, 1000}), false},
		"a second user without any": {credential(user, aclEntry{0x02, 0, 1000}), true},
		"a group":                   {credential(user, aclEntry{0x08, 4, 1000}), false},
		"the file's group":          {acl(aclEntry{0x01, 6, noID}, aclEntry{0x04, 4, noID}, aclEntry{0x20, 0, noID}), false},
		"all others":                {acl(aclEntry{0x01, 6, noID}, aclEntry{0x04, 0, noID}, aclEntry{0x20, 4, noID}), false},
		"an unknown tag":            {credential(user, aclEntry{0x40, 4, noID}), false},
		"cut off":                   {credential(user)[:10], false},
		"another version":           {append([]byte{3, 0, 0, 0}, credential(user)[4:]...), false},
		"none":                      {nil, false},
	} {
		if got := privateTo(user, tt.list); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}

// TestCredential reads a file with mode 0440 and the list of a credential, and one with a list that admits others.
func TestCredential(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credential")
	if err := os.WriteFile(path, []byte("s3cret"), 0o400); err != nil {
		t.Fatal(err)
	}
	set := func(list []byte) {
		t.Helper()
		err := unix.Setxattr(path, "system.posix_acl_access", list, 0)
		if errors.Is(err, unix.ENOTSUP) {
			t.Skip("the file system of the temporary directory has no access control lists")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	user := uint32(os.Geteuid())
	set(credential(user))
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o440 {
		t.Fatalf("got mode %04o, want 0440, as systemd's credentials have", info.Mode().Perm())
	}
	if got, _, err := Read(path, 16, false); err != nil || string(got) != "s3cret" {
		t.Errorf("a credential: got %q, %v; want its content", got, err)
	}
	set(acl(aclEntry{0x01, 4, noID}, aclEntry{0x02, 4, user + 1}, aclEntry{0x04, 0, noID}, aclEntry{0x10, 4, noID},
		aclEntry{0x20, 0, noID}))
	if _, _, err := Read(path, 16, false); !errors.As(err, new(*ModeError)) {
		t.Errorf("a list that admits another user: got %v, want a *ModeError", err)
	}
}

func TestMounted(t *testing.T) {
	for name, tt := range map[string]struct {
		mode     fs.FileMode
		owner    uint32
		readOnly bool
		want     bool
	}{
		"a secret of Kubernetes":  {0o440, 0, true, true},
		"a mount to write to":     {0o440, 0, false, false},
		"another owner":           {0o440, 1000, true, false},
		"the group may write":     {0o460, 0, true, false},
		"the owner may write":     {0o640, 0, true, false},
		"all others may read":     {0o444, 0, true, false},
		"all others may write":    {0o442, 0, true, false},
		"defaultMode of a secret": {0o644, 0, true, false},
	} {
		if got := mountedAs(tt.mode, tt.owner, tt.readOnly); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}
