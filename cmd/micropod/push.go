package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/micropod/micropod/pkg/image"
	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

type pushFlags struct {
	allTags, quiet bool
	platform       string
}

func newPushCommand(a *app) *cobra.Command {
	var flags pushFlags
	c := newVerb("push [OPTIONS] NAME[:TAG]", "Upload an image to a registry", arguments(1, 1), nil)
	f := c.Flags()
	f.BoolVarP(&flags.allTags, "all-tags", "a", false, "Push all tags of an image to the repository")
	f.StringVar(&flags.platform, "platform", "", "Fail unless the image is for this platform (os[/arch[/variant]])")
	f.BoolVarP(&flags.quiet, "quiet", "q", false, "Only print the image's name")
	refuse(f, []dockerFlag{{name: "disable-content-trust", neutral: "true"}})
	c.ValidArgsFunction = a.completeImages(1)
	c.RunE = func(c *cobra.Command, args []string) error { return a.push(c.Context(), args[0], flags) }
	return c
}

func (a *app) push(ctx context.Context, name string, flags pushFlags) error {
	repository, err := image.Repository(name)
	if err != nil {
		return err
	}
	m, err := a.manager()
	if err != nil {
		return err
	}
	refs, err := a.pushed(ctx, m, name, flags)
	if err != nil {
		return err
	}
	if !flags.quiet {
		fmt.Fprintf(a.out, "The push refers to repository [%s]\n", escape(repository))
	}
	for _, ref := range refs {
		if err := a.pushOne(ctx, m, ref, flags); err != nil {
			return err
		}
	}
	return nil
}

// pushed are the whole names to push.
func (a *app) pushed(ctx context.Context, m *manager.Manager, name string, flags pushFlags) ([]string, error) {
	_, tag := splitName(name)
	pinned := strings.Contains(name, "@")
	if flags.allTags {
		if tag != "" || pinned {
			return nil, errors.New("tag can't be used with --all-tags/-a")
		}
		return m.Tags(ctx, name)
	}
	if tag == "" && !pinned && !flags.quiet {
		fmt.Fprintln(a.out, "Using default tag: latest")
	}
	full, err := image.FullName(name)
	return []string{full}, err
}

func (a *app) pushOne(ctx context.Context, m *manager.Manager, ref string, flags pushFlags) error {
	p := newProgress(a.out, flags.quiet)
	digest, size, err := m.PushImage(ctx, ref, flags.platform, p)
	p.finish()
	if err != nil {
		return err
	}
	if flags.quiet {
		_, err = fmt.Fprintln(a.out, escape(ref))
		return err
	}
	_, tag := splitName(ref)
	_, err = fmt.Fprintf(a.out, "%s: digest: %s size: %d\n", escape(tag), escape(digest), size)
	return err
}
