package image

import (
	"os"
	"os/user"
	"path/filepath"
	"testing"
)

func TestDockerProxies(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	const full = `{"auths":{}, "proxies":{
		"default":{"httpProxy":"http://p:1","httpsProxy":"http://p:2","noProxy":"*.test","ftpProxy":"http://p:3","allProxy":"socks5://p:4"},
		"tcp://other:2376":{"httpProxy":"http://q:1"}}}`
	for _, c := range []struct {
		text, daemon string
		want         Proxies
		fails        bool
	}{
		{text: "{}", daemon: "unix:///x"},
		{full, "unix:///x", Proxies{"http://p:1", "http://p:2", "*.test", "http://p:3", "socks5://p:4"}, false},
		{full, "tcp://other:2376", Proxies{HTTP: "http://q:1"}, false},
		{`{"proxies":null}`, "unix:///x", Proxies{}, false},
		{`{"proxies":[]}`, "unix:///x", Proxies{}, true},
		{`{`, "unix:///x", Proxies{}, true},
	} {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := DockerProxies(c.daemon); got != c.want || (err != nil) != c.fails {
			t.Errorf("%s for %s: %+v, %v; want %+v", c.text, c.daemon, got, err, c.want)
		}
	}
}

// Without HOME, as in a service, docker's file is in the directory that the
// system has for the user.
func TestDockerConfigPath(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Skipf("this user has no name: %v", err)
	}
	for home, want := range map[string]string{"": me.HomeDir, "/nonexistent": "/nonexistent"} {
		t.Setenv("DOCKER_CONFIG", "")
		t.Setenv("HOME", home)
		want = filepath.Join(want, ".docker", "config.json")
		if real, err := filepath.EvalSymlinks(want); err == nil {
			want = real
		}
		if got, err := dockerConfigPath(); err != nil || got != want {
			t.Errorf("HOME=%q: %q, %v", home, got, err)
		}
	}
}
