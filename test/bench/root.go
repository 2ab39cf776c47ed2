package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// rooted is the benchmark with a root of micropod's.
type rooted struct {
	*bench
	root string
}

func (r *rooted) micropod(args ...string) (string, error) {
	return r.output(r.bin, append([]string{"--root", r.root}, args...)...)
}

// end removes all containers. A command that was killed half-way has left its VM
// running, so this is done after an interrupt too.
func (r *rooted) end() error {
	ids, err := exec.Command(r.bin, "--root", r.root, "list", "-aq", "--no-trunc").Output()
	if err != nil {
		return fmt.Errorf("list what is left: %w", err)
	}
	for id := range strings.FieldsSeq(string(ids)) {
		if out, err := exec.Command(r.bin, "--root", r.root, "rm", "-f", id).CombinedOutput(); err != nil {
			return fmt.Errorf("remove what is left: %w\n%s", err, out)
		}
	}
	_, err = adopted()
	return err
}

// adopt makes this process the parent of supervisors, which outlive the command
// that started them: what they cost comes to it.
func adopt() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// used is what ended processes have used.
type used struct {
	written int64 // bytes, see written
	cpu     time.Duration
}

// adopted waits for the supervisors that have become children of this process, but for
// those that stay, and returns what they and their VMMs have used.
func adopted(stay ...int) (sum used, err error) {
	for {
		pids, err := children(stay)
		if err != nil || len(pids) == 0 {
			return sum, err
		}
		for _, pid := range pids { // a guard is one when its supervisor has ended
			var r syscall.Rusage
			_, err := syscall.Wait4(pid, nil, 0, &r)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if err != nil {
				return sum, fmt.Errorf("wait for supervisors: %w", err)
			}
			sum.written += written(&r)
			sum.cpu += time.Duration(r.Utime.Nano() + r.Stime.Nano())
		}
	}
}

// children are those of this process, but for some.
func children(but []int) (pids []int, err error) {
	all, err := processes()
	for pid, p := range all {
		if p.parent == os.Getpid() && !slices.Contains(but, pid) {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// written is how many bytes a process, and those that it waited for, made dirty
// in the pages of files on disks.
func written(r *syscall.Rusage) int64 { return r.Oublock * 512 }
