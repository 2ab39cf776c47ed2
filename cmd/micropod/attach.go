package main

import (
	"context"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newAttachCommand(a *app) *cobra.Command {
	var noStdin, sigProxy bool
	var keys string
	c := newVerb("attach [OPTIONS] CONTAINER", "Attach local standard input, output, and error streams to a running container", arguments(1, 1), nil)
	f := c.Flags()
	f.StringVar(&keys, "detach-keys", "", "Override the key sequence for detaching a container")
	f.BoolVar(&noStdin, "no-stdin", false, "Do not attach STDIN")
	f.BoolVar(&sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	c.ValidArgsFunction = a.completeContainers(manager.StateRunning)
	c.RunE = func(c *cobra.Command, args []string) error {
		parsed, err := parseDetachKeys(keys)
		if err != nil {
			return err
		}
		return a.attachRunning(c.Context(), args[0], attachOptions{stdin: !noStdin, stdout: true, stderr: true, sigProxy: sigProxy, detachKeys: parsed})
	}
	return c
}

func (a *app) attachRunning(ctx context.Context, ref string, o attachOptions) error {
	m, err := a.manager()
	if err != nil {
		return err
	}
	container, err := m.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	o.tty, o.stdin = container.TTY, o.stdin && container.Stdin
	o.sigProxy = o.sigProxy && !o.tty
	if o.stdin && o.tty && !isTerminal(a.in) {
		return &exitError{code: exitFailure, err: errNotTTY}
	}
	return a.attach(ctx, o, func(ctx context.Context, s *manager.Streams) (waiter, error) {
		attachment, err := m.Attach(ctx, container.ID, s)
		if err != nil {
			return nil, err
		}
		return escapable{attachment}, nil
	})
}
