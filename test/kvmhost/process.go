package kvmhost

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// process is a running QEMU. The kernel kills it when the thread that forked it
// ends: that thread is locked to the goroutine that reaps it.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has been reaped
}

func spawn(binary string, args []string, output *tail, files []*os.File) (*process, error) {
	p := &process{cmd: exec.Command(binary, args...), done: make(chan struct{})}
	p.cmd.Dir = "/"
	p.cmd.Stdout, p.cmd.Stderr = output, output
	p.cmd.ExtraFiles = files
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.cmd.Wait() // the outcome is in ProcessState
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	return p, nil
}

// kill ends QEMU and waits until it is gone. Idempotent.
func (p *process) kill() {
	p.cmd.Process.Kill() // an error means that it has ended
	<-p.done
}

// maxOutput is how much of the end of the console is kept.
const maxOutput = 64 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if extra := len(t.buf) - maxOutput; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(p), nil
}

// String leaves out what QEMU always says about the CPU it has to emulate.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for line := range strings.Lines(string(t.buf)) {
		if !strings.Contains(line, "TCG doesn't support requested feature") {
			b.WriteString(line)
		}
	}
	return b.String()
}
