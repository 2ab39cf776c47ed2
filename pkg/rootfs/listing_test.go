package rootfs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/erofs/go-erofs"
	"golang.org/x/sys/unix"
)

// found is a file as somebody else's reader of our disks sees it.
type found struct {
	mode     uint32 // st_mode
	uid, gid uint32
	size     int64 // zero for directories
	sec      int64
	nsec     uint32
	nlink    int
	rdev     uint64
	content  string // of files up to 64 bytes, the sum of bigger ones, target of symlinks
	xattrs   string
	links    string // first of the paths that are the same inode
}

func (f found) String() string {
	return fmt.Sprintf("mode %o owner %d:%d size %d mtime %d.%09d nlink %d rdev %x content %q xattrs %q same as %q",
		f.mode, f.uid, f.gid, f.size, f.sec, f.nsec, f.nlink, f.rdev, f.content, f.xattrs, f.links)
}

// brief is what most tests look at.
func (f found) brief() string {
	var s string
	switch f.mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		s = "dir"
	case syscall.S_IFREG:
		s = "file " + f.content
	case syscall.S_IFLNK:
		s = "-> " + f.content
	default:
		s = fmt.Sprintf("special %o %x", f.mode&syscall.S_IFMT, f.rdev)
	}
	if perm := f.mode & 0o7777; perm != 0o755 && perm != 0o644 && perm != 0o777 {
		s += fmt.Sprintf(" %o", perm)
	}
	if f.uid|f.gid != 0 {
		s += fmt.Sprintf(" %d:%d", f.uid, f.gid)
	}
	if f.nlink > 1 && f.mode&syscall.S_IFMT != syscall.S_IFDIR {
		s += fmt.Sprintf(" %d links with %s", f.nlink, f.links)
	}
	return s
}

func digestContent(r io.Reader, size int64) (string, error) {
	if size <= 64 {
		b, err := io.ReadAll(r)
		return string(b), err
	}
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err == nil && n != size {
		err = fmt.Errorf("read %d bytes of %d", n, size)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), err
}

func joinXattrs(m map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		// go-erofs v0.3.1 names the ACLs, which have no suffix, with a dot.
		fmt.Fprintf(&b, "%s=%q ", strings.TrimSuffix(k, "."), m[k])
	}
	return b.String()
}

// listHost lists a directory of this machine, mounted or unpacked.
func listHost(t testing.TB, root string) map[string]found {
	t.Helper()
	all := map[string]found{}
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
		f := found{
			mode: st.Mode, uid: st.Uid, gid: st.Gid, size: st.Size, sec: st.Mtim.Sec, nsec: uint32(st.Mtim.Nsec),
			nlink: int(st.Nlink), rdev: st.Rdev, links: rel,
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			f.size = 0
		case unix.S_IFLNK:
			f.content, err = os.Readlink(path)
		case unix.S_IFREG:
			file, oerr := os.Open(path)
			if oerr != nil {
				return oerr
			}
			defer file.Close()
			f.content, err = digestContent(file, st.Size)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
		if f.xattrs, err = hostXattrs(path); err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
		if name, ok := first[st.Ino]; ok && st.Nlink > 1 && f.mode&unix.S_IFMT != unix.S_IFDIR {
			f.links = name
		} else {
			first[st.Ino] = rel
		}
		all[rel] = f
		return nil
	})
	if err != nil {
		t.Fatalf("list %s: %v", root, err)
	}
	return all
}

func hostXattrs(path string) (string, error) {
	buf := make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	m := map[string]string{}
	value := make([]byte, 1<<16)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		k, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		m[name] = string(value[:k])
	}
	return joinXattrs(m), nil
}

// listErofs lists an EROFS image through go-erofs, without root.
func listErofs(t testing.TB, img Image) map[string]found {
	t.Helper()
	var files []io.ReaderAt
	for _, disk := range img.Disks {
		f, err := os.Open(disk)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	fsys, err := erofs.Open(files[0], erofs.WithExtraDevices(files[1:]...))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]found{}
	first := map[int64]string{}
	err = fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		st := info.Sys().(*erofs.Stat)
		f := found{
			mode: unixMode(st.Mode), uid: st.UID, gid: st.GID, size: st.Size, sec: int64(st.Mtime), nsec: st.MtimeNs,
			nlink: st.Nlink, xattrs: joinXattrs(st.Xattrs), links: path,
		}
		switch {
		case d.IsDir():
			f.size = 0
		case st.Mode.Type() == fs.ModeSymlink:
			f.content, err = fs.ReadLink(fsys, path)
		case st.Mode.Type() == 0:
			file, oerr := fsys.Open(path)
			if oerr != nil {
				return oerr
			}
			defer file.Close()
			f.content, err = digestContent(file, st.Size)
		default:
			f.rdev = unix.Mkdev(st.Rdev>>8&0xfff, st.Rdev&0xff|st.Rdev>>12&^0xff)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if name, ok := first[st.Ino]; ok && !d.IsDir() {
			f.links = name
		} else {
			first[st.Ino] = path
		}
		all[path] = f
		return nil
	})
	if err != nil {
		t.Fatalf("go-erofs: %v", err)
	}
	return all
}

func unixMode(m fs.FileMode) uint32 {
	mode := unixPerm(m)
	switch m.Type() {
	case fs.ModeDir:
		return mode | syscall.S_IFDIR
	case fs.ModeSymlink:
		return mode | syscall.S_IFLNK
	case fs.ModeDevice:
		return mode | syscall.S_IFBLK
	case fs.ModeDevice | fs.ModeCharDevice:
		return mode | syscall.S_IFCHR
	case fs.ModeNamedPipe:
		return mode | syscall.S_IFIFO
	}
	return mode | syscall.S_IFREG
}

// compare reports each difference between two listings of the same thing.
func compare(t testing.TB, nameA string, a map[string]found, nameB string, b map[string]found) {
	t.Helper()
	for _, path := range slices.Sorted(maps.Keys(a)) {
		if f, ok := b[path]; !ok {
			t.Errorf("%s: only in %s: %v", path, nameA, a[path])
		} else if f != a[path] {
			t.Errorf("%s:\n%12s: %v\n%12s: %v", path, nameA, a[path], nameB, f)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[path]; !ok {
			t.Errorf("%s: only in %s: %v", path, nameB, b[path])
		}
	}
}

// list returns what is in an EROFS image. All readers there are must agree on
// it: go-erofs, fsck.erofs, and as root the kernel.
func list(t testing.TB, img Image) map[string]found {
	t.Helper()
	all := listErofs(t, img)
	fsckErofs(t, img)
	if os.Getuid() == 0 {
		compare(t, "go-erofs", all, "kernel", listHost(t, mount(t, "erofs", "ro", img.Disks...)))
	}
	return all
}

func fsckErofs(t testing.TB, img Image) {
	t.Helper()
	args := []string{"--extract"}
	for _, dev := range img.Disks[1:] {
		args = append(args, "--device="+dev)
	}
	if out := run(t, "fsck.erofs", append(args, img.Disks[0])...); strings.TrimSpace(out) != "" {
		t.Errorf("fsck.erofs: %s", out)
	}
}

// listExt4 returns what is in an ext4 image, which e2fsck must find clean.
func listExt4(t testing.TB, img Image) map[string]found {
	t.Helper()
	if out := run(t, "e2fsck", "-fn", img.Disks[0]); strings.Contains(out, "? no") {
		t.Errorf("e2fsck: %s", out)
	}
	if os.Getuid() != 0 {
		return nil
	}
	all := listHost(t, mount(t, "ext4", "ro", img.Disks[0]))
	delete(all, "lost+found")
	return all
}

func briefs(all map[string]found) []string {
	var lines []string
	for path, f := range all {
		if path != "." {
			lines = append(lines, path+" "+f.brief())
		}
	}
	slices.Sort(lines)
	return lines
}
