package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newImportCommand(a *app) *cobra.Command {
	var o manager.ImportOptions
	c := newVerb("import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]", "Import the contents from a tarball to create a filesystem image", arguments(1, 2), nil)
	f := c.Flags()
	f.VarP(newChecked(&o.Changes, "list", unchecked), "change", "c", "Apply Dockerfile instruction to the created image")
	f.StringVarP(&o.Message, "message", "m", "", "Set commit message for imported image")
	f.StringVar(&o.Platform, "platform", "", "Set platform of the image (os/arch[/variant])")
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 2 {
			o.Name = args[1]
		}
		return a.importImage(c.Context(), args[0], o)
	}
	return c
}

func (a *app) importImage(ctx context.Context, source string, o manager.ImportOptions) error {
	m, err := a.manager()
	if err != nil {
		return err
	}
	tar, err := a.importSource(ctx, m, source)
	if err != nil {
		return err
	}
	defer tar.Close()
	if o.Message == "" {
		o.Message = "Imported from -"
		if isURL(source) {
			o.Message = "Imported from " + source
		}
	}
	id, err := m.Import(ctx, tar, o)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.out, escape(id))
	return err
}

func isURL(s string) bool { return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") }

func (a *app) importSource(ctx context.Context, m *manager.Manager, source string) (io.ReadCloser, error) {
	switch {
	case isURL(source):
		return m.Fetch(ctx, source)
	case source != "-":
		f, err := os.Open(source)
		if err != nil {
			return nil, fmt.Errorf("import: %w", err)
		}
		return f, nil
	case isTerminal(a.in):
		return nil, errors.New("requested import from stdin, but stdin is a terminal (name a file, or pipe one in)")
	}
	return a.in, nil
}
