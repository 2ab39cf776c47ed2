// Package rootfs turns the layers of an OCI image into disks a microVM mounts.
//
// It is the only place that reads layer tars. It is not an extractor: no file
// of a layer is ever created on the host, so a hostile layer has no path to
// traverse, no link to plant and no device to make, and no root is needed. It
// knows no registry, no reference and no container; its unit is the layer,
// named by its diffID (the digest of the uncompressed tar).
//
// Lifecycle. A layer is added once ([Store.AddLayer]): its file contents go
// into a data blob, its entries into an index, and all other bytes of its tar
// into a compressed frame, so that the exact tar can be given back
// ([Store.LayerTar]). Disks are built from the indexes when first asked for
// ([Store.EnsureImage]) and are a pure function of the diffIDs. Everything is
// built in a locked temporary directory, synced and renamed, so that an object
// exists whole or not at all; what a killed process leaves behind is told by
// its released lock and swept by the next writer. [Store.Prune] removes what
// nobody keeps.
//
// Layout below the directory of the store:
//
//	layers/<hex>/index   entries of the tar, in order (see index.go)
//	layers/<hex>/data    file contents in 4 KiB blocks; an EROFS device
//	layers/<hex>/small   contents of small files, packed
//	layers/<hex>/frame   zstd: tar bytes that are not file contents
//	images/<key>/        info.json and the disk of one image in one format
//	locks/, tmp/         flocks; directories of running writers
package rootfs

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// Limits bound what one layer, or one image, may cost the host. A zero field
// means its default.
type Limits struct {
	Entries   int   // tar entries in a layer, and files in an image; default 1,000,000
	TarSize   int64 // bytes of a layer's tar; default 64 GiB
	Expanded  int64 // bytes of file contents of a layer, holes included; default 64 GiB
	IndexSize int64 // bytes of names, link targets and xattrs of a layer; default 256 MiB
	Path      int   // bytes in a path; default 4095 (PATH_MAX without the NUL)
	Depth     int   // directories above a file; default 1024
	Xattrs    int   // bytes of xattr names and values of a file; default 64 KiB
	Layers    int   // layers of an image; default 256
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.Entries, 1_000_000)
	setDefault(&l.TarSize, 64<<30)
	setDefault(&l.Expanded, 64<<30)
	setDefault(&l.IndexSize, 256<<20)
	setDefault(&l.Path, 4095)
	setDefault(&l.Depth, 1024)
	setDefault(&l.Xattrs, 64<<10)
	setDefault(&l.Layers, 256)
	return l
}

func setDefault[T int | int64](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

var (
	// ErrLimit is wrapped by errors about a layer that exceeds [Limits].
	ErrLimit = errors.New("limit exceeded")
	// ErrLayer is wrapped by errors about a layer that breaks the rules of
	// tar or of the OCI image specification.
	ErrLayer = errors.New("invalid layer")
	// ErrDigest is wrapped when a tar does not hash to its diffID.
	ErrDigest = errors.New("digest mismatch")
	// ErrCorrupt is wrapped when a file of the store is damaged. Removing the
	// layer and adding it again repairs it.
	ErrCorrupt = errors.New("damaged layer store")
)

// Options configure a [Store].
type Options struct {
	Limits Limits
	Log    *slog.Logger // warnings about dropped xattrs and the like; nil discards
}

// Store keeps layers and the disks built from them in one directory. Its
// methods are safe for concurrent use, by goroutines and by processes.
type Store struct {
	dir    string
	limits Limits
	log    *slog.Logger
	sync   bool // false only in fuzz tests, where fsync is most of the time
}

// Open returns the store in dir, which is made with mode 0700 when missing.
func Open(dir string, o Options) (*Store, error) {
	s := &Store{dir: dir, limits: o.Limits.withDefaults(), log: o.Log, sync: true}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, sub := range []string{layersDir, imagesDir, locksDir, tmpDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("open rootfs store: %w", err)
		}
	}
	return s, nil
}

// Names on disk.
const (
	layersDir = "layers"
	imagesDir = "images"
	locksDir  = "locks"
	tmpDir    = "tmp"

	indexFile = "index"
	dataFile  = "data"
	smallFile = "small"
	frameFile = "frame"
	infoFile  = "info.json"
)

// Layer describes a layer in the store.
type Layer struct {
	DiffID  string
	Size    int64 // bytes on disk
	TarSize int64 // bytes of its tar
	Entries int   // entries of its tar, whiteouts included
}

// parseDiffID returns the hex part of a sha256 diffID. It is a name on disk,
// so nothing but 64 lower-case hex digits passes.
func parseDiffID(diffID string) (string, error) {
	h, ok := strings.CutPrefix(diffID, "sha256:")
	if !ok || len(h) != 64 || strings.ToLower(h) != h {
		return "", fmt.Errorf("layer diffID %.80q: not a sha256 digest", diffID)
	}
	if _, err := hex.DecodeString(h); err != nil {
		return "", fmt.Errorf("layer diffID %.80q: not a sha256 digest", diffID)
	}
	return h, nil
}

func (s *Store) layerDir(hex string) string { return filepath.Join(s.dir, layersDir, hex) }

// HasLayer reports whether the layer is in the store, complete.
func (s *Store) HasLayer(diffID string) bool {
	h, err := parseDiffID(diffID)
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(s.layerDir(h), indexFile))
	return err == nil
}

// Layer returns what is known of a layer; an error that wraps
// [fs.ErrNotExist] when it is not in the store.
func (s *Store) Layer(diffID string) (Layer, error) {
	h, err := parseDiffID(diffID)
	if err != nil {
		return Layer{}, err
	}
	foot, err := readFooter(filepath.Join(s.layerDir(h), indexFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Layer{}, fmt.Errorf("layer %s: %w", diffID, fs.ErrNotExist)
	} else if err != nil {
		return Layer{}, err
	}
	size, err := diskUsage(s.layerDir(h))
	if err != nil {
		return Layer{}, err
	}
	return Layer{DiffID: diffID, Size: size, TarSize: foot.tarSize, Entries: foot.entries}, nil
}
