package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/micropod/micropod/pkg/manager"
	"golang.org/x/sys/unix"
)

// container stands for a started one: its streams, and its end.
type container struct {
	streams *manager.Streams
	ended   chan manager.Result
	err     error
}

func (c *container) Wait() (manager.Result, error) { return <-c.ended, c.err }

// newTestApp has the pty's other side as its terminal, or a pipe without tty.
func newTestApp(t *testing.T, in, out *os.File) *app {
	t.Helper()
	ctx, i := notifyInterrupts(t.Context())
	t.Cleanup(func() {
		if ctx.Err() != nil && t.Context().Err() == nil {
			t.Error("a signal of the session reached the command's context")
		}
		i.stop()
	})
	stderr, err := os.CreateTemp(t.TempDir(), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stderr.Close() })
	return &app{in: in, out: out, err: stderr, interrupts: i}
}

func openPTY(t *testing.T) (master, tty *os.File) {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close(); tty.Close() })
	return master, tty
}

func mode(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}

func signalSelf(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), sig); err != nil {
		t.Fatal(err)
	}
}

// started attaches in the background and returns the running container.
func started(t *testing.T, a *app, o attachOptions) (*container, <-chan error) {
	t.Helper()
	c := &container{ended: make(chan manager.Result, 1)}
	up, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- a.attach(t.Context(), o, func(_ context.Context, s *manager.Streams) (waiter, error) {
			c.streams = s
			close(up)
			return c, nil
		})
	}()
	<-up
	return c, done
}

// becomesRunning waits until the session has given the keys to the container.
func becomesRunning(t *testing.T, tty *os.File) {
	t.Helper()
	for mode(t, tty).Lflag&unix.ISIG != 0 {
		time.Sleep(time.Millisecond)
	}
}

func TestTerminalIsRestored(t *testing.T) {
	_, tty := openPTY(t)
	before := mode(t, tty)
	o := attachOptions{stdin: true, stdout: true, stderr: true, tty: true, sigProxy: true}
	endings := map[string]func(context.Context, *manager.Streams) (waiter, error){
		"error": func(context.Context, *manager.Streams) (waiter, error) { return nil, errors.New("no") },
		"end": func(context.Context, *manager.Streams) (waiter, error) {
			c := &container{ended: make(chan manager.Result, 1)}
			c.ended <- manager.Result{ExitCode: 3}
			return c, nil
		},
		"signal": func(ctx context.Context, _ *manager.Streams) (waiter, error) {
			signalSelf(t, syscall.SIGTERM)
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}
	for name, start := range endings {
		a := newTestApp(t, tty, tty)
		err := a.attach(t.Context(), o, func(ctx context.Context, s *manager.Streams) (waiter, error) {
			now := mode(t, tty)
			if now.Lflag&(unix.ECHO|unix.ICANON) != 0 || now.Lflag&unix.ISIG == 0 {
				t.Errorf("%s: mode during the start: %x", name, now.Lflag)
			}
			return start(ctx, s)
		})
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if mode(t, tty) != before {
			t.Errorf("%s: the terminal's mode was not restored", name)
		}
		if name == "signal" && a.report(err) != 128+int(syscall.SIGTERM) {
			t.Errorf("signal: error %v", err)
		}
		if name == "end" && a.report(err) != 3 {
			t.Errorf("end: error %v", err)
		}
	}
}

func TestSignalsGoToTheContainer(t *testing.T) {
	_, tty := openPTY(t)
	a := newTestApp(t, tty, tty)
	c, done := started(t, a, attachOptions{stdin: true, stdout: true, tty: true, sigProxy: true})
	becomesRunning(t, tty)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT} {
		signalSelf(t, sig)
		if got := <-c.streams.Signals; got != int(sig) {
			t.Errorf("the container got signal %d for %d", got, sig)
		}
	}
	c.ended <- manager.Result{}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestThirdInterruptLeaves(t *testing.T) {
	_, tty := openPTY(t)
	before := mode(t, tty)
	a := newTestApp(t, tty, tty)
	c, done := started(t, a, attachOptions{stdin: true, stdout: true, tty: true, sigProxy: true})
	becomesRunning(t, tty)
	for range 2 {
		signalSelf(t, syscall.SIGINT)
		<-c.streams.Signals
	}
	signalSelf(t, syscall.SIGINT)
	if code := a.report(<-done); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if mode(t, tty) != before {
		t.Error("the terminal's mode was not restored")
	}
	said, err := os.ReadFile(a.err.Name())
	if err != nil || !strings.Contains(string(said), "got 3 SIGTERM/SIGINTs, forcefully exiting") {
		t.Errorf("stderr %q, %v", said, err)
	}
}

func TestWithoutProxyInterruptLeaves(t *testing.T) {
	_, tty := openPTY(t)
	a := newTestApp(t, tty, tty)
	c, done := started(t, a, attachOptions{stdin: true, stdout: true, tty: true})
	becomesRunning(t, tty)
	signalSelf(t, syscall.SIGUSR1) // asks for nothing
	signalSelf(t, syscall.SIGINT)
	if code := a.report(<-done); code != 130 {
		t.Errorf("exit code %d", code)
	}
	select {
	case got := <-c.streams.Signals:
		t.Errorf("the container got signal %d", got)
	default:
	}
}

func TestResizeReachesTheContainer(t *testing.T) {
	master, tty := openPTY(t)
	if err := pty.Setsize(master, &pty.Winsize{Cols: 80, Rows: 24}); err != nil {
		t.Fatal(err)
	}
	a := newTestApp(t, tty, tty)
	c, done := started(t, a, attachOptions{stdin: true, stdout: true, tty: true, sigProxy: true})
	if got := <-c.streams.Resize; got != (manager.Size{Cols: 80, Rows: 24}) {
		t.Errorf("first size %v", got)
	}
	if err := pty.Setsize(master, &pty.Winsize{Cols: 132, Rows: 50}); err != nil {
		t.Fatal(err)
	}
	signalSelf(t, syscall.SIGWINCH)
	if got := <-c.streams.Resize; got != (manager.Size{Cols: 132, Rows: 50}) {
		t.Errorf("next size %v", got)
	}
	c.ended <- manager.Result{Detached: true, ExitCode: 9}
	if err := <-done; err != nil {
		t.Errorf("a detached session ended with %v", err)
	}
}

func TestReaderOfOutputGone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	in, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	a := newTestApp(t, in, w)
	c, done := started(t, a, attachOptions{stdout: true, sigProxy: true})
	r.Close()
	if _, err := io.WriteString(c.streams.Out, "y\n"); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write error %v", err)
	}
	if code := a.report(<-done); code != exitPipe {
		t.Errorf("exit code %d", code)
	}
	if c.streams.In != nil || c.streams.Err != nil {
		t.Error("a stream is attached that was not asked for")
	}
}
