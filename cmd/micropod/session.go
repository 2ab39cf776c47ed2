package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/micropod/micropod/pkg/manager"
)

// attachOptions say how this terminal and a container are joined.
type attachOptions struct {
	stdin, stdout, stderr bool
	tty                   bool // the container has a terminal
	sigProxy              bool
	detachKeys            []byte
}

// session is one container in the foreground: its streams, the terminal's mode,
// and the signals of this process, which belong to the container while it runs.
type session struct {
	a       *app
	o       attachOptions
	term    *terminal
	caught  chan os.Signal
	resize  chan manager.Size
	forward chan int
	// leave ends the session, and with it the program, while the container runs on.
	leave   chan int
	running atomic.Bool
	// nohup: whoever started this program wants it to outlive the terminal.
	nohup  bool
	cancel context.CancelCauseFunc
}

// waiter is a *manager.Attachment.
type waiter interface {
	// Wait returns when the container has ended or the user detached.
	Wait() (manager.Result, error)
}

// startFunc starts a container and joins it to the streams.
type startFunc func(context.Context, *manager.Streams) (waiter, error)

// forcedExitAfter is docker's number of SIGINTs and SIGTERMs after which the
// command ends although its container does not.
const forcedExitAfter = 3

// attach starts a container with start and stays until it has ended or the user
// left. The error carries the exit code of the container.
func (a *app) attach(ctx context.Context, o attachOptions, start startFunc) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &session{
		a: a, o: o, cancel: cancel,
		caught: make(chan os.Signal, 128), forward: make(chan int, 128),
		resize: make(chan manager.Size, 1), leave: make(chan int, 1),
		nohup: signal.Ignored(syscall.SIGHUP),
	}
	signal.Notify(s.caught)
	defer signal.Stop(s.caught)
	a.interrupts.stop()

	if o.tty && o.stdin && isTerminal(a.in) {
		t, err := makeRaw(a.in)
		if err != nil {
			return err
		}
		s.term = t
		defer t.restore()
	}
	if o.tty {
		s.sendSize()
	}
	go s.handleSignals()

	done := make(chan error, 1)
	go func() {
		defer s.restoreOnPanic()
		done <- s.run(ctx, start)
	}()
	select {
	case err := <-done:
		if errors.Is(err, context.Canceled) && interruptCode(ctx) != 0 {
			return context.Cause(ctx)
		}
		return err
	case code := <-s.leave:
		return &exitError{code: code}
	}
}

func (s *session) run(ctx context.Context, start startFunc) error {
	attachment, err := start(ctx, s.streams())
	if err != nil {
		return err
	}
	s.running.Store(true)
	s.term.passKeys()
	result, err := attachment.Wait()
	if err != nil && result.ExitCode != 0 {
		return &exitError{code: result.ExitCode, err: err}
	}
	if err != nil {
		return err
	}
	if result.Detached || result.ExitCode == 0 {
		return nil
	}
	return &exitError{code: result.ExitCode}
}

func (s *session) streams() *manager.Streams {
	streams := &manager.Streams{Resize: s.resize, Signals: s.forward, DetachKeys: s.o.detachKeys}
	if s.o.stdin {
		streams.In = s.a.in
	}
	if s.o.stdout {
		streams.Out = s.output(s.a.out)
	}
	if s.o.stderr {
		streams.Err = s.output(s.a.err)
	}
	return streams
}

func (s *session) restoreOnPanic() {
	if p := recover(); p != nil {
		s.term.restore()
		panic(p)
	}
}

// handleSignals gives this process's signals to the container. Before the
// container runs, those that ask for an end cancel its start.
func (s *session) handleSignals() {
	defer s.restoreOnPanic()
	asked := 0
	for caught := range s.caught {
		sig, ok := caught.(syscall.Signal)
		if !ok {
			continue
		}
		switch sig {
		case syscall.SIGWINCH:
			if s.o.tty {
				s.sendSize()
			}
			continue
		case syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGURG:
			// Ours: children, broken pipes, and the Go scheduler's preemption.
			continue
		case syscall.SIGINT, syscall.SIGTERM:
			asked++
		}
		if asked == forcedExitAfter {
			s.term.restore()
			fmt.Fprintf(s.a.err, "\nmicropod: got %d SIGTERM/SIGINTs, forcefully exiting\n", forcedExitAfter)
			s.end(exitFailure)
			return
		}
		s.pass(sig)
	}
}

func (s *session) pass(sig syscall.Signal) {
	switch {
	case sig == syscall.SIGHUP && s.nohup:
	case s.running.Load() && s.o.sigProxy:
		select {
		case s.forward <- int(sig):
		default: // 128 signals are waiting: one more says nothing new
		}
	case !endsProgram(sig):
	case s.running.Load():
		s.end(128 + int(sig))
	default:
		s.cancel(&interruptedError{signal: sig})
	}
}

// endsProgram reports whether sig asks a program in the foreground to end.
func endsProgram(sig syscall.Signal) bool {
	return sig == syscall.SIGINT || sig == syscall.SIGTERM || sig == syscall.SIGHUP || sig == syscall.SIGQUIT
}

func (s *session) end(code int) {
	select {
	case s.leave <- code:
	default:
	}
}

// sendSize offers the terminal's size; an older one that nobody took is dropped.
func (s *session) sendSize() {
	size, ok := terminalSize(s.a.out, s.a.in)
	if !ok {
		return
	}
	select {
	case <-s.resize:
	default:
	}
	select {
	case s.resize <- size:
	default:
	}
}

// output writes to f; when f's reader is gone the session ends, as a program's
// would, and the container goes on.
func (s *session) output(f *os.File) io.Writer { return &sessionWriter{s: s, f: f} }

type sessionWriter struct {
	s *session
	f *os.File
}

func (w *sessionWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		w.s.end(exitPipe)
	}
	return n, err
}
