package qemu

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unicode"

	"github.com/micropod/micropod/pkg/vmm"
)

const (
	maxStderr = 8 << 10 // kept of QEMU's standard error: its end
	maxReason = 512     // of that, shown
)

// process is a running QEMU.
type process struct {
	cmd    *exec.Cmd
	stderr *tail
	done   chan struct{} // closed when QEMU has been reaped
}

// spawn runs QEMU in a session of its own with files as descriptors 3, 4, …;
// it inherits no other descriptor.
//
// The kernel kills QEMU when the thread that forked it ends. That thread is
// locked to the goroutine that also reaps, so it lives exactly as long as this
// process or QEMU does, whichever ends first.
func spawn(binary string, args []string, files []*os.File) (*process, error) {
	if err := vmm.CloseOnExec(); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("create pipe: %w", err)
	}
	p := &process{
		cmd:    exec.Command(binary, args...),
		stderr: newTail(r),
		done:   make(chan struct{}),
	}
	p.cmd.Dir = "/"
	p.cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	p.cmd.Stderr = w
	p.cmd.ExtraFiles = files
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}

	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := p.cmd.Start()
		w.Close()
		started <- err
		if err == nil {
			p.cmd.Wait() // the outcome is in ProcessState
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		p.stderr.finish()
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill ends QEMU at once and waits until it is gone. Idempotent.
func (p *process) kill() {
	p.cmd.Process.Kill() // an error means that it has ended
	<-p.done
	p.stderr.finish()
}

// tail keeps the end of what it reads.
type tail struct {
	from *os.File
	done chan struct{}

	mu  sync.Mutex
	buf []byte
}

func newTail(from *os.File) *tail {
	t := &tail{from: from, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		io.Copy(t, from)
	}()
	return t
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if extra := len(t.buf) - maxStderr; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(p), nil
}

// finish waits for the end of the input. Idempotent.
func (t *tail) finish() {
	<-t.done
	t.from.Close()
}

// String is the last lines on one line, without control characters.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.Join(strings.FieldsFunc(string(t.buf), func(r rune) bool { return r == '\n' }), "; ")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
	if len(text) > maxReason {
		text = "…" + strings.ToValidUTF8(text[len(text)-maxReason:], "")
	}
	return text
}
