package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// copyTo copies all that is measured with. The copy of the kernel's directory
// becomes micropod's root.
func (j kvmJob) copyTo(dir string) error {
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	copies := [][2]string{{j.Kernel, filepath.Join(dir, "root")}, {j.Images, filepath.Join(dir, "images")}}
	for _, p := range j.Programs {
		copies = append(copies, [2]string{p, filepath.Join(bin, filepath.Base(p))})
	}
	for _, c := range copies {
		if out, err := exec.Command("cp", "-RH", c[0], c[1]).CombinedOutput(); err != nil {
			return fmt.Errorf("copy %s: %w: %s", c[0], err, out)
		}
	}
	return nil
}

// enterMemory makes the emulated machine's memory the root, with the copies and
// nothing else in it. All other files are on the machine outside: while somebody
// waits for one of those, nothing counts instructions, and the clock jumps.
func enterMemory(j kvmJob) error {
	const dir = "/run/root"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("root", dir, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	if err := j.copyTo(dir); err != nil {
		return err
	}
	for _, name := range []string{"dev", "proc", "sys"} {
		target := filepath.Join(dir, name)
		if err := os.Mkdir(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("/"+name, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", name, err)
		}
	}
	for _, name := range []string{"etc", "run", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	if err := unix.Chroot(dir); err != nil {
		return err
	}
	return os.Chdir("/")
}
