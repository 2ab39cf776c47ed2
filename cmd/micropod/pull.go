package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

func newPullCommand(a *app) *cobra.Command {
	var all, quiet bool
	var platform string
	c := newVerb("pull [OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry, an archive, a layout or docker", arguments(1, 1), nil)
	f := c.Flags()
	f.StringVar(&platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform of the image (os/arch[/variant])")
	f.BoolVarP(&quiet, "quiet", "q", false, "Only print the image's ID")
	f.BoolVarP(&all, "all-tags", "a", false, "Download all tagged images in the repository")
	refuse(f, []dockerFlag{{name: "disable-content-trust", neutral: "true"}})
	c.ValidArgsFunction = a.completeImages(1)
	c.RunE = func(c *cobra.Command, args []string) error {
		if all {
			return a.pullAll(c.Context(), args[0], platform, quiet)
		}
		return a.pull(c.Context(), args[0], platform, quiet)
	}
	return c
}

func (a *app) pullAll(ctx context.Context, name, platform string, quiet bool) error {
	if _, tag := splitName(name); tag != "" || strings.Contains(name, "@") {
		return errors.New("tag can't be used with --all-tags/-a")
	}
	m, err := a.manager()
	if err != nil {
		return err
	}
	refs, err := m.RemoteTags(ctx, name)
	if err != nil {
		return err
	}
	for _, ref := range refs {
		if err := a.pull(ctx, ref, platform, quiet); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) pull(ctx context.Context, ref, platform string, quiet bool) error {
	m, err := a.manager()
	if err != nil {
		return err
	}
	p := newProgress(a.out, quiet)
	image, err := m.Pull(ctx, ref, platform, p)
	p.finish()
	if err != nil {
		return err
	}
	if quiet {
		fmt.Fprintln(a.out, escape(image.ID))
		return nil
	}
	a.printPulled(image, ref, p.fetched())
	return nil
}

// printPulled says what docker says after a pull.
func (a *app) printPulled(image *manager.Image, ref string, fetched bool) {
	if image.Pulled != "" {
		fmt.Fprintf(a.out, "Digest: %s\n", escape(image.Pulled))
	}
	status := "Image is up to date for"
	if fetched {
		status = "Downloaded newer image for"
	}
	fmt.Fprintf(a.out, "Status: %s %s\n%s\n", status, escape(ref), escape(image.ID))
}
