package main

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// htpasswd lets user me in with the password secret.
const htpasswd = "me:$2b$04$8YWHJvQFBm.U8c7ROOVXyuo9HjV/lqbxNqmBZS1czuZMxKfPsz37q\n"

// privateRegistry is a registry that nobody may use without a login.
func privateRegistry(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte(htpasswd), 0o600); err != nil {
		t.Fatal(err)
	}
	return serveRegistry(t, "auth: {htpasswd: {realm: test, path: "+file+"}}\n")
}

// tlsRegistry puts TLS before a registry; cert is the file of its authority.
func tlsRegistry(t *testing.T, registry string) (address, cert string) {
	t.Helper()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: registry})
	srv := httptest.NewUnstartedServer(proxy)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are the test
	srv.StartTLS()
	t.Cleanup(srv.Close)
	cert = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(cert, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return srv.Listener.Addr().String(), cert
}

// brokenRegistry puts a proxy before a registry that cuts every answer after
// 300,000 bytes. What ranges it was asked for is in the file ranges.
func brokenRegistry(t *testing.T, registry string) (address, ranges string) {
	t.Helper()
	ranges = filepath.Join(t.TempDir(), "ranges")
	file, err := os.Create(ranges)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: registry})
	proxy.ErrorLog = log.New(io.Discard, "", 0) // the cuts are the test
	proxy.ModifyResponse = func(r *http.Response) error {
		if asked := r.Request.Header.Get("Range"); asked != "" {
			fmt.Fprintln(file, r.StatusCode, asked)
		}
		r.Body = &cutBody{r.Body, 300_000}
		return nil
	}
	srv := httptest.NewServer(proxy)
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), ranges
}

// cutBody fails after left bytes.
type cutBody struct {
	io.ReadCloser
	left int
}

func (c *cutBody) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// TestImageScripts runs the scripts that need a registry and no VM, against
// Debian's docker-registry with the test images in it (MICROPOD_TEST_IMAGES).
func TestImageScripts(t *testing.T) {
	images := os.Getenv("MICROPOD_TEST_IMAGES")
	if images == "" {
		if os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
			t.Fatal("MICROPOD_TEST_IMAGES must name an OCI layout")
		}
		t.Skip("MICROPOD_TEST_IMAGES does not name an OCI layout (make test does)")
	}
	commands := scriptCommands()
	commands["expect"] = expect
	registry, private := startRegistry(t, images), privateRegistry(t)
	overTLS, cert := tlsRegistry(t, registry)
	broken, ranges := brokenRegistry(t, registry)
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/image",
		Cmds:               commands,
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("MICROPOD_ROOT", filepath.Join(env.WorkDir, "root"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("DOCKER_CONFIG", filepath.Join(env.WorkDir, "docker"))
			env.Setenv("REGISTRY", registry)
			env.Setenv("PRIVATE", private)
			env.Setenv("BROKENREGISTRY", broken)
			env.Setenv("RANGES", ranges)
			env.Setenv("TLSREGISTRY", overTLS)
			env.Setenv("TLSCERT", cert)
			env.Setenv("IMAGES", images)
			env.Setenv("BUSYBOX", registry+"/busybox:latest")
			env.Setenv("ESC", "\x1b")
			return nil
		},
	})
}
