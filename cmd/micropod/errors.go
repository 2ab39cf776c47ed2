package main

import (
	"errors"
	"fmt"
	"syscall"
)

// Exit codes, as docker's.
const (
	exitFailure = 1   // a verb failed
	exitOurs    = 125 // MicroPod itself failed, or the command line is wrong
	exitPipe    = 128 + int(syscall.SIGPIPE)
)

// exitError ends the program with code. A nil err prints nothing: everything
// has been said, or the container's own exit code is the message.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageError is a wrong command line; command is what `--help` is added to.
type usageError struct {
	command string
	code    int
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// ours marks err as a failure of MicroPod, not of the container: exit code 125.
func ours(err error) error {
	if err == nil {
		return nil
	}
	var exit *exitError
	var usage *usageError
	if errors.As(err, &exit) || errors.As(err, &usage) {
		return err
	}
	return &exitError{code: exitOurs, err: err}
}

// silent reports whether err only carries an exit code.
func silent(err error) bool {
	var exit *exitError
	return errors.As(err, &exit) && exit.err == nil
}

// report prints err the way docker does and returns the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	if errors.Is(err, syscall.EPIPE) {
		return exitPipe
	}
	var interrupted *interruptedError
	if errors.As(err, &interrupted) {
		return 128 + int(interrupted.signal)
	}
	var usage *usageError
	if errors.As(err, &usage) {
		a.printError(usage.err)
		fmt.Fprintf(a.err, "See '%s --help'.\n", usage.command)
		return usage.code
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			a.printError(exit.err)
		}
		return exit.code
	}
	a.printError(err)
	return exitFailure
}
