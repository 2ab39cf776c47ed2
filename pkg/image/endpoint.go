package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// endpointTransport adapts requests to the one host they are meant for: its path,
// its headers, and for a mirror the registry that it stands in for. Requests to
// token servers and after redirects to other hosts pass as they are.
type endpointTransport struct {
	e        *endpoint
	repo     string
	registry string
	inner    http.RoundTripper
}

func (t *endpointTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != t.e.host {
		return t.inner.RoundTrip(r)
	}
	if t.e.scheme != "" && r.URL.Scheme != t.e.scheme {
		return nil, fmt.Errorf("%s is configured for %s only", t.e.host, t.e.scheme)
	}
	r = r.Clone(r.Context())
	for key, values := range t.e.header {
		if r.Header.Get(key) == "" {
			r.Header[key] = values
		}
	}
	if t.adapt(r.URL) && t.e.mirror {
		q := r.URL.Query()
		q.Set("ns", t.registry)
		r.URL.RawQuery = q.Encode()
	}
	return t.inner.RoundTrip(r)
}

// adapt puts the host's own path before a request of the API. Addresses that
// the host itself gave have it already.
func (t *endpointTransport) adapt(u *url.URL) (isAPI bool) {
	inRepo := "/" + t.repo + "/"
	switch {
	case t.repo != "" && strings.HasPrefix(u.Path, t.e.path+inRepo):
	case u.Path == apiPath+"/", t.repo != "" && strings.HasPrefix(u.Path, apiPath+inRepo):
		u.Path, u.RawPath = t.e.path+strings.TrimPrefix(u.Path, apiPath), ""
	default:
		return false
	}
	return true
}

// config is the TLS configuration for the endpoint's own host; nil is Go's.
func (o *tlsOptions) config(base *tls.Config) (*tls.Config, error) {
	if !o.skipVerify && len(o.ca) == 0 && len(o.client) == 0 {
		return base, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if base != nil {
		c = base.Clone()
	}
	c.InsecureSkipVerify = o.skipVerify
	if len(o.ca) > 0 {
		pool := c.RootCAs
		if pool == nil {
			var err error
			if pool, err = x509.SystemCertPool(); err != nil {
				pool = x509.NewCertPool()
			}
		}
		c.RootCAs = pool.Clone()
		for _, file := range o.ca {
			pem, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("read authority: %w", err)
			}
			if !c.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("read authority: no certificate in %s", file)
			}
		}
	}
	for _, pair := range o.client {
		key := pair[1]
		if key == "" {
			key = pair[0]
		}
		cert, err := tls.LoadX509KeyPair(pair[0], key)
		if err != nil {
			return nil, fmt.Errorf("read certificate %s: %w", pair[0], err)
		}
		c.Certificates = append(c.Certificates, cert)
	}
	return c, nil
}

// remote is a repository with all the places that have it.
type remote struct {
	s      *Store
	t      target
	places []*place
}

// place is one of them, opened when it is first needed.
type place struct {
	endpoint
	s *Store // with the patience that the place deserves

	mu     sync.Mutex
	opened bool
	r      *repository
	err    error
}

// openRemote finds the places of a repository. It asks none of them yet.
func (s *Store) openRemote(t target) (*remote, error) {
	own, err := name.NewRegistry(reference.Domain(t.named))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReference, err)
	}
	all, err := s.endpoints(reference.Domain(t.named), own.RegistryStr())
	if err != nil {
		return nil, err
	}
	m := &remote{s: s, t: t}
	for i, e := range all {
		at := *s
		if i < len(all)-1 && at.o.Retries > 1 {
			at.o.Retries = 1 // the next place is the better retry
		}
		m.places = append(m.places, &place{endpoint: e, s: &at})
	}
	return m, nil
}

func (m *remote) close() {
	for _, p := range m.places {
		if p.r != nil {
			p.r.close()
		}
	}
}

// reach opens a place to read from it. What is out of reach stays so for this
// pull: each layer would wait for it again.
func (m *remote) reach(ctx context.Context, p *place) (*repository, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opened {
		return p.r, p.err
	}
	r, err := p.s.openPull(ctx, m.t, &p.endpoint)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	p.opened, p.r, p.err = true, r, err
	return r, err
}

// each asks the places that can, one after the other, until one answers.
func (m *remote) each(ctx context.Context, can func(*place) bool, do func(*repository) error) error {
	var last error
	var before []string
	for _, p := range m.places {
		if !can(p) {
			continue
		}
		r, err := m.reach(ctx, p)
		if err == nil {
			err = do(r)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		if last != nil {
			before = append(before, printable(last.Error()))
		}
		if last = err; len(m.places) > 1 {
			m.s.o.Log.Debug("registry host fails", "host", p.host, "cause", err)
			last = fmt.Errorf("%s: %w", p.host, err)
		}
	}
	switch {
	case last == nil:
		return fmt.Errorf("no host is configured that can do this for %s", reference.Domain(m.t.named))
	case len(before) > 0:
		return fmt.Errorf("%w; before it %s", last, strings.Join(before, "; "))
	}
	return last
}

func (p *place) pulls() bool    { return p.pull }
func (p *place) resolves() bool { return p.resolve }

// top reads the document that the reference names, with its media type. Which
// image a tag means is for hosts to say that may resolve.
func (m *remote) top(ctx context.Context) (raw []byte, mediaType string, err error) {
	can := (*place).resolves
	if m.t.digest() != "" {
		can = (*place).pulls
	}
	err = m.each(ctx, can, func(r *repository) (err error) {
		raw, mediaType, err = r.top(ctx)
		return err
	})
	return raw, mediaType, err
}

func (m *remote) manifest(ctx context.Context, d ocispec.Descriptor) (raw []byte, err error) {
	err = m.each(ctx, (*place).pulls, func(r *repository) (err error) {
		if raw, err = r.manifest(ctx, d); err == nil {
			err = verifyDocument(raw, d)
		}
		return err
	})
	return raw, err
}

// open gives a blob. What comes of a large one outlives a pull that fails.
func (m *remote) open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if d.Size >= m.s.minPartial {
		p := m.s.openPartial(ctx, d, func(off int64) (io.ReadCloser, error) { return m.openAt(ctx, d, off) })
		if p != nil {
			return p, nil
		}
	}
	return m.openAt(ctx, d, 0)
}

// openAt gives a blob, from off on, from the first place that has it; should that
// place fail in the middle, the next one goes on.
func (m *remote) openAt(ctx context.Context, d ocispec.Descriptor, off int64) (io.ReadCloser, error) {
	var b *blobReader
	err := m.each(ctx, (*place).pulls, func(r *repository) (err error) {
		b, err = r.openBlob(ctx, d, off)
		return err
	})
	if err != nil {
		return nil, err
	}
	b.after = func(r *repository) *repository { return m.after(ctx, r) }
	return b, nil
}

// after is the next place that can be read from, nil when there is none.
func (m *remote) after(ctx context.Context, r *repository) *repository {
	at := slices.IndexFunc(m.places, func(p *place) bool { return p.r == r })
	for _, p := range m.places[at+1:] {
		if !p.pull {
			continue
		}
		if next, err := m.reach(ctx, p); err == nil {
			return next
		}
	}
	return nil
}
