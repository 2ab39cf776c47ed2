package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newStartCommand(a *app) *cobra.Command {
	var attach, interactive bool
	var keys string
	c := newVerb("start [OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers", arguments(1, -1), nil)
	f := c.Flags()
	f.BoolVarP(&attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	f.StringVar(&keys, "detach-keys", "", "Override the key sequence for detaching a container")
	f.BoolVarP(&interactive, "interactive", "i", false, "Attach container's STDIN")
	refuse(f, []dockerFlag{valued("checkpoint", ""), valued("checkpoint-dir", "")})
	c.ValidArgsFunction = a.completeContainers(manager.StateCreated, manager.StateExited)
	c.RunE = func(c *cobra.Command, args []string) error {
		if !attach && !interactive {
			return a.startDetached(c.Context(), args)
		}
		if len(args) > 1 {
			return errors.New("you cannot start and attach multiple containers at once")
		}
		parsed, err := parseDetachKeys(keys)
		if err != nil {
			return err
		}
		return a.startAttached(c.Context(), args[0], interactive, parsed)
	}
	return c
}

// startDetached starts one after another, as docker does. Whatever keeps a
// container from starting, the exit code is 1: only run tells by it.
func (a *app) startDetached(ctx context.Context, args []string) error {
	m, err := a.manager()
	if err != nil {
		return err
	}
	var failed error
	for _, ref := range args {
		if _, err := m.Start(ctx, ref, nil); err != nil {
			if ctx.Err() != nil {
				return err
			}
			a.printError(err)
			failed = &exitError{code: exitFailure}
			continue
		}
		fmt.Fprintln(a.out, escape(ref))
	}
	return failed
}

func (a *app) startAttached(ctx context.Context, ref string, interactive bool, keys []byte) error {
	m, err := a.manager()
	if err != nil {
		return err
	}
	container, err := m.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	o := attachOptions{
		stdin: interactive && container.Stdin, stdout: true, stderr: true,
		tty: container.TTY, sigProxy: !container.TTY, detachKeys: keys,
	}
	if o.stdin && o.tty && !isTerminal(a.in) {
		return &exitError{code: exitFailure, err: errNotTTY}
	}
	return a.attach(ctx, o, func(ctx context.Context, s *manager.Streams) (waiter, error) {
		return m.Start(ctx, container.ID, s)
	})
}
