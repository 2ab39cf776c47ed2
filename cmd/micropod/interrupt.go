package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// interruptedError is the cause of a context that a signal has cancelled.
type interruptedError struct{ signal syscall.Signal }

func (e *interruptedError) Error() string { return fmt.Sprintf("interrupted by %s", e.signal) }

// interrupts are the signals that end a command. A verb that forwards signals
// takes them over while its container runs.
type interrupts struct {
	signals chan os.Signal
	done    chan struct{}
	once    sync.Once
}

// notifyInterrupts cancels the returned context at the first SIGINT, SIGTERM or
// SIGHUP, unless a verb has taken the signals over. What whoever started this
// program has ignored, as nohup does, stays ignored.
func notifyInterrupts(parent context.Context) (context.Context, *interrupts) {
	ctx, cancel := context.WithCancelCause(parent)
	i := &interrupts{signals: make(chan os.Signal, 8), done: make(chan struct{})}
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(sig) {
			signal.Notify(i.signals, sig)
		}
	}
	go i.watch(cancel)
	return ctx, i
}

func (i *interrupts) watch(cancel context.CancelCauseFunc) {
	select {
	case s := <-i.signals:
		cancel(&interruptedError{signal: s.(syscall.Signal)})
		// From now on a second signal ends the program at once.
		i.stop()
	case <-i.done:
	}
}

// stop gives the signals back to their default action, or to whoever has
// registered for them meanwhile. Idempotent.
func (i *interrupts) stop() {
	i.once.Do(func() {
		signal.Stop(i.signals)
		close(i.done)
	})
}

// interruptCode is 128+n when ctx was cancelled by signal n, else 0.
func interruptCode(ctx context.Context) int {
	var interrupted *interruptedError
	if errors.As(context.Cause(ctx), &interrupted) {
		return 128 + int(interrupted.signal)
	}
	return 0
}
