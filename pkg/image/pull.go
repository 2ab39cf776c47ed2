package image

import (
	"context"
	"errors"
	"fmt"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PullOptions tune one Pull.
type PullOptions struct {
	// Platform is "os/arch[/variant]"; "" is Linux on this machine's CPU.
	Platform string
	// Progress may be nil.
	Progress Progress
}

// Pull fetches an image from wherever ref points and stores it under ref:
//
//	name[:tag][@digest]        a registry, docker.io by default
//	oci:DIR[:TAG]              an OCI image layout
//	oci-archive:FILE[:TAG]     the same in a tar file
//	docker-archive:FILE[:REF]  what docker save wrote
//	docker-daemon:NAME         the Docker daemon of this machine
//
// Layers that the LayerStore has are not fetched again. On an error nothing is
// stored but whole, verified layers, which a later Pull finds or GC removes.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (*Image, error) {
	t, err := parseTarget(ref)
	if err != nil {
		return nil, err
	}
	want, err := parsePlatform(o.Platform)
	if err != nil {
		return nil, err
	}
	if s.o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.o.Timeout, errTimeout)
		defer cancel()
	}
	start := time.Now()
	img, err := s.pull(ctx, t, want, o.Progress)
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", t, err)
	}
	s.o.Log.Debug("image pulled", "image", t.String(), "id", img.ID, "took", time.Since(start))
	return img, nil
}

var errTimeout = errors.New("time limit for the pull is over")

func (s *Store) pull(ctx context.Context, t target, want ocispec.Platform, p Progress) (*Image, error) {
	return s.pullRegistry(ctx, t, want, p)
}

func (s *Store) pullRegistry(ctx context.Context, t target, want ocispec.Platform, p Progress) (*Image, error) {
	r, err := s.openRepository(ctx, t)
	if err != nil {
		return nil, err
	}
	defer r.close()
	raw, mediaType, err := r.top(ctx)
	if err != nil {
		return nil, err
	}
	img, err := resolve(ctx, r, raw, mediaType, want)
	if err != nil {
		return nil, err
	}
	as := naming{digests: []string{digestName(t, digestOf(raw))}}
	if t.digest() == "" {
		as.names = []string{t.String()}
	}
	return s.add(ctx, img, as, p)
}
