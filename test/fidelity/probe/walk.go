package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// walk tells of every file below the paths what an image can say of it. Mounts
// of the kernel and the probe itself are left out.
func walk(paths []string) facts {
	f, first := facts{}, map[uint64]string{}
	skip := []string{"/proc", "/sys", "/dev", "/probe"}
	for _, top := range paths {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				f["walk:"+path] = "error: " + reason(err)
				return nil
			}
			f.describe(path, first)
			if slices.Contains(skip, path) && d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		})
		if err != nil {
			f["walk:"+top] = "error: " + reason(err)
		}
	}
	return f
}

// describe tells of one file, in a fact for each thing that can be wrong alone.
// first knows the hard links by inode.
func (f facts) describe(path string, first map[uint64]string) {
	name := "walk:" + path
	var st unix.Stat_t
	f.set(name, func() (string, error) {
		if err := unix.Lstat(path, &st); err != nil {
			return "", err
		}
		text, err := node(path)
		if err != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return text, err
		}
		text += fmt.Sprintf(" links %d", st.Nlink)
		if st.Nlink > 1 {
			if first[st.Ino] == "" {
				first[st.Ino] = path
			}
			text += " same as " + first[st.Ino]
		}
		return text, nil
	})
	f[name+".time"] = fmt.Sprintf("%d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
	f.set(name+".xattrs", func() (string, error) { return xattrs(path) })
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		f.set(name+".content", func() (string, error) {
			sum, err := hash(path)
			return fmt.Sprintf("%d bytes, sha256 %s", st.Size, sum), err
		})
	}
}

func xattrs(path string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	names := strings.FieldsFunc(string(buf[:n]), func(c rune) bool { return c == 0 })
	slices.Sort(names)
	var text strings.Builder
	for _, name := range names {
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&text, "%s=%x ", name, buf[:n])
	}
	return text.String(), nil
}

func hash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}
