package inside

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// outputDelay is how long the output of a command is still read after its end:
// a daemon that it left may hold the pipe for ever. On a busy machine it is late by seconds.
const outputDelay = 10 * time.Second

// Prepare is the process of a command, in a process group of its own, without
// its streams.
func Prepare(s Spec) (*exec.Cmd, error) {
	if len(s.Args) == 0 {
		return nil, errors.New("no command")
	}
	// Otherwise it is the program of which the error says that it is not there.
	if info, err := os.Stat(s.Dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("no directory %s", s.Dir)
	}
	path, err := lookPath(s)
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{Path: path, Args: s.Args, Env: s.Env, Dir: s.Dir, WaitDelay: outputDelay}
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if s.User != nil {
		cmd.SysProcAttr.Credential, err = credential(*s.User)
	}
	return cmd, err
}

// lookPath finds the program by the PATH of the command, not by our own.
func lookPath(s Spec) (string, error) {
	name := s.Args[0]
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(s.Dir, name)
		}
		return name, nil
	}
	for _, e := range s.Env {
		list, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(list) {
			path := filepath.Join(dir, name)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

func credential(u User) (*syscall.Credential, error) {
	var st unix.Stat_t
	if err := unix.Stat("/dev/kvm", &st); err != nil {
		return nil, fmt.Errorf("find the group of /dev/kvm: %w", err)
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: []uint32{st.Gid}}, nil
}

// Feed copies to a command's standard input in the background. Nobody waits for
// it: a command may end without reading, and the source need not end at all.
func Feed(cmd *exec.Cmd, from io.Reader) error {
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	go func() {
		io.Copy(pipe, from)
		pipe.Close()
	}()
	return nil
}

// Kill ends a command and its process group.
func Kill(cmd *exec.Cmd) {
	// A terminal's process leads a group too, that of its session.
	unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
}

// Code is what a shell would put into $? after a command.
func Code(cmd *exec.Cmd, err error) (int, error) {
	if cmd.ProcessState == nil {
		return 0, err
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}
