package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImportOptions tune one Import.
type ImportOptions struct {
	// Name is what the image shall be called, "" for no name.
	Name string
	// Changes are instructions of a Dockerfile, see docker import --change.
	Changes []string
	// Message is the comment in the image's history.
	Message string
	// Platform is what the image is for, in Pull's form; "" is this machine.
	Platform string
}

// Import makes an image of one layer out of a root file system in a tar file,
// plain or compressed, and returns it. A plain tar in a regular file is read
// where it is.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (*Image, error) {
	img, err := s.importTar(ctx, r, o)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	return img, nil
}

func (s *Store) importTar(ctx context.Context, r io.Reader, o ImportOptions) (*Image, error) {
	as, err := named(o.Name)
	if err != nil {
		return nil, err
	}
	platform, err := parsePlatform(o.Platform)
	if err != nil {
		return nil, err
	}
	var settings Settings
	if err := applyChanges(&settings, o.Changes); err != nil {
		return nil, err
	}
	f := inPlace(r)
	if f == nil {
		if f, err = s.spool(ctx, r); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	layer, err := layerOfFile(ctx, f)
	if err != nil {
		return nil, err
	}
	config, err := importedConfig(layer.diffID, settings, platform, o.Message)
	if err != nil {
		return nil, err
	}
	found := &found{config: config, diffIDs: []string{layer.diffID}, layers: []layerBlob{*layer}}
	return s.add(ctx, found, as, nil)
}

// named is the naming of an image that is made here, "" for no name.
func named(name string) (naming, error) {
	if name == "" {
		return naming{}, nil
	}
	t, err := parseTag(name)
	if err != nil {
		return naming{}, err
	}
	return naming{names: []string{t.String()}}, nil
}

// layerOfFile finds the digest of a tar, which is read again for its content:
// a file that changes in between is noticed then.
func layerOfFile(ctx context.Context, f *os.File) (*layerBlob, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > maxLayerBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrInvalid, int64(maxLayerBytes))
	}
	content := func() io.Reader { return io.NewSectionReader(f, 0, st.Size()) }
	sum := sha256.New()
	if _, err := io.Copy(sum, &ctxReader{ctx: ctx, r: content()}); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return &layerBlob{
		diffID: digestPrefix + hex.EncodeToString(sum.Sum(nil)), size: st.Size(),
		open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(content()), nil },
	}, nil
}

func importedConfig(diffID string, settings Settings, platform ocispec.Platform, message string) ([]byte, error) {
	now := time.Now().UTC()
	c := DockerImage{Config: settings, Comment: message}
	c.Created, c.Platform = &now, platform
	c.History = []ocispec.History{{Created: &now, Comment: message}}
	c.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.Digest(diffID)}}
	return encodeConfig(&c)
}

func encodeConfig(c *DockerImage) ([]byte, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	if len(raw) > maxDocument {
		return nil, fmt.Errorf("%w: config is larger than %d bytes", ErrInvalid, maxDocument)
	}
	return raw, nil
}

// Fetch reads a file from a web server, for Import. No credentials are sent,
// and the server cannot send us to this machine or, from https, to plain HTTP.
func (s *Store) Fetch(ctx context.Context, from string) (io.ReadCloser, error) {
	u, err := url.Parse(from)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%w: %q is no http or https address", ErrReference, clip(from))
	}
	g := newGuard(s.o.Transport, u.Host, u.Scheme == "http")
	client := http.Client{Transport: transport.NewUserAgent(g, userAgent), CheckRedirect: checkRedirect}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		g.close()
		return nil, fmt.Errorf("fetch: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		g.close()
		return nil, fmt.Errorf("fetch %s: the server answered %s", clip(from), printable(resp.Status))
	}
	return &fetched{resp.Body, g}, nil
}

type fetched struct {
	io.ReadCloser
	g *guard
}

func (f *fetched) Close() error {
	err := f.ReadCloser.Close()
	f.g.close()
	return err
}
