package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/distribution/reference"
)

// daemonSocket is where docker listens when nothing else is said.
const daemonSocket = "/var/run/docker.sock"

// daemon is how to reach a Docker daemon.
type daemon struct {
	where  string // for people
	base   string // of URLs
	client *http.Client
}

// findDaemon reads DOCKER_HOST's form; "" is docker's own default, then that of
// a rootless daemon.
func findDaemon(host string) (*daemon, error) {
	if host == "" {
		host = os.Getenv("DOCKER_HOST")
	}
	if host == "" {
		host = "unix://" + daemonSocket
		own := filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "docker.sock")
		if _, err := os.Stat(daemonSocket); errors.Is(err, fs.ErrNotExist) && filepath.IsAbs(own) {
			if _, err := os.Stat(own); err == nil {
				host = "unix://" + own
			}
		}
	}
	scheme, addr, _ := strings.Cut(host, "://")
	t := &http.Transport{DisableCompression: true, ResponseHeaderTimeout: 5 * time.Minute}
	d := &daemon{where: host, base: "http://docker", client: &http.Client{Transport: t}}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	switch {
	case scheme == "unix" && filepath.IsAbs(addr):
		d.where = addr
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", addr)
		}
	case scheme == "tcp" && addr != "":
		t.DialContext = dialer.DialContext
		d.base = "http://" + addr
		if os.Getenv("DOCKER_TLS_VERIFY") != "" {
			var err error
			if t.TLSClientConfig, err = daemonTLS(os.Getenv("DOCKER_CERT_PATH")); err != nil {
				return nil, err
			}
			d.base = "https://" + addr
		}
	default:
		return nil, fmt.Errorf("docker host %q is not supported: use unix:///path or tcp://host:port", clip(host))
	}
	return d, nil
}

// daemonTLS reads the certificates that docker's client uses.
func daemonTLS(dir string) (*tls.Config, error) {
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("find docker's certificates: %w", err)
		}
		dir = filepath.Join(home, ".docker")
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, fmt.Errorf("read docker's certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("read docker's certificates: no certificate in %s/ca.pem", dir)
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, fmt.Errorf("read docker's certificates: %w", err)
	}
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, nil
}

// pullDaemon has the daemon save the image and reads the archive.
func (s *Store) pullDaemon(ctx context.Context, t target, want wish, p Progress) (*Image, error) {
	d, err := findDaemon(s.o.DockerHost)
	if err != nil {
		return nil, err
	}
	defer d.client.CloseIdleConnections()
	name := reference.FamiliarString(t.named)
	// One image each: with several names in the URL the archive holds several.
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+"/images/get?names="+url.QueryEscape(name), nil)
	if err != nil {
		return nil, err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, d.explain(ctx, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, fmt.Errorf("%w: the docker daemon at %s has no %s", ErrNotFound, d.where, name)
	default:
		return nil, fmt.Errorf("the docker daemon at %s answered %s", d.where, resp.Status)
	}
	a, err := s.readArchive(ctx, resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read image from the docker daemon: %w", err)
	}
	defer a.close()
	return s.pullDockerArchive(ctx, a, t, want, p)
}

// explain says why nobody answers and what to do.
func (d *daemon) explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("no permission for the docker daemon's socket %s (join the docker group: sudo usermod -aG docker $USER)", d.where)
	}
	return fmt.Errorf("%w: nobody answers at %s (start it: sudo systemctl start docker; or set DOCKER_HOST): %w",
		ErrNoDaemon, d.where, rootCause(err))
}

// rootCause drops the wrapping that repeats the URL.
func rootCause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
