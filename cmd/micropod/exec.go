package main

import (
	"context"
	"errors"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

// errDetached is docker's answer to the detach keys of exec and attach.
var errDetached = errors.New("read escape sequence")

type execFlags struct {
	env, envFiles            []string
	user, workdir            string
	detachKeys               string
	interactive, tty, detach bool
	privileged               bool
}

func newExecCommand(a *app) *cobra.Command {
	var flags execFlags
	c := newVerb("exec [OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container", arguments(2, -1), nil)
	f := c.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&flags.detach, "detach", "d", false, "Detached mode: run command in the background")
	f.StringVar(&flags.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	f.VarP(newChecked(&flags.env, "list", checkEnv), "env", "e", "Set environment variables")
	f.Var(newChecked(&flags.envFiles, "list", unchecked), "env-file", "Read in a file of environment variables")
	f.BoolVarP(&flags.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	f.BoolVar(&flags.privileged, "privileged", false, "Give extended privileges to the command")
	f.BoolVarP(&flags.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	f.StringVarP(&flags.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	f.StringVarP(&flags.workdir, "workdir", "w", "", "Working directory inside the container")
	c.ValidArgsFunction = a.completeContainers(manager.StateRunning)
	c.RunE = func(c *cobra.Command, args []string) error {
		o, err := flags.options(args[1:])
		if err != nil {
			return usage(c, err)
		}
		return a.exec(c.Context(), args[0], &flags, o)
	}
	return c
}

func (e *execFlags) options(command []string) (manager.ExecOptions, error) {
	env, err := readEnv(e.envFiles, e.env)
	return manager.ExecOptions{
		Command: command, Env: env, User: e.user, Workdir: e.workdir, TTY: e.tty, Privileged: e.privileged,
	}, err
}

func (a *app) exec(ctx context.Context, ref string, flags *execFlags, o manager.ExecOptions) error {
	keys, err := parseDetachKeys(flags.detachKeys)
	if err != nil {
		return err
	}
	m, err := a.manager()
	if err != nil {
		return err
	}
	if flags.detach {
		_, err := m.Exec(ctx, ref, o, nil)
		return execFailed(err)
	}
	// Before the terminal is asked for: a container that is not there is the better story.
	if _, err := m.Inspect(ctx, ref); err != nil {
		return err
	}
	if flags.interactive && flags.tty && !isTerminal(a.in) {
		return &exitError{code: exitFailure, err: errNotTTY}
	}
	attach := attachOptions{stdin: flags.interactive, stdout: true, stderr: true, tty: flags.tty, detachKeys: keys}
	return a.attach(ctx, attach, func(ctx context.Context, s *manager.Streams) (waiter, error) {
		execution, err := m.Exec(ctx, ref, o, s)
		if err != nil {
			return nil, execFailed(err)
		}
		return escapable{execution}, nil
	})
}

// execFailed gives err the exit code that docker has for it: 127 for a command
// or a working directory that is not there, 126 for whatever else the guest
// refuses, 1 for what is not about the command.
func execFailed(err error) error {
	var refused *manager.ExecError
	if errors.As(err, &refused) {
		return &exitError{code: refused.ExitCode, err: err}
	}
	return err
}

// escapable is a waiter to which leaving by the detach keys is an error, as it
// is to docker's exec and attach.
type escapable struct{ waiter }

func (e escapable) Wait() (manager.Result, error) {
	r, err := e.waiter.Wait()
	if err == nil && r.Detached {
		err = errDetached
	}
	return r, err
}
