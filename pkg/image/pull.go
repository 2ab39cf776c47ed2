package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
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
	platform, err := parsePlatform(o.Platform)
	if err != nil {
		return nil, err
	}
	if s.o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.o.Timeout, errTimeout)
		defer cancel()
	}
	start := time.Now()
	img, err := s.pull(ctx, t, wish{Platform: platform}, o.Progress)
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", t, err)
	}
	s.o.Log.Debug("image pulled", "image", t.String(), "id", img.ID, "took", time.Since(start))
	return img, nil
}

var errTimeout = errors.New("time limit for the pull is over")

func (s *Store) pull(ctx context.Context, t target, want wish, p Progress) (*Image, error) {
	switch t.kind {
	case fromLayout:
		root, err := os.OpenRoot(t.path)
		if err != nil {
			return nil, fmt.Errorf("open OCI layout: %w", err)
		}
		defer root.Close()
		return s.pullLayout(ctx, layoutDir{root}, t, want, p)
	case fromOCIArchive, fromDockerArchive:
		a, err := s.openArchive(ctx, t.path)
		if err != nil {
			return nil, err
		}
		defer a.close()
		if t.kind == fromOCIArchive {
			return s.pullLayout(ctx, a, t, want, p)
		}
		return s.pullDockerArchive(ctx, a, t, want, p)
	case fromDaemon:
		return s.pullDaemon(ctx, t, want, p)
	}
	return s.pullRegistry(ctx, t, want, p)
}

func (s *Store) pullRegistry(ctx context.Context, t target, want wish, p Progress) (*Image, error) {
	r, err := s.openRemote(t)
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
	stored, err := s.add(ctx, img, as, p)
	if err != nil {
		return nil, err
	}
	stored.Pulled = digestOf(raw)
	return stored, nil
}
