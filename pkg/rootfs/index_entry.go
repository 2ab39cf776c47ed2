package rootfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// decoder takes values off the front of s until the first error.
type decoder struct {
	s   string
	err error
}

var errShort = errors.New("record cut short")

func (d *decoder) uvarint(limit uint64) uint64 {
	var v uint64
	for i := 0; i < len(d.s) && i < binary.MaxVarintLen64; i++ {
		c := d.s[i]
		if i == binary.MaxVarintLen64-1 && c > 1 {
			break
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			d.s = d.s[i+1:]
			if v > limit {
				d.fail(fmt.Errorf("value %d, at most %d", v, limit))
				return 0
			}
			return v
		}
	}
	d.fail(errShort)
	return 0
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.s = ""
}

func (d *decoder) byte() byte {
	if d.s == "" {
		d.fail(errShort)
		return 0
	}
	b := d.s[0]
	d.s = d.s[1:]
	return b
}

func (d *decoder) string() string {
	n := d.uvarint(1 << 32)
	if n > uint64(len(d.s)) {
		d.fail(errShort)
		return ""
	}
	v := d.s[:n]
	d.s = d.s[n:]
	return v
}

func (d *decoder) entry() (e entry) {
	e.kind = kind(d.byte())
	e.path = d.string()
	if e.kind == kindWhiteout || e.kind == kindOpaque {
		return e
	}
	e.mode = uint16(d.uvarint(0o7777))
	e.uid, e.gid = uint32(d.uvarint(maxID)), uint32(d.uvarint(maxID))
	e.sec, e.nsec = int64(d.uvarint(1<<63-1)), uint32(d.uvarint(999_999_999))
	switch e.kind {
	case kindFile:
		e.size = int64(d.uvarint(1<<63 - 1))
		e.place = place(d.byte())
		e.offset = int64(d.uvarint(1<<63 - 1))
	case kindSymlink, kindLink:
		e.target = d.string()
	case kindChar, kindBlock:
		e.major, e.minor = uint32(d.uvarint(maxMajor)), uint32(d.uvarint(maxMinor))
	}
	e.xattrs = d.string()
	return e
}

// check repeats on a decoded entry what newEntry established.
func (e *entry) check(f footer, l *Limits) error {
	if e.kind == 0 || e.kind >= kindEnd {
		return fmt.Errorf("kind %d", e.kind)
	}
	if !isClean(e.path) {
		return fmt.Errorf("path %.300q is not clean", e.path)
	}
	if e.path == "" && e.kind != kindDir && e.kind != kindOpaque {
		return errors.New("the root is not a directory")
	}
	if err := checkPath(e.path, l); err != nil {
		return err
	}
	for rest := e.xattrs; rest != ""; {
		name, value, r, err := nextXattr(rest)
		if err != nil || !validXattr(name) || isACL(name) && !validACL(value) || len(value) > maxXattrValue {
			return fmt.Errorf("xattr %.80q", name)
		}
		rest = r
	}
	switch e.kind {
	case kindSymlink:
		return checkSymlink(e.target)
	case kindLink:
		if e.target == "" || !isClean(e.target) {
			return fmt.Errorf("hard link to %.300q", e.target)
		}
		return checkPath(e.target, l)
	case kindFile:
		return e.checkPlace(f)
	}
	return nil
}

// isClean reports whether p is as cleanPath returns it.
func isClean(p string) bool {
	if p == "" {
		return true
	}
	for c := range strings.SplitSeq(p, "/") {
		if c == "" || c == "." || c == ".." {
			return false
		}
	}
	return true
}

func (e *entry) checkPlace(f footer) error {
	var ok bool
	switch e.place {
	case placeNone:
		ok = e.size == 0
	case placeSmall:
		ok = 0 < e.size && e.size <= smallMax && e.offset <= f.smallSize-e.size
	case placeData:
		ok = 0 < e.size && e.size <= f.dataSize && e.offset%blockSize == 0 && e.offset <= f.dataSize-e.size
	}
	if !ok {
		return fmt.Errorf("contents of %d bytes at %d:%d", e.size, e.place, e.offset)
	}
	return nil
}
