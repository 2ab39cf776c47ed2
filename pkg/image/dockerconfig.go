package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/docker/docker-credential-helpers/client"
	"github.com/docker/docker-credential-helpers/credentials"

	"github.com/micropod/micropod/pkg/state"
)

// dockerConfig is docker's config.json. It belongs to docker: only what a login
// changes is decoded, and everything else is written back as it was.
type dockerConfig struct {
	path    string
	fields  map[string]json.RawMessage
	auths   map[string]json.RawMessage
	helpers map[string]string // by registry
	store   string            // for all other registries
}

// dockerConfigPath is where docker's client looks, behind a link, so that the
// file and not the link is replaced.
func dockerConfigPath() (string, error) {
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		home, err := homeDir()
		if err != nil {
			return "", fmt.Errorf("find docker's config.json (or set DOCKER_CONFIG): %w", err)
		}
		dir = filepath.Join(home, ".docker")
	}
	path := filepath.Join(dir, "config.json")
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	}
	return path, nil
}

// homeDir is the user's, as docker finds it: a service may have no HOME.
func homeDir() (string, error) {
	if home := os.Getenv("HOME"); home != "" {
		return home, nil
	}
	u, err := user.Current()
	if err != nil {
		return "", err
	}
	return u.HomeDir, nil
}

func readDockerConfig() (*dockerConfig, error) {
	path, err := dockerConfigPath()
	if err != nil {
		return nil, err
	}
	c := &dockerConfig{path: path, fields: map[string]json.RawMessage{}, auths: map[string]json.RawMessage{}}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil && len(raw) > 0 {
		err = c.decode(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return c, nil
}

func (c *dockerConfig) decode(raw []byte) error {
	if err := json.Unmarshal(raw, &c.fields); err != nil {
		return err
	}
	for key, into := range map[string]any{"auths": &c.auths, "credHelpers": &c.helpers, "credsStore": &c.store} {
		if v := c.fields[key]; v != nil {
			if err := json.Unmarshal(v, into); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
	}
	if c.fields == nil { // "null"
		c.fields = map[string]json.RawMessage{}
	}
	if c.auths == nil {
		c.auths = map[string]json.RawMessage{}
	}
	return nil
}

func (c *dockerConfig) write() error {
	auths, err := json.Marshal(c.auths)
	if err != nil {
		return err
	}
	c.fields["auths"] = auths
	raw, err := json.MarshalIndent(c.fields, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.path), 0o700); err != nil {
		return err
	}
	return state.WriteFile(c.path, append(raw, '\n'))
}

// helper is the program that keeps a registry's credentials, nil when the file
// itself does.
func (c *dockerConfig) helper(server string) client.ProgramFunc {
	name, ok := c.helpers[server]
	if !ok {
		name = c.store
	}
	if name == "" {
		return nil
	}
	return client.NewShellProgramFunc("docker-credential-" + name)
}

// editDockerConfig changes the file, so that two logins do not lose each other's
// entry. change reports whether there is something to write.
func (s *Store) editDockerConfig(change func(*dockerConfig) bool) error {
	l, err := s.lock()
	if err != nil {
		return err
	}
	defer l.Unlock()
	c, err := readDockerConfig()
	if err != nil || !change(c) {
		return err
	}
	return c.write()
}

// runHelper runs a credential helper, which may wait for a person: a cancelled
// command does not wait with it.
func runHelper(ctx context.Context, run func() error) error {
	done := make(chan error, 1)
	go func() { done <- run() }()
	select {
	case err := <-done:
		if err != nil {
			return errors.New(printable(err.Error()))
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// storeLogin keeps credentials; plain is the path of the file if they are in it
// as they are.
func (s *Store) storeLogin(ctx context.Context, server, user, password string) (plain string, err error) {
	c, err := readDockerConfig()
	if err != nil {
		return "", err
	}
	entry := json.RawMessage("{}") // docker lists what a helper has
	if helper := c.helper(server); helper != nil {
		secret := &credentials.Credentials{ServerURL: server, Username: user, Secret: password}
		err = runHelper(ctx, func() error { return client.Store(helper, secret) })
	} else {
		auth := map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password))}
		entry, err = json.Marshal(auth)
		plain = c.path
	}
	if err != nil {
		return "", err
	}
	return plain, s.editDockerConfig(func(c *dockerConfig) bool {
		c.auths[server] = entry
		return true
	})
}

// eraseLogin forgets credentials under all their spellings. It fails only when
// a helper that has the first of them fails.
func (s *Store) eraseLogin(ctx context.Context, servers []string) error {
	c, err := readDockerConfig()
	if err != nil {
		return err
	}
	for i, server := range servers {
		helper := c.helper(server)
		if helper == nil {
			continue
		}
		// The other spellings are mostly not there, which helpers call an error.
		err := runHelper(ctx, func() error { return client.Erase(helper, server) })
		if err != nil && (i == 0 && !strings.Contains(err.Error(), "not found in native keychain") || ctx.Err() != nil) {
			return err
		}
	}
	return s.editDockerConfig(func(c *dockerConfig) (changed bool) {
		for _, server := range servers {
			if _, ok := c.auths[server]; ok {
				delete(c.auths, server)
				changed = true
			}
		}
		return changed
	})
}
