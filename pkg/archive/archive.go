// Package archive turns files into a tar stream and a tar stream into files. The
// host uses it at its end of a copy, the guest's agent at the other.
//
// It is not the reader of image layers, which never become files of the host
// (pkg/rootfs), and it knows no container.
//
// A stream is hostile. Whatever it holds, Extract changes nothing outside of the
// directory that it was given: every name is looked up below an os.Root, and the
// last element of one is never followed. Writer in turn opens nothing by more
// than one element of a path, so that a tree which changes meanwhile leads it
// nowhere else.
package archive

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrInvalid is wrapped by errors about a stream that Extract does not take.
var ErrInvalid = errors.New("invalid archive")

// maxName bounds a name in an archive, in bytes: longer than any path of a kernel.
const maxName = 4096

// xattrPrefix is what tar programs put before the name of an extended attribute.
const xattrPrefix = "SCHILY.xattr."

// maxXattr bounds a value: the kernel's own limit.
const maxXattr = 64 << 10

// keepsXattr says which attributes belong to a file's content, as docker has it.
func keepsXattr(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "user.")
}

// fileID tells files of one tree apart.
type fileID struct{ dev, ino uint64 }

func idOf(st *unix.Stat_t) fileID { return fileID{uint64(st.Dev), st.Ino} }

// clean brings a name of an archive into the form a/b/c, or "." for the top.
// A leading slash counts for nothing, as in every tar program; what climbs by
// ".." is refused, also where it would come back.
func clean(name string) (string, error) {
	if len(name) > maxName || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("%w: a name of %d bytes", ErrInvalid, len(name))
	}
	for e := range strings.SplitSeq(name, "/") {
		if e == ".." {
			return "", fmt.Errorf("%w: %q leads out of the directory", ErrInvalid, name)
		}
	}
	return path.Clean(strings.TrimLeft(name, "/")), nil
}

// renamed gives a name below from its place below to. A name that is not there
// is not of what was asked for.
func renamed(name, from, to string) (string, error) {
	if from == "" || from == "." {
		return path.Join(to, name), nil
	}
	rest, ok := strings.CutPrefix(name, from)
	if !ok || rest != "" && rest[0] != '/' {
		return "", fmt.Errorf("%w: %q is not part of %q", ErrInvalid, name, from)
	}
	return path.Clean(to + rest), nil
}

// Open opens the directory that the file at a path is in, for Writer.Add, which
// takes its name there: "." if the path can only be a directory's, whose link is
// followed then.
func Open(p string) (dir *os.File, name string, err error) {
	parent := path.Dir(p)
	if name = Base(p); name == "." || AssertsDir(p) {
		parent, name = p, "."
	}
	dir, err = os.OpenFile(parent, os.O_RDONLY|unix.O_DIRECTORY, 0)
	return dir, name, err
}
