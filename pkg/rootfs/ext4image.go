package rootfs

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
)

// ext4MaxTime is the last second of an ext4 inode of 256 bytes.
const ext4MaxTime = 1<<34 - 1<<31 - 1

// writeExt4 writes the tree as one tar into tar2ext4. The tar is clean: sorted,
// parents first, no whiteouts, every hard link after its file.
func (s *Store) writeExt4(ctx context.Context, f *os.File, t *tree, diffIDs []string) error {
	t.seal()
	e := &tarEmitter{t: t, first: map[uint32]string{}}
	defer e.close()
	for _, d := range diffIDs {
		h, err := parseDiffID(d)
		if err != nil {
			return err
		}
		if err := e.open(s.layerDir(h)); err != nil {
			return err
		}
	}
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		buf := bufio.NewWriterSize(w, 256<<10)
		err := e.emit(ctx, tar.NewWriter(buf))
		if err == nil {
			err = buf.Flush()
		}
		w.CloseWithError(err)
		done <- err
	}()
	out := &holeWriter{f: f}
	err := tar2ext4.ConvertTarToExt4(bufio.NewReaderSize(r, 256<<10), out, tar2ext4.MaximumDiskSize(ext4MaxDisk))
	r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	if emitErr := <-done; emitErr != nil && !errors.Is(emitErr, io.ErrClosedPipe) {
		return emitErr
	}
	if err != nil {
		return fmt.Errorf("convert to ext4: %w", err)
	}
	if err := out.finish(); err != nil {
		return err
	}
	if err := padInodeBitmaps(f); err != nil {
		return fmt.Errorf("convert to ext4: %w", err)
	}
	return nil
}

// padInodeBitmaps sets the bits after the last inode of each group, as the
// format wants and tar2ext4 leaves out; e2fsck calls a disk without them
// damaged. The disk has no checksums to update.
func padInodeBitmaps(f *os.File) error {
	le := binary.LittleEndian
	super := make([]byte, 1024)
	if _, err := f.ReadAt(super, 1024); err != nil {
		return fmt.Errorf("read superblock: %w", err)
	}
	inodes := int64(le.Uint32(super[0x28:]))
	groups := (int64(le.Uint32(super[0x04:])) + ext4GroupBlocks - 1) / ext4GroupBlocks
	if le.Uint16(super[0x38:]) != 0xef53 || inodes > ext4GroupBlocks {
		return errors.New("unexpected superblock")
	}
	desc := make([]byte, ext4DescSize)
	bitmap := make([]byte, blockSize)
	for g := range groups {
		if _, err := f.ReadAt(desc, blockSize+g*ext4DescSize); err != nil {
			return fmt.Errorf("read group descriptor: %w", err)
		}
		at := int64(le.Uint32(desc[0x04:])) * blockSize
		if _, err := f.ReadAt(bitmap, at); err != nil {
			return fmt.Errorf("read inode bitmap: %w", err)
		}
		setBits(bitmap, inodes, ext4GroupBlocks)
		if _, err := f.WriteAt(bitmap, at); err != nil {
			return fmt.Errorf("write inode bitmap: %w", err)
		}
	}
	return nil
}

// ext4MaxDisk is the size up to which tar2ext4 keeps room for descriptors; the
// disk itself is as large as its contents.
const ext4MaxDisk = 128 << 30

// tarEmitter writes a sealed tree as a tar.
type tarEmitter struct {
	t     *tree
	small []*runReader // of tree layer i+1
	data  []*runReader
	files []*os.File
	first map[uint32]string // inode with several names -> the first of them
}

func (e *tarEmitter) open(dir string) error {
	for _, o := range []struct {
		name string
		to   *[]*runReader
	}{{smallFile, &e.small}, {dataFile, &e.data}} {
		f, err := os.Open(filepath.Join(dir, o.name))
		if err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
		e.files = append(e.files, f)
		*o.to = append(*o.to, newRunReader(f))
	}
	return nil
}

func (e *tarEmitter) close() {
	for _, f := range e.files {
		f.Close()
	}
}

func (e *tarEmitter) emit(ctx context.Context, w *tar.Writer) error {
	if err := e.directory(ctx, w, 0, "./"); err != nil {
		return err
	}
	return w.Close()
}

// directory writes a directory and what is below it. The depth of the tree is
// bounded by Limits.Depth.
func (e *tarEmitter) directory(ctx context.Context, w *tar.Writer, id uint32, name string) error {
	if err := e.file(w, e.t.nodes[id].inode, name); err != nil {
		return err
	}
	for c := e.t.nodes[id].child; c != 0; c = e.t.nodes[c].next {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := &e.t.nodes[c]
		var err error
		if e.t.inodes[n.inode].kind == kindDir {
			err = e.directory(ctx, w, c, name+n.name+"/")
		} else {
			err = e.file(w, n.inode, name+n.name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *tarEmitter) file(w *tar.Writer, i uint32, name string) error {
	in := &e.t.inodes[i]
	if first, ok := e.first[i]; ok {
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: first, Format: tar.FormatPAX})
	}
	if in.nlink > 1 && in.kind != kindDir {
		e.first[i] = name
	}
	hdr := e.header(in, name)
	if err := w.WriteHeader(hdr); err != nil {
		return fmt.Errorf("write %.300q: %w", name, err)
	}
	r := e.small
	switch in.place {
	case placeNone:
		return nil
	case placeData:
		r = e.data
	}
	from := r[in.layer-1]
	if err := from.seek(in.offset); err != nil {
		return err
	}
	if _, err := io.CopyN(w, from, in.size); err != nil {
		return fmt.Errorf("write %.300q: %w", name, noEOF(err))
	}
	return nil
}

func (e *tarEmitter) header(in *inode, name string) *tar.Header {
	sec, nsec := in.sec, int64(in.nsec)
	if sec > ext4MaxTime {
		sec, nsec = ext4MaxTime, 0
	}
	mtime := time.Unix(sec, nsec)
	hdr := &tar.Header{
		Name: name, Mode: int64(in.mode), Uid: int(in.uid), Gid: int(in.gid), Size: in.size, Linkname: in.text,
		ModTime: mtime, AccessTime: mtime, ChangeTime: mtime, Format: tar.FormatPAX, PAXRecords: map[string]string{},
		Typeflag: [kindEnd]byte{
			kindDir: tar.TypeDir, kindFile: tar.TypeReg, kindSymlink: tar.TypeSymlink,
			kindChar: tar.TypeChar, kindBlock: tar.TypeBlock, kindFifo: tar.TypeFifo,
		}[in.kind],
	}
	if in.kind == kindChar || in.kind == kindBlock {
		hdr.Devmajor, hdr.Devminor = int64(in.dev>>8&0xfff), int64(in.dev&0xff|in.dev>>12&^0xff)
	}
	for rest := in.xattrs; rest != ""; {
		name, value, r, err := nextXattr(rest)
		if err != nil {
			break // checked when the index was read
		}
		if isACL(name) {
			value = ext4ACL(value)
		}
		hdr.PAXRecords[paxXattr+name], rest = value, r
	}
	return hdr
}

// ext4ACL returns a POSIX ACL as ext4 has it on disk (fs/ext4/acl.h): version
// 1, and an id only where the tag needs one. tar2ext4 stores values as given.
func ext4ACL(v string) string {
	const user, group = 0x02, 0x08
	b := []byte{1, 0, 0, 0}
	for v = v[aclHeader:]; len(v) >= aclEntry; v = v[aclEntry:] {
		b = append(b, v[:4]...)
		if v[0] == user || v[0] == group {
			b = append(b, v[4:aclEntry]...)
		}
	}
	return string(b)
}
