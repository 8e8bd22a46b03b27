package secretfile

import (
	"encoding/binary"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// private reports whether the access control list of a file gives it to its owner, to root and to this process's user
// only. With a list, the group bits of the mode are the list's mask and say nothing of the group: systemd provides
// credentials (LoadCredential=) as root's files with mode 0440, readable by the unit's user through such a list.
func private(path string) bool {
	list := make([]byte, 4096) // 511 entries; a file with more is not private
	n, err := unix.Getxattr(path, "system.posix_acl_access", list)
	return err == nil && privateTo(os.Geteuid(), list[:n])
}

// privateTo reads a list as it is stored (linux/posix_acl_xattr.h): a version and entries of tag, permissions and id.
func privateTo(user int, list []byte) bool {
	const (
		version, header, entry  = 2, 4, 8
		ownerTag, userTag, mask = 0x01, 0x02, 0x10
	)
	if len(list) < header || (len(list)-header)%entry != 0 || binary.LittleEndian.Uint32(list) != version {
		return false
	}
	for list = list[header:]; len(list) > 0; list = list[entry:] {
		tag, permissions := binary.LittleEndian.Uint16(list), binary.LittleEndian.Uint16(list[2:])
		id := int(binary.LittleEndian.Uint32(list[4:]))
		switch {
		case permissions == 0, tag == ownerTag, tag == mask:
		case tag == userTag && (id == user || id == 0):
		default: // the group, another user or group, all others, or an unknown tag
			return false
		}
	}
	return true
}

// mounted reports whether a file is like those of a secret that Kubernetes mounts for a user other than root: root's,
// on a read-only mount, and readable, but not writable, by a group. The group is this process's, or it could not read
// the file; in a container it has no other members.
func mounted(path string, info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	var mount unix.Statfs_t
	return ok && unix.Statfs(path, &mount) == nil &&
		mountedAs(info.Mode(), stat.Uid, mount.Flags&unix.ST_RDONLY != 0)
}

func mountedAs(mode fs.FileMode, owner uint32, readOnly bool) bool {
	return mode.Perm()&^0o440 == 0 && owner == 0 && readOnly
}
