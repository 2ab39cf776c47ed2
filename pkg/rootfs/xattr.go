package rootfs

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

const paxXattr = "SCHILY.xattr."

// xattrsOf returns the encoded xattrs of hdr, sorted by name, and the names
// that it drops: overlayfs obeys its own xattrs on a lower layer, and a
// namespace that Linux does not know cannot be set.
func xattrsOf(hdr *tar.Header, l *Limits) (enc string, dropped []string, err error) {
	var names []string
	total := 0
	for key, value := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			continue
		}
		if !validXattr(name) || isACL(name) && !validACL(value) {
			dropped = append(dropped, name)
			continue
		}
		total += len(name) + len(value)
		names = append(names, name)
	}
	if total > l.Xattrs {
		return "", nil, fmt.Errorf("%w: entry %.300q: %d bytes of xattrs, at most %d", ErrLimit, hdr.Name, total, l.Xattrs)
	}
	slices.Sort(names)
	slices.Sort(dropped)
	var b []byte
	for _, name := range names {
		value := hdr.PAXRecords[paxXattr+name]
		if len(value) > maxXattrValue {
			return "", nil, badEntry(hdr.Name, "xattr %.80q of %d bytes, at most %d", name, len(value), maxXattrValue)
		}
		b = appendXattr(b, name, value)
	}
	return string(b), dropped, nil
}

const maxXattrValue = 1<<16 - 1

// xattrNamespaces are the prefixes of Linux with their index in EROFS
// (EROFS_XATTR_INDEX_*); the POSIX ACLs are whole names.
var xattrNamespaces = [...]struct {
	prefix string
	index  uint8
}{
	{"user.", 1}, {"trusted.", 4}, {"security.", 6},
	{"system.posix_acl_access", 2}, {"system.posix_acl_default", 3},
}

// splitXattr returns the EROFS index of a name and what follows the prefix.
func splitXattr(name string) (index uint8, rest string, ok bool) {
	for _, ns := range xattrNamespaces {
		rest, ok := strings.CutPrefix(name, ns.prefix)
		if !ok {
			continue
		}
		acl := !strings.HasSuffix(ns.prefix, ".")
		return ns.index, rest, (rest == "") == acl
	}
	return 0, "", false
}

func validXattr(name string) bool {
	if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
		return false
	}
	_, _, ok := splitXattr(name)
	return ok && len(name) <= maxName && strings.IndexByte(name, 0) < 0
}

func isACL(name string) bool { return strings.HasPrefix(name, "system.posix_acl_") }

// validACL checks a POSIX ACL as in linux/posix_acl_xattr.h: a version and
// entries of tag, permissions and id. The kernel denies access to a file whose
// ACL it cannot read.
func validACL(v string) bool {
	return len(v) >= aclHeader && len(v)%aclEntry == aclHeader && v[:aclHeader] == "\x02\x00\x00\x00"
}

const (
	aclHeader = 4
	aclEntry  = 8
)

// appendXattr appends one name and value, each preceded by its length.
func appendXattr(b []byte, name, value string) []byte {
	b = binary.AppendUvarint(b, uint64(len(name)))
	b = append(b, name...)
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(b, value...)
}

// nextXattr takes the first xattr off enc.
func nextXattr(enc string) (name, value, rest string, err error) {
	d := decoder{s: enc}
	name, value = d.string(), d.string()
	return name, value, d.s, d.err
}
