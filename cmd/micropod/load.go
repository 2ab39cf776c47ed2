package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func newLoadCommand(a *app) *cobra.Command {
	var input, platform string
	var quiet bool
	c := newVerb("load [OPTIONS]", "Load images from a tar archive or STDIN (docker or OCI format)", arguments(0, 0), nil)
	f := c.Flags()
	f.StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	f.BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	f.StringVar(&platform, "platform", "", "Load only this platform of each image (os[/arch[/variant]])")
	c.RunE = func(c *cobra.Command, _ []string) error { return a.load(c.Context(), input, platform, quiet) }
	return c
}

func (a *app) load(ctx context.Context, input, platform string, quiet bool) error {
	var archive io.Reader = a.in
	switch {
	case input != "":
		f, err := os.Open(input)
		if err != nil {
			return fmt.Errorf("load images: %w", err)
		}
		defer f.Close()
		archive = f
	case isTerminal(a.in):
		return errors.New("requested load from stdin, but stdin is a terminal (give a file with -i, or pipe one in)")
	}
	m, err := a.manager()
	if err != nil {
		return err
	}
	p := newProgress(a.out, quiet)
	images, err := m.Load(ctx, archive, platform, p)
	p.finish()
	if err != nil {
		return err
	}
	for _, i := range images {
		if len(i.Names) == 0 {
			fmt.Fprintf(a.out, "Loaded image ID: %s\n", escape(i.ID))
		}
		for _, name := range i.Names {
			fmt.Fprintf(a.out, "Loaded image: %s\n", escape(familiarName(name)))
		}
	}
	return nil
}
