package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/micropod/micropod/pkg/state"
)

// Names of the files in a store's directory.
const (
	fileIndex  = "index.jsonl"
	fileLock   = "lock"
	dirContent = "sha256"
	dirLeases  = "leases"
	dirTmp     = "tmp"
	dirPartial = "partial"
)

// Options tune a Store. The zero value is what a user wants.
type Options struct {
	// Keychain finds credentials for a registry; nil is docker's config.json
	// with its credential helpers.
	Keychain authn.Keychain
	// Insecure says that the registry at host (with its port, if any) may be
	// talked to over plain HTTP. Loopback addresses always may, as in docker.
	Insecure func(host string) bool
	// HostsDir holds a directory for each registry with a hosts.toml in
	// containerd's format: mirrors, certificates, headers; "" is none.
	HostsDir string
	// Transport is the base of the connections to registries; nil is Go's
	// default one, which obeys HTTPS_PROXY and its like. It is cloned.
	Transport *http.Transport
	// DockerHost is where the Docker daemon listens, in DOCKER_HOST's form;
	// "" is that variable, then docker's own default.
	DockerHost string
	// Parallel is how many layers are fetched at once; 0 is 3.
	Parallel int
	// IdleTimeout ends an attempt that makes no headway; 0 is a minute.
	IdleTimeout time.Duration
	// Timeout ends a whole Pull; 0 is none.
	Timeout time.Duration
	// Retries is how often a request is tried again after a passing failure,
	// with no headway in between; 0 is 5, negative is never.
	Retries int
	// Backoff is the pause before the first retry; it doubles. 0 is 500 ms.
	Backoff time.Duration
	// MaxSpool bounds the temporary file of an archive that comes as a
	// stream, in bytes; 0 is 256 GiB.
	MaxSpool int64
	// Log receives what went on; nil is nowhere.
	Log *slog.Logger
}

// or gives d for the zero value.
func or[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

func (o Options) withDefaults() Options {
	if o.Keychain == nil {
		o.Keychain = authn.DefaultKeychain
	}
	if o.Insecure == nil {
		o.Insecure = func(string) bool { return false }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Parallel = or(o.Parallel, 3)
	o.IdleTimeout = or(o.IdleTimeout, time.Minute)
	o.Retries = or(o.Retries, 5)
	o.Backoff = or(o.Backoff, 500*time.Millisecond)
	o.MaxSpool = or(o.MaxSpool, 256<<30)
	return o
}

// Store is a directory of images. Safe for concurrent use by many processes.
type Store struct {
	dir    string
	layers LayerStore
	o      Options
	// minPartial is the constant of that name, but in tests.
	minPartial int64
}

// Open makes dir when it is missing and returns its Store.
func Open(dir string, layers LayerStore, o Options) (*Store, error) {
	for _, d := range []string{dirContent, dirLeases, dirTmp, dirPartial} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("create image store: %w", err)
		}
	}
	return &Store{dir: dir, layers: layers, o: o.withDefaults(), minPartial: minPartial}, nil
}

// lock excludes every other writer of the store, GC included. It is held for
// short work only, never while a layer is fetched.
func (s *Store) lock() (*state.FileLock, error) {
	return state.Lock(filepath.Join(s.dir, fileLock))
}

func (s *Store) contentPath(digest string) string {
	return filepath.Join(s.dir, dirContent, hexOf(digest))
}

// putContent stores a manifest or config under its digest, which the caller
// computed. A sound copy that is there already is left alone. The store's lock is
// held.
func (s *Store) putContent(digest string, b []byte) error {
	if old, err := s.content(digest); err == nil && bytes.Equal(old, b) {
		return nil
	}
	return state.ReplaceFile(s.contentPath(digest), b)
}

// content reads a manifest or config and verifies it.
func (s *Store) content(digest string) ([]byte, error) {
	if err := checkDigest(digest); err != nil {
		return nil, err
	}
	f, err := os.Open(s.contentPath(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: its config or manifest %s is missing", ErrDamaged, digest)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if digestOf(b) != digest {
		return nil, fmt.Errorf("%w: the content of %s has changed", ErrDamaged, f.Name())
	}
	return b, nil
}

// ManifestJSON returns the platform manifest of an image as it was received,
// ErrNotFound when its source had none.
func (s *Store) ManifestJSON(ref string) ([]byte, error) {
	img, err := s.Get(ref)
	if err != nil {
		return nil, err
	}
	if img.Manifest == "" {
		return nil, fmt.Errorf("%w: %s came from a docker archive, without a manifest", ErrNotFound, ref)
	}
	return s.content(img.Manifest)
}
