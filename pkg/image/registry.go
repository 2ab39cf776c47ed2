package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const userAgent = "micropod"

// repository is one repository of a registry, for the time of one pull or push.
type repository struct {
	s      *Store
	t      target
	host   string // where requests go
	label  string // what people call it
	path   string
	client *http.Client
	guard  *guard
	// authErr is why no credentials could be had; it matters only when the
	// registry turns out to want some.
	authErr error
}

// openPull opens a repository at one of its hosts to read from it.
func (s *Store) openPull(ctx context.Context, t target, e *endpoint) (*repository, error) {
	return s.openRepository(ctx, t, e, func(repo name.Repository) []string {
		return []string{repo.Scope(transport.PullScope)}
	})
}

// openPush opens a repository at the first host that takes pushes, to write to
// it and to take blobs from others of the same registry.
func (s *Store) openPush(ctx context.Context, t target, mounts []string) (*repository, error) {
	m, err := s.openRemote(t)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(m.places, func(p *place) bool { return p.push })
	if i < 0 {
		return nil, fmt.Errorf("no host is configured that takes pushes for %s", reference.Domain(t.named))
	}
	return s.openRepository(ctx, t, &m.places[i].endpoint, func(repo name.Repository) []string {
		scopes := []string{repo.Scope(transport.PushScope)}
		for _, m := range mounts {
			scopes = append(scopes, repo.Registry.Repo(m).Scope(transport.PullScope))
		}
		return scopes
	})
}

// openRepository finds credentials and learns how the registry wants them.
// scopes are what a token must be good for.
func (s *Store) openRepository(ctx context.Context, t target, e *endpoint, scopes func(name.Repository) []string) (*repository, error) {
	domain := reference.Domain(t.named)
	insecure := s.mayBePlain(e, domain)
	repo, err := repositoryAt(t, e, insecure)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReference, err)
	}
	r := &repository{s: s, t: t, host: repo.RegistryStr(), path: repo.RepositoryStr(), label: domain}
	if e.mirror {
		r.label = e.host
	}
	auth, err := s.credentials(ctx, credentialsOf(t, e, repo))
	if err != nil {
		return nil, err
	}
	if auth.err != nil {
		s.o.Log.Warn("no credentials, trying without", "registry", r.label, "cause", auth.err)
		r.authErr = auth.err
	}
	if r.guard, err = newEndpointGuard(s.o.Transport, e, insecure); err != nil {
		return nil, fmt.Errorf("registry configuration: %w", err)
	}
	adapted := &endpointTransport{e: e, repo: r.path, registry: domain, inner: r.guard}
	err = s.retry(ctx, func(ctx context.Context) error {
		rt, err := transport.NewWithContext(ctx, repo.Registry, auth.a,
			transport.NewUserAgent(adapted, userAgent), scopes(repo))
		if err != nil {
			return err
		}
		r.client = &http.Client{Transport: rt, CheckRedirect: checkRedirect}
		return nil
	})
	if err != nil {
		r.close()
		return nil, r.explain(err)
	}
	return r, nil
}

// mayBePlain reports whether a host may be talked to without TLS: when that is
// what its configuration says, or the registry is on this machine.
func (s *Store) mayBePlain(e *endpoint, domain string) bool {
	return e.scheme == "http" || e.scheme == "" && (isLoopback(domain) || s.o.Insecure(domain))
}

// repositoryAt is the repository as the host has it: under the same path.
func repositoryAt(t target, e *endpoint, insecure bool) (name.Repository, error) {
	var opts []name.Option
	if insecure {
		opts = append(opts, name.Insecure)
	}
	own, err := name.NewRepository(t.named.Name(), opts...)
	if err != nil || e.host == own.RegistryStr() {
		return own, err
	}
	host, err := name.NewRegistry(e.host, opts...)
	if err != nil {
		return own, err
	}
	return host.Repo(own.RepositoryStr()), nil
}

// credentialsOf is whose credentials a host gets: a mirror its own, never those
// of the registry that it stands in for.
func credentialsOf(t target, e *endpoint, repo name.Repository) authn.Resource {
	if e.mirror {
		return repo
	}
	own, err := name.NewRepository(t.named.Name())
	if err != nil {
		return repo
	}
	return own
}

type loginCredentials struct {
	a   authn.Authenticator
	err error
}

// credentials asks the keychain, which may run a helper program that waits for
// a person: a cancelled pull does not wait with it. A helper that is missing or
// broken means going on without credentials, never with those of another
// registry.
func (s *Store) credentials(ctx context.Context, repo authn.Resource) (loginCredentials, error) {
	got := make(chan loginCredentials, 1)
	go func() {
		a, err := authn.Resolve(ctx, s.o.Keychain, repo)
		if err != nil || a == nil {
			a = authn.Anonymous
		}
		got <- loginCredentials{a, err}
	}()
	select {
	case c := <-got:
		return c, nil
	case <-ctx.Done():
		return loginCredentials{}, context.Cause(ctx)
	}
}

func (r *repository) close() { r.guard.close() }

func (r *repository) url(kind, id string) string {
	// The auth transport puts the scheme in that the registry answered on.
	return "https://" + r.host + "/v2/" + r.path + "/" + kind + "/" + id
}

// top reads the document that the reference names, with its media type.
func (r *repository) top(ctx context.Context) (raw []byte, mediaType string, err error) {
	id := r.t.digest()
	if id == "" {
		id = r.t.named.(reference.Tagged).Tag()
	}
	raw, mediaType, err = r.get(ctx, id)
	if err != nil {
		return nil, "", err
	}
	if want := r.t.digest(); want != "" && digestOf(raw) != want {
		return nil, "", fmt.Errorf("%w: wrong content: digest is %s, not %s", ErrInvalid, digestOf(raw), want)
	}
	return raw, mediaType, nil
}

func (r *repository) manifest(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	raw, _, err := r.get(ctx, d.Digest.String())
	return raw, err
}

func (r *repository) get(ctx context.Context, id string) (raw []byte, mediaType string, err error) {
	err = r.s.retry(ctx, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url("manifests", id), nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", acceptManifests())
		resp, err := r.client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return newStatusError(resp)
		}
		mediaType, _, _ = strings.Cut(resp.Header.Get("Content-Type"), ";")
		mediaType = strings.TrimSpace(mediaType)
		raw, err = readDocument(resp.Body)
		return err
	})
	if err != nil {
		return nil, "", r.explain(err)
	}
	return raw, mediaType, nil
}

// openBlob gives a blob, from off on, that mends broken connections by itself. The urls of a
// descriptor are never followed: they are a way to make us fetch anything.
func (r *repository) openBlob(ctx context.Context, d ocispec.Descriptor, off int64) (*blobReader, error) {
	b := &blobReader{ctx: ctx, r: r, d: d, off: off, mark: off, tries: attempts{o: &r.s.o}}
	if err := b.connect(); err != nil {
		return nil, err
	}
	return b, nil
}

// explain turns a registry's refusal into what a user can do about it.
func (r *repository) explain(err error) error {
	e := asStatus(err)
	if e == nil {
		var nerr *name.ErrBadName
		if errors.As(err, &nerr) {
			return fmt.Errorf("%w: %w", ErrReference, err)
		}
		return unreachable(r.label, err)
	}
	switch e.status {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", ErrNotFound, e)
	case http.StatusUnauthorized, http.StatusForbidden:
		hint := "the repository does not exist, or needs `micropod login"
		if r.label != "docker.io" {
			hint += " " + r.label
		}
		hint += "`"
		if r.authErr != nil {
			hint += "; no credentials: " + printable(r.authErr.Error())
		}
		return fmt.Errorf("%w: %s: %w", ErrUnauthorized, hint, e)
	}
	return e
}

// unreachable says that it is the network, where it is.
func unreachable(registry string, err error) error {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "dial" || errors.Is(err, errAddress) {
		return err
	}
	return fmt.Errorf("cannot reach the registry %s (check the network, and HTTPS_PROXY if there is a proxy): %w",
		registry, op.Err)
}
