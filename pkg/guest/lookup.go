package guest

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent/api"
)

// lookup finds the command as the current user, in the current directory and
// root: a word with a slash is a path, any other is looked up in path. The
// messages and codes are docker's.
func lookup(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return "", lookupError(name, err)
		}
		return name, nil
	}
	if name != "" {
		for dir := range strings.SplitSeq(path, ":") {
			if dir == "" {
				dir = "."
			}
			file := strings.TrimRight(dir, "/") + "/" + name
			if executable(file) == nil {
				return file, nil
			}
		}
	}
	return "", &api.Error{
		Code:    api.CodeNotFound,
		Message: fmt.Sprintf("%q: executable file not found in $PATH", api.Clean(name, api.MaxError/2)),
	}
}

// executable reports why a file cannot be executed by the current user.
func executable(file string) error {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	if st.Mode&0o111 == 0 {
		return unix.EACCES // CAP_DAC_OVERRIDE does not help execve either
	}
	return unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS)
}

func lookupError(name string, err error) error {
	e := &api.Error{Code: api.CodeNotExecutable, Message: fmt.Sprintf("exec: %q: %v", api.Clean(name, api.MaxError/2), err)}
	if errors.Is(err, unix.ENOENT) {
		e.Code = api.CodeNotFound
		e.Message = fmt.Sprintf("exec: %q: stat %s: %v", api.Clean(name, 1024), api.Clean(name, 1024), err)
	}
	return e
}
