package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Where containerd's files that say how to reach registries are:
// https://github.com/containerd/containerd/blob/main/docs/hosts.md
const (
	fileHosts   = "hosts.toml"
	dirDefault  = "_default"
	maxHosts    = 1 << 20
	apiPath     = "/v2"
	dockerHosts = "registry-1.docker.io"
)

// endpoint is one place that answers for a registry's name: the registry itself
// or a mirror of it.
type endpoint struct {
	// scheme is "https" or "http"; "" is https, with http after it where that
	// is allowed.
	scheme string
	host   string
	// path of the API, "/v2" but for override_path.
	path                string
	resolve, pull, push bool
	tls                 tlsOptions
	header              http.Header
	dialTimeout         time.Duration
	// mirror: not the registry itself. It is told for which registry it is
	// asked, and gets no credentials but its own.
	mirror bool
}

type tlsOptions struct {
	skipVerify bool
	ca         []string    // files
	client     [][2]string // certificate and key
}

// endpoints are the places to ask about a registry's images, in order. The last
// one is the registry itself unless the file names another server.
func (s *Store) endpoints(domain, own string) ([]endpoint, error) {
	dir, err := s.hostsDir(domain)
	if err != nil {
		return nil, fmt.Errorf("registry configuration: %w", err)
	}
	if dir == "" {
		return []endpoint{ownEndpoint(own)}, nil
	}
	name := filepath.Join(dir, fileHosts)
	raw, err := readHosts(name)
	if errors.Is(err, fs.ErrNotExist) {
		e := ownEndpoint(own)
		if e.tls, err = certificatesIn(dir); err != nil {
			return nil, fmt.Errorf("registry configuration: %w", err)
		}
		return []endpoint{e}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("registry configuration: %w", err)
	}
	all, err := parseHosts(raw, dir, own)
	if err != nil {
		return nil, fmt.Errorf("registry configuration %s: %w", name, err)
	}
	return all, nil
}

// hostsDir is the first of containerd's places for a registry that exists, ""
// when none does. One that cannot be looked at is an error: what it says may be
// that the registry itself must not be asked.
func (s *Store) hostsDir(domain string) (string, error) {
	if s.o.HostsDir == "" {
		return "", nil
	}
	names := []string{domain, dirDefault}
	if i := strings.LastIndexByte(domain, ':'); i > 0 {
		names = append([]string{domain[:i] + "_" + domain[i+1:] + "_"}, names...)
	}
	for _, n := range names {
		dir := filepath.Join(s.o.HostsDir, n)
		st, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err == nil && !st.IsDir():
			err = fmt.Errorf("%s is not a directory", dir)
		}
		return dir, err
	}
	return "", nil
}

func ownEndpoint(own string) endpoint {
	return endpoint{host: own, path: apiPath, resolve: true, pull: true, push: true}
}

// readHosts reads a bounded regular file: a FIFO must not block us.
func readHosts(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file", name))
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxHosts+1))
	if err == nil && len(raw) > maxHosts {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxHosts)
	}
	return raw, err
}

// certificatesIn are docker's files for a registry, which containerd reads where
// there is no hosts.toml: *.crt are authorities, *.cert and *.key our own.
func certificatesIn(dir string) (tlsOptions, error) {
	var t tlsOptions
	entries, err := os.ReadDir(dir)
	if err != nil {
		return t, err
	}
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		switch filepath.Ext(file) {
		case ".crt":
			t.ca = append(t.ca, file)
		case ".cert":
			t.client = append(t.client, [2]string{file, strings.TrimSuffix(file, ".cert") + ".key"})
		}
	}
	return t, nil
}
