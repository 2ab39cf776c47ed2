package archive

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Errors of a copy that cannot be, in docker's words.
var (
	ErrCopyDir      = errors.New("cannot copy directory")
	ErrDirNotExists = errors.New("no such directory")
)

// End is one end of a copy: a path as its user wrote it, made absolute but for
// what a slash or a dot at its end means, and what is there.
type End struct {
	Path          string
	Exists, IsDir bool
	// Rename is the name that the source's last element shall have in place of
	// its own, "" for its own: that of a link which was followed.
	Rename string
}

// Placement is where the stream of a copy is extracted, and how the name of its
// first entry is changed for that.
type Placement struct {
	Dir      string
	From, To string
}

// Place applies docker's rules for the ends of a copy:
//
//   - into a directory that exists, under the source's name; only its content if
//     the source's path ends in "/."
//   - over a file that exists, unless the source is a directory
//   - else under the destination's name, whose directory has to exist; a
//     destination with a slash at its end is no name of a file
func Place(src, dst End) (Placement, error) {
	from := Base(src.Path)
	name := from
	if src.Rename != "" {
		name = src.Rename
	}
	dir, base := split(dst.Path)
	switch {
	case dst.Exists && dst.IsDir:
		return Placement{dst.Path, from, name}, nil
	case dst.Exists && src.IsDir:
		return Placement{}, ErrCopyDir
	case !dst.Exists && !src.IsDir && AssertsDir(dst.Path):
		return Placement{}, ErrDirNotExists
	}
	return Placement{dir, from, base}, nil
}

// Base is the name that the archive of a path begins with: its last element, or
// "." for a root, and for a path that ends in "/.", of which only the content is
// meant.
func Base(p string) string {
	if p = path.Base(Keep(path.Clean(p), p)); p == "/" {
		return "."
	}
	return p
}

// split is path.Split of a path without the slash at its end; a "." at the end is
// an element, which names the directory before it.
func split(p string) (dir, base string) {
	clean := path.Clean(p)
	if endsInDot(p) {
		clean += "/."
	}
	return path.Dir(clean), path.Base(clean)
}

// AssertsDir reports whether a path can only be one of a directory.
func AssertsDir(p string) bool { return strings.HasSuffix(p, "/") || endsInDot(p) }

func endsInDot(p string) bool { return p == "." || strings.HasSuffix(p, "/.") }

// Keep gives the cleaned form of a path what its end meant.
func Keep(cleaned, original string) string {
	if !AssertsDir(cleaned) && endsInDot(original) {
		cleaned += "/."
	}
	if !strings.HasSuffix(cleaned, "/") && strings.HasSuffix(original, "/") {
		cleaned += "/"
	}
	return cleaned
}

// Follow is the path of a link's target in place of the link's path p: with what
// its end meant, and the name that the copy has to have.
func Follow(p, target string) (followed, rename string) {
	followed = Keep(target, p)
	if path.Base(p) != path.Base(followed) {
		rename = path.Base(p)
	}
	return followed, rename
}

// Source looks at the source of a copy on this machine. A link at its end is
// followed if follow is set, or by a slash behind it.
func Source(p string, follow bool) (End, error) {
	p, err := absolute(p)
	if err != nil {
		return End{}, err
	}
	e := End{Path: p, Exists: true}
	if follow {
		target, err := filepath.EvalSymlinks(p)
		if err != nil {
			return End{}, err
		}
		e.Path, e.Rename = Follow(p, target)
	} else if e.Path, e.Rename, err = inRealDir(p); err != nil {
		return End{}, err
	}
	st, err := os.Lstat(e.Path)
	if err != nil {
		return End{}, err
	}
	e.IsDir = st.IsDir()
	return e, nil
}

// inRealDir follows the links of all elements but the last.
func inRealDir(p string) (real, rename string, err error) {
	dir, base := filepath.Split(p)
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", "", err
	}
	real = strings.TrimSuffix(dir, "/") + "/" + base
	if strings.HasSuffix(p, "/") && filepath.Base(p) != filepath.Base(real) {
		rename = filepath.Base(p)
	}
	return real, rename, nil
}

func absolute(p string) (string, error) {
	abs, err := filepath.Abs(p)
	return Keep(abs, p), err
}

const maxFollowed = 10 // links of a destination, as many as docker follows

// Destination looks at the destination of a copy on this machine. A link at its
// end is followed, also to what does not exist yet; the directory that it is to
// be in has to exist.
func Destination(p string) (End, error) {
	p, err := absolute(p)
	if err != nil {
		return End{}, err
	}
	st, err := os.Lstat(p)
	for n := 0; err == nil && st.Mode().Type() == fs.ModeSymlink; n++ {
		if n > maxFollowed {
			return End{}, &fs.PathError{Op: "follow", Path: p, Err: unix.ELOOP}
		}
		if p, err = linked(p); err == nil {
			st, err = os.Lstat(p)
		}
	}
	if err == nil {
		return End{Path: p, Exists: true, IsDir: st.IsDir()}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return End{}, err
	}
	dir, _ := split(p)
	above, err := os.Stat(dir)
	if err == nil && !above.IsDir() {
		err = &fs.PathError{Op: "open", Path: dir, Err: unix.ENOTDIR}
	}
	return End{Path: p}, err
}

// linked is the path that the link p leads to.
func linked(p string) (string, error) {
	target, err := os.Readlink(p)
	if err == nil && !filepath.IsAbs(target) {
		dir, _ := split(p)
		target = filepath.Join(dir, target)
	}
	return target, err
}
