package guest

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// guestDevices are the device nodes below dir that a container does not have
// anyway. The agent's own channel is among them: it opens once, and is taken.
func guestDevices(dir string) ([]specs.LinuxDevice, error) {
	var out []specs.LinuxDevice
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, dir)
		if d.IsDir() && slices.Contains([]string{"/pts", "/shm", "/mqueue"}, name) {
			return fs.SkipDir
		}
		var st unix.Stat_t
		if d.Type()&fs.ModeDevice == 0 || slices.Contains([]string{"/console", "/ptmx"}, name) {
			return nil
		}
		if err := unix.Lstat(path, &st); err != nil {
			return &os.PathError{Op: "stat", Path: path, Err: err}
		}
		out = append(out, linuxDevice("/dev"+name, st))
		return nil
	})
	return out, err
}

func linuxDevice(path string, st unix.Stat_t) specs.LinuxDevice {
	d := specs.LinuxDevice{Path: path, Type: "c", Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev))}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		d.Type = "b"
	}
	mode := os.FileMode(st.Mode & 0o777)
	d.FileMode, d.UID, d.GID = &mode, &st.Uid, &st.Gid
	return d
}
