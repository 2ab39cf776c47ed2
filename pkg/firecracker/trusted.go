package firecracker

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// checkTrusted returns an error when somebody else than root could change what
// path leads to. The jailer believes in every path it is given
// (CVE-2026-1386). path has no symbolic links.
func checkTrusted(path string) error {
	for dir := path; ; dir = filepath.Dir(dir) {
		info, err := os.Lstat(dir)
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		switch {
		case !ok || info.Mode().Type() == fs.ModeSymlink:
			return fmt.Errorf("%s is in the way: it is a symbolic link", dir)
		case st.Uid != 0:
			return fmt.Errorf("%s belongs to user %d, who could change the jail: run with a --root and programs of root", dir, st.Uid)
		case info.Mode().Perm()&0o022 != 0 && (dir == path || info.Mode()&fs.ModeSticky == 0):
			return fmt.Errorf("others can write %s (mode %04o), and so change the jail: chmod go-w %s", dir, info.Mode().Perm(), dir)
		}
		if dir == "/" {
			return nil
		}
	}
}

// isHidden reports that a directory of root's above path lets nobody else pass.
func isHidden(path string) (bool, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false, err
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return false, err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if ok && st.Uid == 0 && info.Mode().Perm()&0o077 == 0 {
			return true, nil
		}
		if dir == "/" {
			return false, nil
		}
	}
}
