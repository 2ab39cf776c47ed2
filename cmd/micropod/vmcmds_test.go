package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/pkg/agent"
)

// waitLimit ends a script whose event never comes; VMs are emulated, slowly.
const waitLimit = 5 * time.Minute

func vmCommands() map[string]scriptCommand {
	disks := &scriptDisks{all: make(map[string]*agent.Disk)}
	return map[string]scriptCommand{
		"opendisk": disks.open,
		"enddisk":  disks.end,
		"waitfor":  waitFor,
		"noleaks":  noLeaks,
		"expect":   expect,
		"journald": startJournald,
	}
}

// waitFor runs a program again and again until its stdout matches:
// waitfor REGEXP PROGRAM [ARG...]
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: waitfor REGEXP PROGRAM [ARG...]")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	var out []byte
	ok := eventually(waitLimit, func() bool {
		cmd := exec.Command(args[1], args[2:]...)
		cmd.Dir, cmd.Env = ts.MkAbs("."), environOf(ts)
		cmd.Path, _ = lookPath(ts, args[1])
		out, _ = cmd.Output()
		return re.Match(out)
	})
	if !ok {
		ts.Fatalf("%q never came; the last output was:\n%s", args[0], out)
	}
}

// environOf is what the programs of a script see that matters to them.
func environOf(ts *testscript.TestScript) []string {
	env := os.Environ()
	for _, name := range []string{"PATH", "HOME", "MICROPOD_ROOT", "DOCKER_CONFIG", "TERM"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

func lookPath(ts *testscript.TestScript, program string) (string, error) {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", program, exec.ErrNotFound)
}

// noLeaks demands that nothing of a container is left in the root, no process,
// socket, lock or file: noleaks. With -stopped, that the containers which exist
// have only their files.
func noLeaks(ts *testscript.TestScript, neg bool, args []string) {
	stopped := len(args) == 1 && args[0] == "-stopped"
	if neg || len(args) > 0 && !stopped {
		ts.Fatalf("usage: noleaks [-stopped]")
	}
	root := ts.Getenv("MICROPOD_ROOT")
	var left []string
	if !eventually(leftLimit, func() bool {
		left = append(processesOf(root), filesOf(ts, root, stopped)...)
		return len(left) == 0
	}) {
		ts.Fatalf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

// processesOf lists the processes whose command line holds a path.
func processesOf(path string) []string {
	var left []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid := filepath.Base(dir)
		if line := commandLine(pid); pid != strconv.Itoa(os.Getpid()) && strings.Contains(line, path) {
			left = append(left, "process "+pid+": "+line)
		}
	}
	return left
}

func filesOf(ts *testscript.TestScript, root string, stopped bool) []string {
	locked := lockedInodes(ts)
	var left []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return nil // gone meanwhile
		}
		name := strings.TrimPrefix(path, root+"/")
		st := info.Sys().(*syscall.Stat_t)
		switch {
		case d.Type()&fs.ModeSocket != 0:
			left = append(left, "socket "+name)
		case locked[st.Ino] && st.Nlink == 1: // with more names it is other scripts' too, see newRoot
			left = append(left, "lock on "+name)
		case !stopped && strings.HasPrefix(name, "vms/"):
			left = append(left, "file "+name)
		case !d.IsDir() && strings.Contains(strings.ToLower(name), "tmp"):
			left = append(left, "temporary file "+name)
		}
		return nil
	})
	ts.Check(err)
	return left
}

// lockedInodes are those of /proc/locks. An inode of another file system can
// have the same number, but none of the root's few is likely to.
func lockedInodes(ts *testscript.TestScript) map[uint64]bool {
	b, err := os.ReadFile("/proc/locks")
	ts.Check(err)
	inodes := map[uint64]bool{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" && f[1] != "OFDLCK" && f[1] != "POSIX" {
			continue
		}
		place := strings.Split(f[5], ":")
		if n, err := strconv.ParseUint(place[len(place)-1], 10, 64); err == nil {
			inodes[n] = true
		}
	}
	return inodes
}

// expect runs a program on a terminal, takes the steps of a file, and demands an
// exit code: expect STEPS CODE PROGRAM [ARG...]. The steps:
//
//	see REGEXP     wait until the output since the last step matches
//	send TEXT      type TEXT, a Go string without its quotes
//	size COLS ROWS resize the terminal; at first, it has that size from the beginning
//	signal NUMBER  send a signal to the program
//
// The terminal's mode must be the same afterwards. Its output is in tty.out.
func expect(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: expect STEPS CODE PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	master, tty, err := pty.Open()
	ts.Check(err)
	defer master.Close()
	defer tty.Close()
	before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	ts.Check(err)
	cmd := exec.Command(args[2], args[3:]...)
	cmd.Path, err = lookPath(ts, args[2])
	ts.Check(err)
	cmd.Err = nil
	cmd.Dir, cmd.Env = ts.MkAbs("."), environOf(ts)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	steps := strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n")
	if strings.HasPrefix(steps[0], "size ") {
		ts.Check(step(steps[0], master, nil, nil))
		steps = steps[1:]
	}
	ts.Check(cmd.Start())
	screen := &screen{}
	go screen.read(master)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	fail := func(format string, v ...any) {
		cmd.Process.Kill()
		ts.Fatalf("%s; the terminal shows:\n%s", fmt.Sprintf(format, v...), screen.all())
	}
	for _, line := range steps {
		if err := step(strings.TrimSpace(line), master, cmd.Process, screen); err != nil {
			fail("%v", err)
		}
	}
	select {
	case err = <-done:
	case <-time.After(waitLimit):
		fail("the program did not end")
	}
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	}
	if got != want {
		fail("exit code %d, want %d", got, want)
	}
	after, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	ts.Check(err)
	if *before != *after {
		fail("the terminal's mode was not restored")
	}
	ts.Check(os.WriteFile(ts.MkAbs("tty.out"), screen.all(), 0o600))
}

func step(line string, master *os.File, p *os.Process, s *screen) error {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "", "#":
		return nil
	case "see":
		re, err := regexp.Compile("(?m)" + rest)
		if err != nil {
			return err
		}
		if !eventually(waitLimit, func() bool { return s.find(re) }) {
			return fmt.Errorf("%q was never seen", rest)
		}
		return nil
	case "send":
		text, err := strconv.Unquote(`"` + rest + `"`)
		if err != nil {
			return fmt.Errorf("text %s: %w", rest, err)
		}
		_, err = io.WriteString(master, text)
		return err
	case "size":
		var w pty.Winsize
		if _, err := fmt.Sscan(rest, &w.Cols, &w.Rows); err != nil {
			return err
		}
		return pty.Setsize(master, &w)
	case "signal":
		n, err := strconv.Atoi(rest)
		if err != nil {
			return err
		}
		return p.Signal(syscall.Signal(n))
	}
	return fmt.Errorf("unknown step %q", line)
}

// screen collects what a terminal shows.
type screen struct {
	mu   sync.Mutex
	text []byte
	seen int
}

func (s *screen) read(from io.Reader) {
	r := bufio.NewReader(from)
	for {
		b, err := r.ReadByte()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.text = append(s.text, b)
		s.mu.Unlock()
	}
}

func (s *screen) find(re *regexp.Regexp) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := re.FindIndex(s.text[s.seen:])
	if at == nil {
		return false
	}
	s.seen += at[1]
	return true
}

func (s *screen) all() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.text)
}
