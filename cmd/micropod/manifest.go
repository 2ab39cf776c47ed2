package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/micropod/micropod/pkg/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

func newManifestInspectCommand(a *app) *cobra.Command {
	var o image.RemoteOptions
	c := newVerb("inspect [OPTIONS] MANIFEST", "Display an image manifest, or manifest list, of a registry", arguments(1, 1), nil)
	f := c.Flags()
	f.BoolVar(&o.Insecure, "insecure", false, "Allow communication with an insecure registry")
	f.BoolVarP(&o.Details, "verbose", "v", false, "Output additional info including layers and platform")
	c.RunE = func(c *cobra.Command, args []string) error { return a.manifestInspect(c.Context(), args[0], o) }
	return c
}

func (a *app) manifestInspect(ctx context.Context, ref string, o image.RemoteOptions) error {
	m, err := a.manager()
	if err != nil {
		return err
	}
	all, err := m.RemoteManifests(ctx, ref, o)
	if err != nil {
		return err
	}
	raw := all[0].Raw
	if o.Details {
		if raw, err = json.Marshal(manifestViews(all)); err != nil {
			return err
		}
	}
	var text bytes.Buffer
	if err := json.Indent(&text, raw, "", "\t"); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "%s\n", escapeJSON(text.Bytes()))
	return err
}

// manifestView is docker's, for --verbose.
type manifestView struct {
	Ref              string
	Descriptor       ocispec.Descriptor
	Raw              []byte
	SchemaV2Manifest json.RawMessage `json:",omitempty"`
	OCIManifest      json.RawMessage `json:",omitempty"`
}

// manifestViews is one of them for a manifest, a list for an index.
func manifestViews(all []image.RemoteManifest) any {
	views := []manifestView{}
	for _, r := range all {
		if r.IsIndex {
			continue
		}
		v := manifestView{Ref: r.Ref, Descriptor: r.Descriptor, Raw: r.Raw}
		if strings.HasPrefix(r.Descriptor.MediaType, "application/vnd.docker.") {
			v.SchemaV2Manifest = r.Raw
		} else {
			v.OCIManifest = r.Raw
		}
		views = append(views, v)
	}
	if !all[0].IsIndex {
		return views[0]
	}
	return views
}
