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
