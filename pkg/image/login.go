package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// dockerHub is the name under which docker keeps the credentials of Docker Hub.
const dockerHub = "https://index.docker.io/v1/"

// ErrNoCredentials says that nothing is stored for a registry.
var ErrNoCredentials = errors.New("no credentials")

// LoginServer is the name under which docker keeps the credentials of a
// registry: its host and port. "" and docker.io are Docker Hub.
func LoginServer(server string) string {
	switch server {
	case "", "docker.io", dockerHub:
		return dockerHub
	}
	server = strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://")
	host, _, _ := strings.Cut(server, "/")
	return host
}

// loginRegistry is the registry whose credentials these are.
func loginRegistry(server string) (name.Registry, error) {
	host := LoginServer(server)
	if host == dockerHub {
		host = name.DefaultRegistry
	}
	reg, err := name.NewRegistry(host)
	if err != nil {
		return reg, fmt.Errorf("%w: registry %q: %w", ErrReference, clip(server), err)
	}
	return reg, nil
}

// loginEndpoint is where they are tried: the registry itself, in the way that is
// configured for it. A mirror never sees them.
func (s *Store) loginEndpoint(own name.Registry) (*endpoint, error) {
	domain := own.RegistryStr()
	if domain == name.DefaultRegistry {
		domain = "docker.io"
	}
	all, err := s.endpoints(domain, own.RegistryStr())
	if err != nil {
		return nil, err
	}
	for i := range all {
		if !all[i].mirror {
			return &all[i], nil
		}
	}
	e := ownEndpoint(own.RegistryStr())
	return &e, nil
}

// Login tries a user's password at a registry and, when the registry takes it,
// keeps it where docker does: by the credential helper that docker's config.json
// names, else in that file itself. plain is the file's path in the second case.
func (s *Store) Login(ctx context.Context, server, user, password string) (plain string, err error) {
	switch {
	case user == "" || password == "":
		return "", fmt.Errorf("log in: %w: user name and password must not be empty", ErrNoCredentials)
	case strings.ContainsRune(user, ':'):
		return "", fmt.Errorf("log in: %w: a user name holds no colon", ErrNoCredentials)
	}
	auth := authn.FromConfig(authn.AuthConfig{Username: user, Password: password})
	if err := s.tryLogin(ctx, server, auth); err != nil {
		return "", fmt.Errorf("log in to %s: %w", LoginServer(server), err)
	}
	plain, err = s.storeLogin(ctx, LoginServer(server), user, password)
	if err != nil {
		return "", fmt.Errorf("store credentials: %w", err)
	}
	return plain, nil
}

// StoredLogin tries the credentials that are kept for a registry and returns
// the user's name, "" when they are a token; ErrNoCredentials when there are
// none.
func (s *Store) StoredLogin(ctx context.Context, server string) (user string, err error) {
	reg, err := loginRegistry(server)
	if err != nil {
		return "", err
	}
	c, err := s.credentials(ctx, reg)
	if err != nil {
		return "", err
	}
	if c.err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoCredentials, c.err)
	}
	config, err := authn.Authorization(ctx, c.a)
	if err != nil || c.a == authn.Anonymous || *config == (authn.AuthConfig{}) {
		return "", ErrNoCredentials
	}
	if err := s.tryLogin(ctx, server, c.a); err != nil {
		return config.Username, fmt.Errorf("log in to %s: %w", LoginServer(server), err)
	}
	return config.Username, nil
}

// tryLogin asks a registry whether it lets somebody in.
func (s *Store) tryLogin(ctx context.Context, server string, auth authn.Authenticator) error {
	own, err := loginRegistry(server)
	if err != nil {
		return err
	}
	e, err := s.loginEndpoint(own)
	if err != nil {
		return err
	}
	insecure := s.mayBePlain(e, own.RegistryStr())
	var opts []name.Option
	if insecure {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(e.host, opts...)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrReference, err)
	}
	g, err := newEndpointGuard(s.o.Transport, e, insecure)
	if err != nil {
		return fmt.Errorf("registry configuration: %w", err)
	}
	defer g.close()
	rt := transport.NewUserAgent(&endpointTransport{e: e, inner: g}, userAgent)
	err = s.retry(ctx, func(ctx context.Context) error { return ask(ctx, reg, auth, rt) })
	if e := asStatus(err); e != nil && (e.status == http.StatusUnauthorized || e.status == http.StatusForbidden) {
		return fmt.Errorf("%w: wrong user name or password: %w", ErrUnauthorized, e)
	}
	if err != nil {
		return unreachable(own.RegistryStr(), err)
	}
	return nil
}

// ask makes the request that every registry answers, and for which it wants a
// login when it wants one at all.
func ask(ctx context.Context, reg name.Registry, auth authn.Authenticator, inner http.RoundTripper) error {
	rt, err := transport.NewWithContext(ctx, reg, auth, inner, nil)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+reg.RegistryStr()+apiPath+"/", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: rt, CheckRedirect: checkRedirect}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return newStatusError(resp)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxDocument))
	return err
}

// Logout forgets the credentials of a registry; none being there is no error.
func (s *Store) Logout(ctx context.Context, server string) error {
	server = LoginServer(server)
	keys := []string{server}
	if server != dockerHub { // spellings that older tools used
		keys = append(keys, "https://"+server, "http://"+server)
	}
	if err := s.eraseLogin(ctx, keys); err != nil {
		return fmt.Errorf("remove credentials of %s: %w", server, err)
	}
	return nil
}
