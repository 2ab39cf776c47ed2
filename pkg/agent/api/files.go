package api

import (
	"fmt"
	"math"
	"path"
	"strings"
	"time"
)

// MaxPath bounds a path in a container, in bytes: PATH_MAX of the kernel.
const MaxPath = 4096

// FileOp says what a connection of PurposeFiles does.
type FileOp string

// Operations on files. The guest answers each with a Reply, which holds a
// FileInfo if the operation has a path. Then come the bytes, in stdout frames
// from the guest or in stdin frames from the host, and at their end one more
// Reply: the guest's last word.
const (
	FileStat    FileOp = "stat"    // no bytes
	FileArchive FileOp = "archive" // a tar of the path, as docker's archive API has it
	FileExtract FileOp = "extract" // a tar from the host, an empty stdin frame ends it
	FileExport  FileOp = "export"  // a tar of the whole root file system, without mounts
	FileChanges FileOp = "changes" // what differs from the image: each a Change and a NUL byte
	FileLayer   FileOp = "layer"   // the same as a tar in the form of an image's layer
)

// FilesRequest opens a connection of PurposeFiles.
type FilesRequest struct {
	Op FileOp `json:"op"`
	// Container whose mounts are seen, by FileStat, FileArchive and FileExtract;
	// "" is the root file system itself, also where no container runs.
	Container string `json:"container,omitempty"`
	// Root is the container whose root file system that is, if MethodRoot has made
	// it; "" is the guest's first.
	Root string `json:"root,omitempty"`
	// Path in the container, absolute. Links in it never lead out. The last
	// element is followed if a slash or "/." comes after it, or by FileExtract.
	Path string `json:"path,omitempty"`
	// User is the owner of what FileExtract makes, in the form of
	// StartRequest.User; "" leaves it to the archive.
	User string `json:"user,omitempty"`
}

// FileInfo describes the file at a path of a container.
type FileInfo struct {
	Size  int64     `json:"size"`
	Mode  uint32    `json:"mode"` // as of stat(2)
	MTime time.Time `json:"mtime"`
	// LinkTarget of a symbolic link is an absolute path of the container.
	LinkTarget string `json:"linkTarget,omitempty"`
}

// Check reports whether what a guest says of a file is within its bounds.
func (s *FileInfo) Check() error {
	if s.Size < 0 || s.Mode > math.MaxUint16 {
		return fmt.Errorf("file of %d bytes, mode %o: %w", s.Size, s.Mode, ErrFrame)
	}
	if s.LinkTarget == "" {
		return nil
	}
	if err := checkPath(s.LinkTarget); err != nil {
		return fmt.Errorf("target of a link: %w", err)
	}
	return nil
}

func checkPath(p string) error {
	if len(p) > MaxPath || !strings.HasPrefix(p, "/") || strings.ContainsRune(p, 0) {
		return fmt.Errorf("path of %d bytes: %w", len(p), ErrFrame)
	}
	return nil
}

// Change is one entry of FileChanges, in the form in which it travels: 'A' for
// added, 'C' for changed, 'D' for deleted, and an absolute path.
type Change string

// Kind is 'A', 'C' or 'D'.
func (c Change) Kind() byte { return c[0] }

// Path in the container.
func (c Change) Path() string { return string(c[1:]) }

// Check reports whether what a guest sent is a Change.
func (c Change) Check() error {
	if len(c) < 2 || !strings.ContainsRune("ACD", rune(c[0])) {
		return fmt.Errorf("change of %d bytes: %w", len(c), ErrFrame)
	}
	if err := checkPath(c.Path()); err != nil {
		return err
	}
	if path.Clean(c.Path()) != c.Path() {
		return fmt.Errorf("change of a path that is not clean: %w", ErrFrame)
	}
	return nil
}
