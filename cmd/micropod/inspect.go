package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/micropod/micropod/pkg/manager"
	"github.com/spf13/cobra"
)

// kindNetwork of what is inspected.
const kindNetwork = "network"

// newInspectCommand makes `inspect`, and with a kind `container inspect` and
// `image inspect`.
func newInspectCommand(a *app, kind string) *cobra.Command {
	var format, platform string
	c := newVerb("inspect [OPTIONS] NAME|ID [NAME|ID...]", "Return low-level information on containers, images and networks", arguments(1, -1), nil)
	f := c.Flags()
	f.StringVarP(&format, "format", "f", "", `Format output: "json" or a Go template`)
	if kind != "image" {
		refuse(f, []dockerFlag{{name: "size", shorthand: "s", neutral: "false"}})
	} else {
		f.StringVar(&platform, "platform", "", "Fail unless the image is for this platform (os[/arch[/variant]])")
	}
	asked := &kind
	if kind == "" {
		asked = f.String("type", "", "Only inspect objects of the given type (container, image, network)")
		registerValues(c, "type", "container", "image", kindNetwork)
	}
	c.ValidArgsFunction = a.completeInspect(asked)
	c.RunE = func(c *cobra.Command, args []string) error {
		switch *asked {
		case "", "container", "image", kindNetwork:
			return a.inspect(c.Context(), args, *asked, format, platform)
		}
		return fmt.Errorf(`unknown type: %q: must be one of "container", "image", "network"`, *asked)
	}
	return c
}

func (a *app) inspect(ctx context.Context, refs []string, kind, format, platform string) error {
	m, err := a.manager()
	if err != nil {
		return err
	}
	objects := []any{}
	var problems []error
	for _, ref := range refs {
		object, err := inspectOne(ctx, m, ref, kind, platform)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		objects = append(objects, object)
	}
	if err := a.printInspected(objects, format); err != nil {
		return err
	}
	for _, p := range problems {
		a.printError(p)
	}
	if len(problems) > 0 {
		return &exitError{code: exitFailure}
	}
	return nil
}

func inspectOne(ctx context.Context, m *manager.Manager, ref, kind, platform string) (any, error) {
	if kind == kindNetwork {
		return inspectNamedNetwork(ctx, m, ref)
	}
	if kind != "image" {
		c, err := m.Inspect(ctx, ref)
		if err == nil {
			return inspectContainer(c), nil
		}
		if kind == "container" || !errors.Is(err, manager.ErrNotFound) {
			return nil, err
		}
	}
	i, err := m.InspectImage(ctx, ref, platform)
	if err == nil {
		return inspectImage(i), nil
	}
	if kind == "image" || !errors.Is(err, manager.ErrNotFound) {
		return nil, err
	}
	network, err := inspectNamedNetwork(ctx, m, ref)
	if errors.Is(err, manager.ErrNotFound) {
		err = fmt.Errorf("no such container, image or network: %s", ref)
	}
	return network, err
}

// printInspected writes an array of JSON, or one line for each object.
func (a *app) printInspected(objects []any, format string) error {
	switch format {
	case "":
		text, err := marshalIndented(objects)
		if err != nil {
			return err
		}
		_, err = a.out.Write(text)
		return err
	case "json":
		return writeJSONRows(a.out, []any{objects})
	}
	t, err := parseTemplate(format)
	if err != nil {
		return err
	}
	for _, object := range objects {
		line, err := execute(t, object)
		if err != nil {
			return err
		}
		if err := writeText(a.out, line+"\n"); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) completeInspect(kind *string) completion {
	return func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		var out []string
		if *kind != "image" {
			refs, _ := a.completeContainers()(c, args, word)
			out = append(out, refs...)
		}
		if *kind != "container" {
			refs, _ := a.completeImages(-1)(c, args, word)
			out = append(out, refs...)
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// splitCommand is docker's Path and Args.
func splitCommand(command []string) (path string, args []string) {
	if len(command) == 0 {
		return "", []string{}
	}
	return command[0], command[1:]
}

// platformParts cuts linux/arm64/v8 into docker's three fields.
func platformParts(platform string) (os, arch, variant string) {
	os, rest, _ := strings.Cut(platform, "/")
	arch, variant, _ = strings.Cut(rest, "/")
	return os, arch, variant
}
