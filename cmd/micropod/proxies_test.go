package main

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/micropod/micropod/pkg/image"
)

// The names and the rule are those of docker's client: ConfigFile.ParseProxyConfig.
func TestProxyEnv(t *testing.T) {
	all := image.Proxies{HTTP: "http://p:1", HTTPS: "http://p:2", No: "*.test,127.0.0.0/8", FTP: "http://p:3", All: "socks5://p:4"}
	for _, c := range []struct {
		proxies image.Proxies
		given   []string
		want    []string
	}{
		{want: nil},
		{all, nil, []string{
			"ALL_PROXY=socks5://p:4", "all_proxy=socks5://p:4", "FTP_PROXY=http://p:3", "ftp_proxy=http://p:3",
			"HTTP_PROXY=http://p:1", "http_proxy=http://p:1", "HTTPS_PROXY=http://p:2", "https_proxy=http://p:2",
			"NO_PROXY=*.test,127.0.0.0/8", "no_proxy=*.test,127.0.0.0/8",
		}},
		{image.Proxies{HTTP: "http://p:1"}, []string{"HTTP_PROXY=mine"}, []string{"http_proxy=http://p:1"}},
		{image.Proxies{HTTP: "http://p:1"}, []string{"http_proxy", "HTTP_PROXY="}, nil},
		{image.Proxies{HTTP: "http://p:1"}, []string{"HTTP_PROXY_X=1"}, []string{"HTTP_PROXY=http://p:1", "http_proxy=http://p:1"}},
	} {
		if got := proxyEnv(c.proxies, c.given); !slices.Equal(got, c.want) {
			t.Errorf("%+v with %v: %v, want %v", c.proxies, c.given, got, c.want)
		}
	}
}

// What docker's client asks its daemon for is what a container gets here.
func TestProxiesLikeDocker(t *testing.T) {
	client, err := exec.LookPath("docker")
	if err != nil && os.Getenv("MICROPOD_TEST_REQUIRE") == "1" {
		t.Fatalf("%v (scripts/test-setup.sh installs it)", err)
	}
	if err != nil {
		t.Skip("no docker client: ", err)
	}
	dir := t.TempDir()
	daemon := "unix://" + filepath.Join(dir, "d")
	asked := fakeDaemon(t, filepath.Join(dir, "d"))
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("DOCKER_HOST", daemon)
	t.Setenv("DOCKER_CONTEXT", "")
	const byDefault = `"default":{"httpProxy":"http://p:1","httpsProxy":"","noProxy":"*.test","ftpProxy":"http://p:3","allProxy":"socks5://p:4"}`
	for _, c := range []struct {
		proxies string
		given   []string
	}{
		{`{` + byDefault + `}`, nil},
		{`{` + byDefault + `}`, []string{"HTTP_PROXY=mine", "no_proxy", "A=1"}},
		{`{` + byDefault + `,"` + daemon + `":{"httpsProxy":"http://q:2"}}`, []string{"https_proxy="}},
		{`{}`, []string{"http_proxy=x"}},
	} {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"proxies":`+c.proxies+`}`), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"create"}
		for _, e := range c.given {
			args = append(args, "-e", e)
		}
		if out, err := exec.Command(client, append(args, "image")...).CombinedOutput(); err != nil {
			t.Fatalf("docker: %v\n%s", err, out)
		}
		want := <-asked
		a := &app{err: os.Stderr}
		got := slices.Concat(c.given, a.proxies(c.given))
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s with %v:\n%v, docker has\n%v", c.proxies, c.given, got, want)
		}
	}
}

// fakeDaemon answers docker's client at a socket, and tells the variables of each
// container that it is asked for.
func fakeDaemon(t *testing.T, socket string) <-chan []string {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan []string, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("API-Version", "1.44") })
	mux.HandleFunc("POST /{version}/containers/create", func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Env []string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		asked <- body.Env
		w.WriteHeader(http.StatusCreated)
		w.Write([]byte(`{"Id":"x","Warnings":[]}`))
	})
	s := &http.Server{Handler: mux}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return asked
}
