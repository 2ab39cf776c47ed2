package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newSaveCommand(a *app) *cobra.Command {
	var output, format, platform string
	c := newVerb("save [OPTIONS] IMAGE [IMAGE...]", "Save one or more images to a tar archive (streamed to STDOUT by default)", arguments(1, -1), nil)
	f := c.Flags()
	f.StringVar(&format, "format", "docker", "Format of the archive (docker, oci)")
	f.StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	f.StringVar(&platform, "platform", "", "Fail unless the images are for this platform (os[/arch[/variant]])")
	c.ValidArgsFunction = a.completeImages(-1)
	registerValues(c, "format", "docker", "oci")
	c.RunE = func(c *cobra.Command, args []string) error {
		if format != "docker" && format != "oci" {
			return usage(c, fmt.Errorf("invalid --format %q: must be docker or oci", format))
		}
		return a.save(c.Context(), output, args, format, platform)
	}
	return c
}

func (a *app) save(ctx context.Context, output string, refs []string, format, platform string) error {
	return a.writeArchive(output, func(m *manager.Manager, w io.Writer) error { return m.Save(ctx, w, refs, format, platform) })
}

// writeArchive fills a file, or stdout if output is empty and it is no terminal.
func (a *app) writeArchive(output string, fill func(*manager.Manager, io.Writer) error) error {
	if output == "" && isTerminal(a.out) {
		return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
	}
	m, err := a.manager()
	if err != nil {
		return err
	}
	if output == "" {
		return fill(m, a.out)
	}
	return writeFile(output, func(w io.Writer) error { return fill(m, w) })
}

// writeFile fills path, whole or not at all. What exists and is no regular file,
// such as /dev/null, is written as it is.
func writeFile(path string, fill func(io.Writer) error) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(fill(f), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".micropod-save-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	if err := fill(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
