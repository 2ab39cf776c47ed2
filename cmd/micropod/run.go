package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

// errNotTTY is docker's answer to -it without a terminal.
var errNotTTY = errors.New("the input device is not a TTY")

type runFlags struct {
	createFlags
	detach, sigProxy bool
	detachKeys       string
}

func newRunCommand(a *app) *cobra.Command {
	var flags runFlags
	c := newVerb("run [OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image", arguments(1, -1), nil)
	f := c.Flags()
	flags.register(f)
	f.BoolVarP(&flags.detach, "detach", "d", false, "Run container in background and print container ID")
	f.StringVar(&flags.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	f.BoolVar(&flags.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	refuse(f, unsupportedCreateFlags())
	c.ValidArgsFunction = a.completeImages(1)
	registerValues(c, "pull", "always", "missing", "never")
	registerValues(c, "vmm", "auto", "firecracker", "qemu")
	_ = c.RegisterFlagCompletionFunc("network", a.completeNetworks(-1)) // as registerValues
	registerValues(c, "log-driver", "local", "json-file", "journald", "none")
	c.RunE = func(c *cobra.Command, args []string) error {
		o, err := flags.options(f, args)
		if err != nil {
			return usage(c, err)
		}
		return ours(a.run(c.Context(), &flags, o))
	}
	return c
}

func (a *app) run(ctx context.Context, flags *runFlags, o manager.CreateOptions) error {
	attach, err := flags.attachOptions()
	if err != nil {
		return &exitError{code: exitFailure, err: err}
	}
	if !flags.detach && attach.stdin && attach.tty && !isTerminal(a.in) {
		return &exitError{code: exitFailure, err: errNotTTY}
	}
	o.StdinStays = o.Stdin && (flags.detach || !attach.stdin)
	container, err := a.create(ctx, &flags.createFlags, o)
	if err != nil {
		return err
	}
	m, err := a.manager()
	if err != nil {
		return err
	}
	if flags.detach {
		_, err = m.Start(ctx, container.ID, nil)
	} else {
		err = a.attach(ctx, attach, func(ctx context.Context, s *manager.Streams) (waiter, error) {
			attachment, err := m.Start(ctx, container.ID, s)
			return attachment, startFailed(err)
		})
	}
	var exit *exitError
	if err != nil && o.AutoRemove && !(errors.As(err, &exit) && exit.err == nil) {
		// It never ran, so that no supervisor's end has removed it.
		_ = m.Remove(context.WithoutCancel(ctx), container.ID, true)
	}
	if err != nil {
		return startFailed(err)
	}
	if flags.detach {
		fmt.Fprintln(a.out, container.ID)
	}
	return nil
}

// startFailed gives err the exit code that docker has for it: 127 for a command
// that is not there, 126 for one that cannot be executed, else 125.
func startFailed(err error) error {
	var start *manager.StartError
	if errors.As(err, &start) && start.ExitCode != 0 {
		return &exitError{code: start.ExitCode, err: err}
	}
	return err
}

// attachOptions are docker's rules for what of a container is attached.
func (r *runFlags) attachOptions() (attachOptions, error) {
	keys, err := parseDetachKeys(r.detachKeys)
	if err != nil {
		return attachOptions{}, err
	}
	if r.detach && len(r.attach) > 0 {
		return attachOptions{}, errors.New("conflicting options: cannot specify both --attach and --detach")
	}
	o := attachOptions{tty: r.tty, sigProxy: r.sigProxy, detachKeys: keys}
	if len(r.attach) == 0 {
		o.stdin, o.stdout, o.stderr = r.interactive, true, true
		return o, nil
	}
	o.stdin = slices.Contains(r.attach, "stdin")
	o.stdout = slices.Contains(r.attach, "stdout")
	o.stderr = slices.Contains(r.attach, "stderr")
	return o, nil
}
