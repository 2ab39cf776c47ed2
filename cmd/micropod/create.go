package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newCreateCommand(a *app) *cobra.Command {
	var flags createFlags
	c := newVerb("create [OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container", arguments(1, -1), nil)
	f := c.Flags()
	flags.register(f)
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
		container, err := a.create(c.Context(), &flags, o)
		if err != nil {
			return err // docker: 125 is of run only, and of wrong flags
		}
		fmt.Fprintln(a.out, container.ID)
		return nil
	}
	return c
}

// create makes the container and writes its id to --cidfile. Pull progress goes
// to stderr: stdout belongs to the container or holds its id.
func (a *app) create(ctx context.Context, flags *createFlags, o manager.CreateOptions) (*manager.Container, error) {
	m, err := a.manager()
	if err != nil {
		return nil, err
	}
	id, err := openIDFile(flags.cidfile)
	if err != nil {
		return nil, err
	}
	o.Env = append(o.Env, a.proxies(flags.env)...) // over those of --env-file, as docker's client has it
	p := newProgress(a.err, flags.quiet)
	container, err := m.Create(ctx, o, p)
	p.finish()
	if err != nil {
		id.discard()
		return nil, err
	}
	return container, id.write(container.ID)
}

// idFile is the file of --cidfile: it must not exist, is made before the
// container, and goes again if there is no container. Nil writes nothing.
type idFile struct{ f *os.File }

func openIDFile(path string) (*idFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("create the container ID file: %w", err)
	}
	return &idFile{f: f}, nil
}

func (i *idFile) discard() {
	if i == nil {
		return
	}
	i.f.Close()
	os.Remove(i.f.Name())
}

func (i *idFile) write(id string) error {
	if i == nil {
		return nil
	}
	_, err := i.f.WriteString(id)
	if cerr := i.f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write the container ID file: %w", err)
	}
	return nil
}
