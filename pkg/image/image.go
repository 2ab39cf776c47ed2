// Package image finds, fetches and keeps OCI and docker images: references,
// registries, layouts and archives on the way in, archives and registries on the
// way out, and the store of names, manifests and configs in between.
//
// It is not a layer format: layers go, uncompressed and verified, into a
// LayerStore, which is the only place that keeps them. It never unpacks a file
// of an image onto the host, and it starts nothing.
//
// Everything that comes from a registry or an archive is hostile until its
// digest is known to be right: documents are bounded before they are decoded,
// digests are checked before they become paths, and a layer's reader ends in
// an error, not in io.EOF, when its bytes are not those that the manifest
// promised. Nothing is published before every layer is in place, in one
// durable write of the index under a lock, so any number of processes may use
// one store at the same time.
package image

import (
	"context"
	"errors"
	"io"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrNotFound says that neither the store nor, for Pull, the source has
	// the image.
	ErrNotFound = errors.New("no such image")
	// ErrAmbiguous says that an id prefix fits more than one image.
	ErrAmbiguous = errors.New("ambiguous image id")
	// ErrReference says that a string is not an image reference.
	ErrReference = errors.New("invalid image reference")
	// ErrPlatform says that the image exists, for other platforms.
	ErrPlatform = errors.New("image for another platform")
	// ErrConflict says that an image is in use or has more names.
	ErrConflict = errors.New("conflict")
	// ErrDamaged says that a stored image has lost parts; pulling it again
	// puts them back.
	ErrDamaged = errors.New("damaged image")
	// ErrInvalid says that a source serves something that breaks the image
	// specification or a limit, or whose digest is wrong.
	ErrInvalid = errors.New("invalid image")
	// ErrUnauthorized says that the registry wants other credentials.
	ErrUnauthorized = errors.New("access denied")
	// ErrNoDaemon says that no Docker daemon answers.
	ErrNoDaemon = errors.New("docker daemon not running")
)

// LayerStore keeps uncompressed layers by the digest of their tar stream, the
// diffID ("sha256:…"). Safe for concurrent use, by several processes too.
type LayerStore interface {
	// HasLayer reports whether the layer is complete and kept.
	HasLayer(diffID string) bool
	// AddLayer reads one tar stream to its very end, verifies that its sha256
	// is diffID and keeps it. An error of r leaves nothing behind. When the
	// layer turns out to be there already, r need not be read.
	AddLayer(ctx context.Context, diffID string, r io.Reader) error
	// LayerTar gives the tar stream back, byte for byte.
	LayerTar(diffID string) (io.ReadCloser, error)
	// Prune removes the layers that keep refuses, except those being added.
	Prune(ctx context.Context, keep func(diffID string) bool) (freed int64, err error)
	// LayerSize is what the layer takes on disk, in bytes.
	LayerSize(diffID string) (int64, error)
}

// TarSizer is an optional ability of a LayerStore: it knows the length of a
// layer's tar stream. Without it, Save reads each layer once more.
type TarSizer interface {
	LayerTarSize(diffID string) (int64, error)
}

// Progress is told about layers while they are fetched or pushed. It is called
// from several goroutines. id is the start of the layer's digest, for a push of
// its diffID; current and total are bytes as transferred, total is 0 when
// unknown. event is one of "pulling", "exists", "downloading", "extracting",
// "done", and for a push of "preparing", "present" (the registry has it),
// "mounted from NAME" (the registry took it from there), "pushing", "pushed".
type Progress interface {
	Layer(id, event string, current, total int64)
}

// Image is one stored image. It is a snapshot: nothing in it changes later.
type Image struct {
	// ID is the digest of the config, "sha256:…".
	ID string
	// Names are the references that point here, as docker shows them:
	// "nginx:latest", "example.com/a/b:c", "oci:/dir:tag". Empty when untagged.
	Names []string
	// Digests are the repository digests it was pulled as: "nginx@sha256:…".
	Digests []string
	// Pulled is the digest that the registry gave to a Pull which returned this,
	// "" otherwise.
	Pulled string
	// Manifest is the digest of the platform's manifest, "" when the source
	// (a docker archive) had none.
	Manifest string
	// Created is the time the image's config names, zero when it names none.
	Created time.Time
	// Added is when the image was first stored here.
	Added time.Time
	// Size is what its layers take on disk, in bytes, shared ones included.
	Size int64
	// Platform is "os/arch" or "os/arch/variant", in normal form: linux/amd64,
	// linux/arm64, linux/arm/v7.
	Platform string
	// Config is the image's config as decoded.
	Config ocispec.Image
	// Raw is the config as it was received; its sha256 is the ID. It holds
	// what Config has no field for (HEALTHCHECK, SHELL, ONBUILD).
	Raw []byte
	// DiffIDs are the layers, lowest first.
	DiffIDs []string
}

// Fits reports whether the image suits a platform in Pull's form.
func (i *Image) Fits(platform string) (bool, error) {
	want, err := parsePlatform(platform)
	if err != nil {
		return false, err
	}
	return platformRank(want, ownPlatform(&i.Config)) > 0, nil
}
