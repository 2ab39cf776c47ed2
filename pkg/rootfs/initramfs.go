package rootfs

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// InitEntry is a file, directory or symlink of an initramfs. Open returns the
// contents, or the target of a symlink, of exactly Size bytes; it is not
// called for directories.
type InitEntry struct {
	Name string // relative to the root
	Mode fs.FileMode
	Size int64
	Open func() (io.ReadCloser, error)
}

// WriteInitramfs writes a newc cpio archive, not compressed: the kernel copies
// plain pages faster than it inflates them, and a VM boots from memory. Parent
// directories that entries lacks are made, 0755. Owner is root and time zero,
// so that equal entries give equal bytes. The format is in
// https://docs.kernel.org/driver-api/early-userspace/buffer-format.html.
func WriteInitramfs(w io.Writer, entries []InitEntry) error {
	c := &cpioWriter{w: bufio.NewWriterSize(w, 256<<10), made: map[string]bool{".": true}}
	for _, e := range entries {
		if err := c.add(e); err != nil {
			return fmt.Errorf("write initramfs entry %q: %w", e.Name, err)
		}
	}
	if err := c.header("TRAILER!!!", 0, 1, 0); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	if err := c.w.Flush(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return nil
}

type cpioWriter struct {
	w    *bufio.Writer
	ino  uint32
	made map[string]bool // names so far
}

func (c *cpioWriter) add(e InitEntry) error {
	name := path.Clean(e.Name)
	if name == "." || name == ".." || name[0] == '/' || strings.HasPrefix(name, "../") || strings.IndexByte(name, 0) >= 0 {
		return fmt.Errorf("name is not local: %w", fs.ErrInvalid)
	}
	if err := c.parents(path.Dir(name)); err != nil {
		return err
	}
	if c.made[name] {
		if e.Mode.IsDir() {
			return nil
		}
		return fs.ErrExist
	}
	c.made[name] = true
	mode := unixPerm(e.Mode)
	switch e.Mode.Type() {
	case fs.ModeDir:
		return c.header(name, 0o040000|mode, 2, 0)
	case fs.ModeSymlink:
		return c.file(name, 0o120000|mode, e)
	case 0:
		return c.file(name, 0o100000|mode, e)
	}
	return fmt.Errorf("file type %v: %w", e.Mode.Type(), fs.ErrInvalid)
}

// unixPerm returns the permission bits of st_mode.
func unixPerm(m fs.FileMode) uint32 {
	perm := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		perm |= 0o4000
	}
	if m&fs.ModeSetgid != 0 {
		perm |= 0o2000
	}
	if m&fs.ModeSticky != 0 {
		perm |= 0o1000
	}
	return perm
}

// parents makes what is missing of dir and above. The kernel makes no
// directories on its own.
func (c *cpioWriter) parents(dir string) error {
	if c.made[dir] {
		return nil
	}
	if err := c.parents(path.Dir(dir)); err != nil {
		return err
	}
	c.made[dir] = true
	return c.header(dir, 0o040755, 2, 0)
}

func (c *cpioWriter) file(name string, mode uint32, e InitEntry) error {
	if e.Size < 0 || e.Size > 1<<32-1 {
		return fmt.Errorf("size %d does not fit into a cpio archive", e.Size)
	}
	r, err := e.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if err := c.header(name, mode, 1, e.Size); err != nil {
		return err
	}
	// One byte more than announced is read, to see that there is none.
	n, err := io.Copy(c.w, io.LimitReader(r, e.Size))
	if err != nil {
		return err
	}
	if n != e.Size {
		return fmt.Errorf("%d bytes, announced %d: %w", n, e.Size, io.ErrUnexpectedEOF)
	}
	if m, _ := io.ReadFull(r, make([]byte, 1)); m != 0 {
		return fmt.Errorf("more than the announced %d bytes", e.Size)
	}
	return c.pad(int(e.Size % 4))
}

// header writes the header and the name, padded to four bytes.
func (c *cpioWriter) header(name string, mode, nlink uint32, size int64) error {
	ino := uint32(0)
	if mode != 0 {
		c.ino++
		ino = c.ino
	}
	// magic ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
	n, err := fmt.Fprintf(c.w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		ino, mode, 0, 0, nlink, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	if err != nil {
		return err
	}
	return c.pad(n % 4)
}

func (c *cpioWriter) pad(rest int) error {
	if rest == 0 {
		return nil
	}
	_, err := c.w.WriteString("\x00\x00\x00"[rest-1:])
	return err
}
